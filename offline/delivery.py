"""Publish models to an object store, and take the model there as the one to improve on."""

from pathlib import Path
from typing import TYPE_CHECKING

from offline.state import Current, StateDirectory
from recrank.places import BucketPlace, MissingError, PlaceError

if TYPE_CHECKING:
    from recrank.bucket import Bucket


def parse_target(url: str) -> BucketPlace:
    """
    Return the place to publish to.

    Raises:
        PlaceError: *url* does not name a prefix in a bucket, or names a version.
    """
    place = BucketPlace.parse(url)
    if place.version:
        raise PlaceError(f"{url}: a publication makes its own version; leave out ?version=")
    return place


def deliver(model: Path, place: BucketPlace) -> BucketPlace:
    """
    Publish the artefact in the folder *model*, make it the current one at *place*, and return the place of its version.

    Raises:
        ArtefactError: the artefact cannot be served.
        PlaceError: the object store refuses or cannot be reached; the model published before stays current.
    """
    return _open(place).publish(model)


def adopt(state: StateDirectory, place: BucketPlace) -> None:
    """
    Make the model that is current at *place* the current one of *state*; without a model there, do nothing.

    A job without a volume compares its new model with the one that serves.

    Raises:
        ArtefactError: the model there is damaged.
        PlaceError: the object store refuses or cannot be reached.
        StateError: the state directory cannot be written.
    """
    bucket = _open(place)
    try:
        _, pointer = bucket.pointer()
    except MissingError:
        return
    with state.locked():
        current = state.current()
        if current and current.model.endswith(f"-{pointer.version}"):
            return
        draft = state.draft("model")
        draft.mkdir()
        bucket.download(pointer, draft)
        model = state.publish(draft, "models", pointer.version)
        state.advance(Current(current.store if current else "", model, current.dataset if current else "store"))


def _open(place: BucketPlace) -> "Bucket":
    from recrank.bucket import Bucket  # noqa: PLC0415 - most trainings need no client

    return Bucket(place)
