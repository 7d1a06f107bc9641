"""Durations and amounts as Go, Kubernetes and ISO 8601 write them."""

import re
from decimal import Decimal

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"[-+]?(?:0|(?:{_PART.pattern})+)")

# Years and months as long as they are on average; a field keeps one digit of its fraction, as in Knative's parser.
_PERIOD_S = {"Y": 31_556_952, "M": 2_629_746, "W": 604_800, "D": 86_400, "TH": 3600, "TM": 60, "TS": 1}
_FIELD = r"(?:(\d+)(?:[.,](\d)\d*)?{})?"
_PERIOD = re.compile(
    "[-+]?P" + "".join(map(_FIELD.format, "YMWD")) + "(?:T" + "".join(map(_FIELD.format, "HMS")) + ")?"
)

_SUFFIXES = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
_SUFFIXES |= {suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)}
_SUFFIXES |= {f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d{1,2}|[KMGTPE]i|[numkMGTPE]?)")


def parse_duration_ns(text: str) -> int:
    """
    Read a Go duration (`90s`, `1h30m`, `1.5s`) as whole nanoseconds.

    Raises:
        ValueError: *text* has another form.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 60s or 1m30s")
    total = sum(int(Decimal(number) * _NANOSECONDS[unit]) for number, unit in _PART.findall(text))
    return -total if text.startswith("-") else total


def parse_period_s(text: str) -> float:
    """
    Read an ISO 8601 duration (`PT0.2S`, `P1DT12H`) as seconds.

    Only the first digit of a fraction counts, as on a cluster (github.com/rickb777/date/period): `PT0.25S` is 0.2 s,
    and `PT0.05S` is 0 s.

    Raises:
        ValueError: *text* has another form.
    """
    match = _PERIOD.fullmatch("PT0S" if text == "P0" else text)
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration such as PT0.2S or PT1M")
    wholes, tenths = match.groups()[::2], match.groups()[1::2]
    seconds = sum(
        (int(whole or 0) + int(tenth or 0) / 10) * unit
        for whole, tenth, unit in zip(wholes, tenths, _PERIOD_S.values(), strict=True)
    )
    return -seconds if text.startswith("-") else seconds


def parse_quantity(text: str) -> Decimal:
    """
    Read a Kubernetes quantity (`500m`, `2`, `512Mi`, `1e3`) as a number.

    Raises:
        ValueError: *text* has another form.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 512Mi")
    number, suffix = match.groups()
    return (
        Decimal(number + suffix)
        if suffix[:1] in {"e", "E"} and len(suffix) > 1
        else Decimal(number) * _SUFFIXES[suffix]
    )
