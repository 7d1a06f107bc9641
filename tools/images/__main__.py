"""
`./run.sh images`: build the container images.

What follows `--` goes to the builder as it is, for instance `-- --platform linux/arm64`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.images.builder import IMAGES, ROOT, Builder, BuildError, find_builder, revision


def main(words: Sequence[str] | None = None) -> int:
    """Build; return the exit status."""
    given = list(sys.argv[1:] if words is None else words)
    split = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(prog="./run.sh images", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMAGES)}; all without one")
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--prefix", default="dev.local", help="what stands before each name (%(default)s)")
    parser.add_argument("--base", help="image with Python 3.11 or newer that the interpreter is taken from")
    parser.add_argument("--model", type=Path, metavar="DIR", help="build rank-items with this artefact in it as well")
    parser.add_argument("--builder", choices=["docker", "podman", "buildah"])
    options = parser.parse_args(given[:split])
    if unknown := [name for name in options.names if name not in IMAGES]:
        parser.error(f"there is no image {', '.join(unknown)}, only {', '.join(IMAGES)}")
    try:
        build(find_builder(options.builder, given[split + 1 :]), options)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(builder: Builder, options: argparse.Namespace) -> None:
    """Build the requested images and print their names."""
    arguments = {"VERSION": options.tag, "REVISION": revision()} | ({"BASE": options.base} if options.base else {})
    built = []
    for name in options.names or IMAGES:
        image = f"{options.prefix}/{name}:{options.tag}"
        builder.build(ROOT / IMAGES[name], context=ROOT, image=image, arguments=arguments)
        built.append(image)
    if options.model:
        built.append(build_with_model(builder, options.model, image=f"{options.prefix}/rank-items:{options.tag}"))
    print(*built, sep="\n")


def build_with_model(builder: Builder, model: Path, *, image: str) -> str:
    """Build rank-items with the artefact in *model*; return the image name, whose tag ends in the artefact's version."""
    try:
        version = json.loads((model / "manifest.json").read_text())["version"]
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(f"{model} holds no model artefact ({error!r}); run ./run.sh train first") from error
    with_model = f"{image}-{version}"
    arguments = {"IMAGE": image, "MODEL_VERSION": version}
    dockerfile = ROOT / "functions/rank_items/Dockerfile.model"
    builder.build(dockerfile, context=model, image=with_model, arguments=arguments)
    return with_model


if __name__ == "__main__":
    sys.exit(main())
