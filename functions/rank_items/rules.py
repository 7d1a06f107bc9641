"""The rules of the setting RULES, which replace those of the declaration."""

from chassis.environment import Reader
from chassis.wire.decoder import Decoder
from chassis.wire.problems import InvalidRequestError, ServingError
from recsys.declaration.faults import find_empty
from recsys.declaration.types import DeclaredRules

_decoder = Decoder(DeclaredRules)


def read_rules(env: Reader) -> DeclaredRules | None:
    """Read the rules of the setting RULES and add their faults to *env*; None leaves the declaration's rules."""
    try:
        rules = _decoder.read(env.text("RULES", "{}").encode(), _checked)
    except ServingError as refusal:
        env.faults += [f"RULES: {each}" for each in refusal.faults] or [f"RULES: {refusal}"]
        return None
    return None if rules == DeclaredRules() else rules


def _checked(rules: DeclaredRules) -> DeclaredRules:
    faults = [
        fault
        for part, conditions in rules.conditions().items()
        for place, each in enumerate(conditions)
        for fault in find_empty(each, f"$.{part}[{place}]")
    ]
    if faults:
        raise InvalidRequestError(faults=faults)
    return rules
