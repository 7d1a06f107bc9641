"""
The keys of a feature store in Redis.

Each user has up to six keys with one hash tag, so that they live on one node of a cluster and one script may use all of
them. D is the SHA-256 of the user id, so that the name of a key does not hold the id:

    recsys:G:{D}:u         hash     user id, profile and counters; attributes as a:NAME -> TIME|VALUES (JSON)
    recsys:G:{D}:t         sorted   items with a weight above 0 by newest interaction (score: minus microseconds)
    recsys:G:{D}:n         sorted   the same for all other items
    recsys:G:{D}:w         hash     items' weights
    recsys:G:{D}:e         sorted   digests of events seen (score: time), trimmed to the window, expiring with it
    recsys:erased:{D}      hash     the erasure or readmission of the user, if any

G is the generation that `recsys:current` names. A replacement fills the next generation, names it there, and deletes
all others. Erasures, the catalogue (`recstore.catalogue.redis`) and exposures (`recstore.exposures.redis`) stay. A user with
50 items and 20 recent events takes about 9 KB.
"""

POINTER = "recsys:current"
ERASURES = "recsys:erased:"
_CATALOGUE = "recsys:{items}:"
_SHOWN = "recsys:shown:"

LASTING = (POINTER, ERASURES, _CATALOGUE, _SHOWN)
"""The beginnings of the keys that belong to no generation."""


def user_keys(generation: str, user: str) -> tuple[str, str, str, str, str]:
    """Return the keys u, t, w, e and n of the user with a digest."""
    tagged = f"recsys:{generation}:{{{user}}}"
    return f"{tagged}:u", f"{tagged}:t", f"{tagged}:w", f"{tagged}:e", f"{tagged}:n"


def exposure_keys(user: str) -> tuple[str, str, str, str]:
    """Return the keys of the exposures, their times, the actions and their times, of the user with a digest."""
    tagged = f"{_SHOWN}{{{user}}}"
    return f"{tagged}:x", f"{tagged}:xt", f"{tagged}:a", f"{tagged}:at"


def catalogue_key(part: str) -> str:
    """Return the key of a *part* of the catalogue. All have one hash tag, so that one script may use all of them."""
    return f"{_CATALOGUE}{part}"


def erasure_key(user: str) -> str:
    """Return the key of the erasure of the user with a digest."""
    return f"{ERASURES}{{{user}}}"


def fact_key(generation: str, name: str) -> str:
    """Return the key of a fact about the whole content of a generation."""
    return f"recsys:{generation}:{name}"
