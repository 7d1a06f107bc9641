"""
Join the exposures of a user with the user's actions.

The result depends only on the two sets, so the order and the number of deliveries do not matter. Each action belongs to
at most one exposure:

    the action names an exposure   to that exposure, if it is known and shows the item
    it names none                  to the newest exposure within the window before it that shows the item
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec.structs import asdict

from recstore.exposures.records import Action, Exposure, ExposureOutcome, ItemOutcome

DAY_S = 86_400.0


def join(exposures: Sequence[Exposure], actions: Iterable[Action], *, window_us: int) -> list[ExposureOutcome]:
    """
    Return *exposures*, oldest first, with the outcomes of their items. All records are of one user.

    Args:
        exposures: Exposures with distinct ids.
        actions: Actions with distinct events.
        window_us: The longest time from an exposure to an action that names no exposure.
    """
    ordered = sorted(exposures, key=lambda each: (each.time_us, each.exposure_id))
    shown: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for exposure in ordered:
        for item in exposure.shown():
            shown[item.item_id].append((exposure.time_us, exposure.exposure_id))
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for action in sorted(actions, key=lambda each: (each.time_us, each.event)):
        exposure_id = action.exposure_id or _newest(shown.get(action.item_id, ()), action.time_us, window_us)
        kinds[exposure_id, action.item_id].append(action.kind)
    return [_with_outcomes(exposure, kinds) for exposure in ordered]


def _newest(shown: Sequence[tuple[int, str]], time_us: int, window_us: int) -> str:
    """Return the id of the newest exposure of *shown* in the window before *time_us*, or ""."""
    place = bisect_right(shown, time_us, key=lambda each: each[0])
    if not place or shown[place - 1][0] < time_us - window_us:
        return ""
    return shown[place - 1][1]


def _with_outcomes(exposure: Exposure, kinds: dict[tuple[str, str], list[str]]) -> ExposureOutcome:
    items = tuple(
        ItemOutcome(
            item.item_id, item.position, item.propensity, tuple(kinds.get((exposure.exposure_id, item.item_id), ()))
        )
        for item in exposure.shown()
    )
    return ExposureOutcome(**{**asdict(exposure), "items": items})
