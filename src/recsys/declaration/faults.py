"""Find the faults of a declaration that concern several of its fields."""

from collections.abc import Iterator

from chassis.wire.problems import Fault
from recsys.contracts.wire import Condition
from recsys.declaration.classes import NO_PATH, PATH
from recsys.declaration.features import MISNAMED, NAME, find_faults
from recsys.declaration.types import RANGED, SESSION_END, Declaration
from recsys.records import AGE_GROUP


def find_contradictions(declaration: Declaration) -> Iterator[Fault]:
    """Yield every fault of a declaration whose types are right."""
    yield from _in_events(declaration)
    yield from _in_attributes(declaration)
    yield from _in_rules(declaration)
    yield from _in_own_models(declaration)
    yield from find_faults(declaration.features or {}, kind_of=declaration.kind_of_any)


def _in_events(declaration: Declaration) -> Iterator[Fault]:
    for name, kind in declaration.events.items():
        path = f"$.events.{name}"
        if name == SESSION_END:
            yield Fault(path, "exists without a declaration, and has no weight; remove it")
        elif not NAME.fullmatch(name):
            yield Fault(path, MISNAMED)
        if not kind.exact_weight:
            yield Fault(f"{path}.weight", "must not be 0; an event below 1/2048 would not count")
    if not any(kind.exact_weight > 0 for kind in declaration.events.values()):
        yield Fault("$.events", "must have a kind with a weight above 0; without one, no history would ever begin")


def _in_attributes(declaration: Declaration) -> Iterator[Fault]:
    for name, attribute in declaration.items.attributes.items():
        if name == "title" and attribute.kind != "text":
            yield Fault("$.items.attributes.title.kind", "must be 'text', because people read it")
    age = declaration.users.attributes.get(AGE_GROUP)
    if age and age.kind != "categorical":
        yield Fault(f"$.users.attributes.{AGE_GROUP}.kind", "must be 'categorical'")


def _in_rules(declaration: Declaration) -> Iterator[Fault]:
    rules = declaration.rules
    for part, each in rules.conditions().items():
        for place, condition in enumerate(each):
            path = f"$.rules.{part}[{place}]"
            yield from _in_use(declaration, condition.attribute, f"{path}.attribute")
            yield from find_empty(condition, path)
            if kind := declaration.kind_of(condition.attribute):
                yield from condition_faults(condition, is_ranged=kind in RANGED, path=path)
    for name in rules.caps:
        yield from _in_use(declaration, name, f"$.rules.caps.{name}")
        if declaration.kind_of(name) in RANGED:
            yield Fault(f"$.rules.caps.{name}", "must not be a number or a time, because its values hardly repeat")
    for place, name in enumerate(rules.filters or ()):
        yield from _in_use(declaration, name, f"$.rules.filters[{place}]")


def _in_own_models(declaration: Declaration) -> Iterator[Fault]:
    for part, model in (("ranker", declaration.ranker), ("encoder", declaration.encoder)):
        if model is None:
            continue
        if model.kind == "onnx" and not model.path:
            yield Fault(f"$.{part}.path", "must name the ONNX file")
        if model.kind == "python" and not PATH.fullmatch(model.class_ or ""):
            yield Fault(f"$.{part}.class", NO_PATH)
        if model.kind == "onnx" and model.class_:
            yield Fault(f"$.{part}.class", "must be absent: an ONNX file needs no class")
    ranker = declaration.ranker
    if ranker and (ranker.kind == "onnx") != bool(ranker.inputs):
        needs = "must name the columns of the input" if ranker.kind == "onnx" else "must be absent: a class has `names`"
        yield Fault("$.ranker.inputs", needs)


def find_empty(condition: Condition, path: str) -> Iterator[Fault]:
    """Yield a fault if *condition* names neither a value nor a limit."""
    if not (condition.any_of or condition.is_range):
        yield Fault(path, "must have any_of, at_least or at_most")


def condition_faults(condition: Condition, *, is_ranged: bool, path: str) -> Iterator[Fault]:
    """Yield a fault for each part of *condition* that does not suit the kind of its attribute."""
    if is_ranged and condition.any_of:
        yield Fault(f"{path}.any_of", f"must be absent: {condition.attribute} is a number; use at_least and at_most")
    for part in ("at_least", "at_most"):
        if not is_ranged and getattr(condition, part) is not None:
            yield Fault(f"{path}.{part}", f"must be absent: {condition.attribute} has values in words; use any_of")


def _in_use(declaration: Declaration, name: str, path: str) -> Iterator[Fault]:
    kind = declaration.kind_of(name)
    if kind is None:
        yield Fault(
            path, f"must be a declared attribute; declared are: {', '.join(declaration.items.attributes) or 'none'}"
        )
    elif kind == "text":
        yield Fault(path, "must not be a text, because no two items share one")
