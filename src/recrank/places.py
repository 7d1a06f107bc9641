"""
The place of a model.

    /models                          a folder, in the image or on a volume; its model never changes
    s3://BUCKET/PREFIX               a prefix in an object store, whose model changes with each publication
    s3://BUCKET/PREFIX?version=3f2a  one version from there
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FORM = "use s3://BUCKET/PREFIX or s3://BUCKET/PREFIX?version=VERSION"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_VERSION = re.compile(r"[0-9a-f]{12}")


class PlaceError(Exception):
    """The place of a model cannot be used now; the message says why and what to do."""


class MissingError(PlaceError):
    """No model was published at a place."""


@dataclass(frozen=True)
class BucketPlace:
    """
    A prefix in a bucket of an object store.

    Attributes:
        bucket: Name of the bucket.
        prefix: Beginning of the keys of all its objects, without slashes at its ends.
        version: The version to serve; "" for the one published last.
    """

    bucket: str
    prefix: str
    version: str = ""

    @classmethod
    def parse(cls, url: str) -> "BucketPlace":
        """
        Read a URL.

        Raises:
            PlaceError: *url* does not name a prefix in a bucket.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise PlaceError(f"{url!r} is not a URL: {error}; {_FORM}") from error
        prefix = unquote(parts.path).strip("/")
        version = parts.query.removeprefix("version=")
        is_version = _VERSION.fullmatch(version) and parts.query != version
        segments = prefix.split("/")
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
            raise PlaceError(f"{url!r} names no bucket; {_FORM}")
        if any(segment in {"", ".", ".."} for segment in segments):
            raise PlaceError(f"{url!r} has no prefix, or an empty part in it; {_FORM}")
        if parts.query and not is_version:
            raise PlaceError(f"{url!r} has a version that is not 12 hexadecimal digits; {_FORM}")
        return cls(parts.netloc, prefix, version)

    def at(self, version: str) -> "BucketPlace":
        """Return the place of one *version* under the same prefix."""
        return replace(self, version=version)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" + (f"?version={self.version}" if self.version else "")


ModelPlace = Path | BucketPlace


def parse_place(text: str) -> ModelPlace:
    """
    Return the place that *text* names.

    Raises:
        PlaceError: *text* is a URL, but not of a prefix in a bucket.
    """
    return BucketPlace.parse(text) if "://" in text else Path(text)
