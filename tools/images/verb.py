"""`./run.sh images`: build the container images."""

import json
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from tools.images.builder import IMAGES, ROOT, Builder, BuildError, find_builder, revision
from tools.images.prove import make_base

# The base that needs no registry.
DEBOOTSTRAP = "debootstrap"


def images(
    *,
    words: Sequence[str] | None = None,
    tag: str,
    prefix: str,
    base: str | None = None,
    model: Path | None = None,
    builder: str | None = None,
    to: str | None = None,
) -> int:
    """
    Build the images that *words* name, all of them by default, with the flags in *words*, and deliver them.

    Return the exit status.
    """
    given = list(words or ())
    names = list(takewhile(lambda word: not word.startswith("-"), given))
    if unknown := [name for name in names if name not in IMAGES]:
        print(f"{', '.join(unknown)}: no such image; the images are {', '.join(IMAGES)}", file=sys.stderr)
        return 2
    if base == DEBOOTSTRAP and builder not in {None, "buildah"}:
        print(f"--base {DEBOOTSTRAP}: {builder} does not have this base; leave out --builder", file=sys.stderr)
        return 2
    built = []
    try:
        version = _version_of(model) if model else ""
        if base == DEBOOTSTRAP:
            builder, base = "buildah", make_base("stable")
        arguments = {"VERSION": tag, "REVISION": revision()} | ({"BASE": base} if base else {})
        program = find_builder(builder, given[len(names) :])
        for name in names or IMAGES:
            built.append(f"{prefix}/{name}:{tag}")
            program.build(ROOT / IMAGES[name], context=ROOT, image=built[-1], arguments=arguments)
        if model:
            built.append(_build_with_model(program, model, version, image=f"{prefix}/rank-items:{tag}"))
        if to:
            built = [program.deliver(image, to) for image in built]
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(*built, sep="\n")
    return 0


def _version_of(model: Path) -> str:
    """Return the version of the artefact in the folder *model*."""
    try:
        return str(json.loads((model / "manifest.json").read_text())["version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BuildError(f"{model} holds no model artefact ({error!r}); run ./run.sh train first") from error


def _build_with_model(builder: Builder, model: Path, version: str, *, image: str) -> str:
    """Build rank-items with the artefact in *model*; return the image name, whose tag ends in the artefact's version."""
    with_model = f"{image}-{version}"
    arguments = {"IMAGE": image, "MODEL_VERSION": version}
    dockerfile = ROOT / "functions/rank_items/Dockerfile.model"
    builder.build(dockerfile, context=model, image=with_model, arguments=arguments)
    return with_model
