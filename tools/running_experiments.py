"""
`./run.sh experiments start|stop|list`: experiments of a running pipeline.

The setting EXPERIMENTS of recommend declares the experiments that run. The ledger of the state directory keeps the last
declaration of each.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from recsys.contracts.wire import Exploration
from recsys.experiments.declaration import Arm, Experiment, read_experiments
from recsys.experiments.ledger import keep
from tools.deployment.kn import Kn, KnError, kn_of, url_of_tag

_SETTING, _RANKS = "EXPERIMENTS", "rank-items"
# The second one answers requests that come as events, if the pipeline has it.
_SERVICE, _EVENT_DOOR = "recommend", "recommend-events"
_SETTINGS = "tag=TAG, diversity=0..1 or exploration=SHARE"


def run(
    *,
    action: str,
    name: str | None,
    arm: Sequence[str] | None,
    layer: str | None,
    share: float,
    users: int,
    namespace: str | None,
    kn: str,
    state_dir: Path,
) -> int:
    """
    Start, stop or list experiments.

    Returns:
        0; 1 if kn refuses, or the declaration has faults.
    """
    given = arm or ()
    client = kn_of(kn, namespace, state_dir)
    try:
        running = read_running(client)
        if action == "start":
            offset = find_slice(running, layer, share) if layer else 0.0
            arms = tuple(parse_arm(text, client) for text in given)
            at_us = time.time_ns() // 1000
            started = Experiment(
                name or "", arms, layer=layer or "", offset=offset, share=share, users=users, started_us=at_us
            )
            declare(client, [*running, started], state_dir=state_dir)
            print(*describe([started]), sep="\n")
        elif action == "stop":
            declare(client, stop(running, name or "", given), state_dir=state_dir)
            print(f"stopped {', '.join(given)} of {name}: its users get the default" if given else f"stopped {name}")
        else:
            print(*(describe(running) or ["no experiment runs"]), sep="\n")
    except (KnError, ValueError, msgspec.DecodeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def read_running(kn: Kn) -> tuple[Experiment, ...]:
    """
    Return the experiments that run.

    Raises:
        KnError: kn failed.
        ValueError: the setting cannot be read.
    """
    containers = kn.service(_SERVICE)["spec"]["template"]["spec"]["containers"]
    variables: Mapping[str, str] = {each["name"]: each.get("value", "") for each in containers[0].get("env") or ()}
    text = variables.get(_SETTING, "-")
    return () if text in {"", "-"} else read_experiments(text)


def declare(kn: Kn, experiments: Sequence[Experiment], *, state_dir: Path) -> None:
    """
    Let *experiments* run, and no others.

    Raises:
        KnError: kn refused.
        ValueError: the declaration has faults.
    """
    text = msgspec.json.encode(experiments).decode() if experiments else "-"
    if experiments:
        keep(read_experiments(text), state_dir=state_dir)
    kn.update(_SERVICE, "--env", f"{_SETTING}={text}")
    try:
        kn.service(_EVENT_DOOR)
    except KnError:
        return
    kn.update(_EVENT_DOOR, "--env", f"{_SETTING}={text}")


def parse_arm(text: str, kn: Kn) -> Arm:
    """
    Return the arm that *text* describes: `NAME=SHARE` and settings, with commas between them.

    Raises:
        ValueError: the text has another form, or no revision has the tag.
        KnError: kn failed.
    """
    arm, settings = split_arm(text)
    for name, value in settings.items():
        if name == "tag":
            arm = msgspec.structs.replace(arm, url=url_of_tag(kn, _RANKS, value))
        elif name == "diversity":
            arm = msgspec.structs.replace(arm, diversity=_number(value, text))
        elif name == "exploration":
            arm = msgspec.structs.replace(arm, exploration=Exploration(_number(value, text)))
        else:
            raise ValueError(f"--arm {text}: {name!r} is not a setting of an arm; use {_SETTINGS}")
    return msgspec.convert(msgspec.to_builtins(arm), Arm)


def split_arm(text: str) -> tuple[Arm, dict[str, str]]:
    """
    Return the arm without its settings, and the settings.

    Raises:
        ValueError: the text has another form.
    """
    words = [word.partition("=") for word in text.split(",")]
    if not all(name and value for name, _, value in words):
        raise ValueError(f"--arm {text}: write NAME=SHARE and settings, such as red=50%,diversity=0.3 ({_SETTINGS})")
    (name, _, share), *settings = words
    return Arm(name, _number(share, text)), {key: value for key, _, value in settings}


def _number(value: str, text: str) -> float:
    try:
        return float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        raise ValueError(f"--arm {text}: {value!r} is not a number such as 0.5 or 50%") from None


def find_slice(running: Sequence[Experiment], layer: str, share: float) -> float:
    """
    Return where a free slice of *share* begins in *layer*.

    Raises:
        ValueError: the layer has no such slice.
    """
    taken = sorted((each.offset, each.offset + each.share) for each in running if each.in_layer == layer)
    begin = 0.0
    for start, end in taken:
        if begin + share <= start + 1e-9:
            break
        begin = max(begin, end)
    if begin + share > 1 + 1e-9:
        raise ValueError(
            f"the layer {layer} has no free slice of {share:.0%}; stop one of its experiments or lower --share"
        )
    return begin


def stop(running: Sequence[Experiment], name: str, arms: Sequence[str]) -> list[Experiment]:
    """
    Return *running* without the experiment *name*, or with its *arms* stopped.

    Raises:
        ValueError: no such experiment runs, or it has no such arm.
    """
    found = next((each for each in running if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in running) or "none"
        raise ValueError(f"no experiment {name!r} runs (running: {known}); see ./run.sh experiments list")
    if not arms:
        return [each for each in running if each is not found]
    if unknown := {*arms} - {arm.name for arm in found.arms}:
        raise ValueError(f"{name} has no arm {', '.join(sorted(unknown))}; see ./run.sh experiments list")
    stopped = tuple(msgspec.structs.replace(arm, stopped=arm.stopped or arm.name in arms) for arm in found.arms)
    return [msgspec.structs.replace(each, arms=stopped) if each is found else each for each in running]


def describe(experiments: Sequence[Experiment]) -> list[str]:
    """Return a line for each experiment and each arm."""
    lines = []
    for each in experiments:
        lines.append(
            f"{each.name}: {each.share:.0%} of the users of the layer {each.in_layer}, {each.users} users planned"
        )
        for arm in each.arms:
            settings = {"url": arm.url or None, "diversity": arm.diversity, "exploration": arm.exploration}
            named = ", ".join(
                f"{key} {value.share if isinstance(value, Exploration) else value}"
                for key, value in settings.items()
                if value is not None
            )
            lines.append(f"  {arm.name} {arm.share:.0%}: {named or 'the default'}{' (stopped)' if arm.stopped else ''}")
    return lines
