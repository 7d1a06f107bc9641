"""
Compute the four features of a user from the user's counters. functions/extract_features/README.md has the formulas.

Serving and training both use this module, so their features cannot differ. Features depend on the stored counters alone:
the same state leads to the same features on every instance.
"""

from statistics import fmean, median_low

from recsys.contracts.wire import Features
from recsys.records import Profile

AGE_GROUPS = ("under-18", "18-24", "25-34", "35-44", "45-54", "55+", "unknown")
UNKNOWN_AGE = AGE_GROUPS[-1]
_AGE_PLACES = {group: place for place, group in enumerate(AGE_GROUPS)}

# The points of an action, and the points per session that give half of the largest engagement score.
VIEW_POINTS, CLICK_POINTS, PURCHASE_POINTS = 1, 2, 5
HALF_ENGAGED_POINTS = 10

UNKNOWN_FEATURES = Features(age_group=UNKNOWN_AGE, avg_session_duration=0.0, total_purchases=0, engagement_score=0.0)

_UPPER_AGES = ((17, "under-18"), (24, "18-24"), (34, "25-34"), (44, "35-44"), (54, "45-54"))


def compute_features(profile: Profile) -> Features:
    """
    Return the features of a user.

    Durations are in seconds, rounded to milliseconds; the engagement score is rounded to six decimals.
    """
    points = (VIEW_POINTS * profile.views + CLICK_POINTS * profile.clicks + PURCHASE_POINTS * profile.purchases) / max(
        1, profile.sessions
    )
    return Features(
        age_group=profile.age_group,
        avg_session_duration=round(profile.session_ms / 1000 / profile.sessions, 3) if profile.sessions else 0.0,
        total_purchases=profile.purchases,
        engagement_score=round(points / (points + HALF_ENGAGED_POINTS), 6),
    )


def population_defaults(features: list[Features]) -> Features:
    """Return the features of an unknown user: the mean of all users' *features*, and the median of their purchases."""
    if not features:
        return UNKNOWN_FEATURES
    return Features(
        age_group=UNKNOWN_AGE,
        avg_session_duration=round(fmean(each.avg_session_duration for each in features), 3),
        total_purchases=median_low(each.total_purchases for each in features),
        engagement_score=round(fmean(each.engagement_score for each in features), 6),
    )


def place_of_age(group: str) -> int:
    """Return the place of an age *group* in `AGE_GROUPS`; any other value counts as unknown."""
    return _AGE_PLACES.get(group, len(AGE_GROUPS) - 1)


def group_age(years: int) -> str:
    """Return the age group of someone *years* old."""
    return next((group for upper, group in _UPPER_AGES if years <= upper), "55+")
