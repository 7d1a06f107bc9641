"""
Models in a bucket of an S3-compatible object store.

    PREFIX/objects/SHA256          the files of all models, each under the hash of its content
    PREFIX/versions/VERSION.json   the files of a version: {"version": "3f2a…", "files": {"items.json": "SHA256", …}}
    PREFIX/current.json            the same, of the version published last

A publication writes `current.json` last, and an object store replaces an object in one step. A reader therefore finds
the former model or the new one, and a killed publication leaves the former.

The client reads AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL. An
endpoint with plain HTTP needs AWS_ALLOW_HTTP=true, except on the loopback interface.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from recrank.artefact import ARRAYS, ENCODER, ITEMS, MANIFEST, RANKER, ArtefactError, read_artefact
from recrank.interruptible import InterruptedReadError, Interruptible
from recrank.places import BucketPlace, MissingError, PlaceError

try:
    import obstore
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
    from obstore.store import S3Store
except ImportError as error:
    raise PlaceError(
        "this program has no client for object stores; build the image with LOCK=rank-items-s3, or install obstore"
    ) from error

_CURRENT = "current.json"
_FILES = frozenset({MANIFEST, ARRAYS, ITEMS, RANKER, ENCODER})
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_CHUNK_BYTES = 2**20
_POINTER_BYTES = 2**16
_CODE = re.compile(r"<Code>(\w+)</Code>")
_REMEDY = "publish the model again"

# A request may take 5 minutes, because that includes the whole download of a file. A server that sends nothing for 10 s
# counts as unreachable.
_CLIENT: Mapping[str, Any] = {
    "connect_timeout": timedelta(seconds=2),
    "read_timeout": timedelta(seconds=10),
    "timeout": timedelta(minutes=5),
}
_RETRY: Mapping[str, Any] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


class Pointer(Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a version: *files* has the SHA-256 of each by name."""

    version: str
    files: dict[str, Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]]


class Bucket:
    """
    The models at *place*. All methods block.

    Raises:
        PlaceError: the AWS_* variables are wrong.
    """

    def __init__(self, place: BucketPlace) -> None:
        self.place = place
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true" or urlsplit(endpoint).hostname in _LOOPBACK
        if endpoint.startswith("http://") and not allow_http:
            raise PlaceError(f"AWS_ENDPOINT_URL {endpoint}: plain HTTP; use https://, or set AWS_ALLOW_HTTP=true")
        self._reads = Interruptible()
        with self._explained(""):
            self._store = S3Store(
                place.bucket,
                prefix=place.prefix,
                client_options={**_CLIENT, "allow_http": allow_http},  # type: ignore[arg-type]
                retry_config=_RETRY,  # type: ignore[arg-type]
            )

    def stop(self) -> None:
        """End the read that a thread waits for, and refuse later ones. Any thread may call this."""
        self._reads.stop()

    def publish(self, folder: Path) -> BucketPlace:
        """
        Publish the artefact in *folder*, and make it the current model; return the place of its version.

        Raises:
            ArtefactError: the artefact cannot be served.
            PlaceError: the object store refuses or cannot be reached; the former model stays current.
        """
        version = self.upload(folder)
        self._put(_CURRENT, self._get(_version_key(version))[1])
        return self.place.at(version)

    def upload(self, folder: Path) -> str:
        """Store the artefact in *folder* without making it current, and return its version; see `publish`."""
        version = read_artefact(folder).manifest.version
        files = {}
        for path in sorted(folder.iterdir()):
            if path.name in _FILES:
                files[path.name] = _hash(path)
                self._put(_object_key(files[path.name]), path)
        self._put(_version_key(version), msgspec.json.encode(Pointer(version, files)))
        return version

    def pointer(self) -> tuple[str, Pointer]:
        """
        Return the model that the place names now, with a stamp that every publication changes.

        Raises:
            PlaceError: nothing was published there, or the object store refuses or cannot be reached.
            ArtefactError: the pointer is damaged.
        """
        key = _version_key(self.place.version) if self.place.version else _CURRENT
        stamp, content = self._get(key)
        try:
            pointer = msgspec.json.decode(content, type=Pointer)
        except (ValueError, RecursionError) as error:
            raise ArtefactError(f"{self._name(key)}: cannot be read: {error}; {_REMEDY}") from error
        if not {MANIFEST, ARRAYS, ITEMS} <= pointer.files.keys() <= _FILES:
            raise ArtefactError(f"{self._name(key)}: names the files {sorted(pointer.files)}; {_REMEDY}")
        return stamp, pointer

    def download(self, pointer: Pointer, folder: Path) -> None:
        """
        Copy the files of *pointer* into *folder*.

        Raises:
            ArtefactError: an object is missing, or its content does not have its hash.
            PlaceError: the object store refuses or cannot be reached, or *folder* cannot be written.
        """
        for name, sha256 in pointer.files.items():
            key = _object_key(sha256)
            try:
                with self._explained(key):
                    size, found = self._reads.run(self._copying(key, folder / name))
            except MissingError as error:
                raise ArtefactError(f"{self._name(key)}: the object of {name} is missing; {_REMEDY}") from error
            if found != sha256:
                raise ArtefactError(
                    f"{self._name(key)}: the {size} bytes of {name} do not have this SHA-256; the object is damaged; {_REMEDY}"
                )

    async def _copying(self, key: str, path: Path) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        found = await obstore.get_async(self._store, key)
        with path.open("wb") as file:
            async for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                size += file.write(chunk)
                digest.update(chunk)
        # The age of a model counts from its publication.
        published_s = found.meta["last_modified"].timestamp()
        os.utime(path, (published_s, published_s))
        return size, digest.hexdigest()

    def _get(self, key: str) -> tuple[str, bytes]:
        with self._explained(key):
            return self._reads.run(self._getting(key))

    async def _getting(self, key: str) -> tuple[str, bytes]:
        found = await obstore.get_async(self._store, key)
        if found.meta["size"] > _POINTER_BYTES:
            raise ArtefactError(f"{self._name(key)}: has {found.meta['size']} bytes; {_REMEDY}")
        # Publishing the same model again keeps the ETag and changes the time.
        return f"{found.meta['e_tag']} {found.meta['last_modified']}", bytes(await found.bytes_async())

    def _put(self, key: str, content: Path | bytes) -> None:
        with self._explained(key):
            obstore.put(self._store, key, content)

    def _name(self, key: str) -> str:
        return f"s3://{self.place.bucket}/{self.place.prefix}/{key}"

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Raise `PlaceError` for an error of the client in the block."""
        try:
            yield
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise PlaceError(f"s3://{self.place.bucket}: no such bucket; create it, or correct the name") from error
            raise MissingError(f"{self._name(key)}: no such object; publish a model there with --to") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PlaceError(
                f"{self._name(key)}: access denied ({_code(error) or type(error).__name__}); check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and the rights of the key"
            ) from error
        except InterruptedReadError as error:
            raise PlaceError(f"{self._name(key)}: the read was interrupted, because the process ends") from error
        except OSError as error:
            raise PlaceError(f"{error.filename}: {error.strerror or error}; free some space, or set TMPDIR") from error
        except BaseError as error:
            reason = str(error).partition("\n")[0].rpartition(" - ")[2]
            raise PlaceError(
                f"{self._name(key)}: the object store cannot be used: {reason}; check AWS_ENDPOINT_URL and the network"
            ) from error


class BucketSource:
    """
    The models of *bucket*; each is copied into a new folder under *cache*.

    Attributes:
        changes: Whether another model may appear, which is so unless the place names a version.
    """

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self._bucket, self._cache = bucket, cache
        self._stamp = ""
        self.changes = not bucket.place.version

    def fetch(self) -> Path | None:
        """See `ModelSource`. Cost: one request for a small object if nothing has changed."""
        stamp, pointer = self._bucket.pointer()
        if stamp == self._stamp:
            return None
        folder = Path(tempfile.mkdtemp(dir=self._cache))
        try:
            self._bucket.download(pointer, folder)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            # A damaged model would be damaged again, and a download may be large.
            if isinstance(error, ArtefactError):
                self._stamp = stamp
            raise
        self._stamp = stamp
        return folder

    def stop(self) -> None:
        """End a running `fetch` with a `PlaceError`, so that the process does not wait for a download."""
        self._bucket.stop()

    def keep(self, folder: Path) -> None:
        """Delete every other copy."""
        for other in self._cache.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)


def _object_key(sha256: str) -> str:
    return f"objects/{sha256}"


def _version_key(version: str) -> str:
    return f"versions/{version}.json"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    return found[1] if found else ""
