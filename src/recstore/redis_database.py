"""The Redis database of a feature store: its client, and its errors in the words of the port."""

from collections.abc import AsyncIterator, Callable, Mapping
from ssl import SSLCertVerificationError, SSLError
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from recstore.port import StoreError, StoreFormatError, StoreUnavailableError
from recstore.translation import TranslatedErrors

Read = TypeVar("Read")


class RedisDatabase:
    """
    The client of one database. It connects at the first call.

    Args:
        url: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `rediss://` for TLS.
        password: The password, if *url* has none.
        timeout_s: Limit for connecting, and for each answer.

    Attributes:
        client: The client.
        errors: Turns the client's errors into the port's.

    Raises:
        StoreFormatError: *url* has an option that does not exist, or a value that its option cannot have.
    """

    def __init__(self, url: str, *, password: str | None, timeout_s: float) -> None:
        credentials: dict[str, Any] = {"password": password} if password else {}
        try:
            self.client = Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                decode_responses=True,
                # If Redis closed an idle connection, the call is retried once.
                retry=Retry(NoBackoff(), 1),
                **credentials,
            )
            pool = self.client.connection_pool
            # The client checks some options only when it makes a connection.
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError, RedisError) as error:
            raise StoreFormatError(f"the options of the URL of Redis cannot be used: {error}; correct them") from error
        self.errors = TranslatedRedisErrors(pool.connection_kwargs)

    async def send(self, pipeline: Any) -> list[Any]:
        """Send the commands of *pipeline*, and return their answers."""
        self.errors.check_open()
        with self.errors:
            return list(await pipeline.execute())

    async def keys(self, pattern: str) -> AsyncIterator[str]:
        """Yield the keys that match *pattern*. Redis may yield a key twice."""
        self.errors.check_open()
        with self.errors:
            async for key in self.client.scan_iter(match=pattern, count=1000):
                yield key

    async def aclose(self) -> None:
        """Close the connections."""
        self.errors.closed = True
        await self.client.aclose()


class TranslatedRedisErrors(TranslatedErrors):
    """
    Turns Redis' errors into the port's. Messages hold no user id and no credentials.

    Args:
        connection: The client's settings of a connection.
    """

    def __init__(self, connection: Mapping[str, Any]) -> None:
        super().__init__(_place(connection))
        self._authorities: str | None = connection.get("ssl_ca_certs")

    def translate(self, error: BaseException) -> StoreError | None:
        """Return the port's error for an error of the client."""
        if isinstance(error, ResponseError):
            # An answer begins with a code in capitals. The rest may name keys.
            code = str(error).partition(" ")[0]
            if code == "WRONGTYPE" or "not an integer" in str(error) or "not a valid float" in str(error):
                return self.foreign(f"a key has another type ({code})")
            if code == "NOAUTH":
                return StoreUnavailableError(f"{self.place}: it requires a password")
            return StoreUnavailableError(f"{self.place}: it refuses commands ({code}); see its log")
        if isinstance(error, RedisError):
            return StoreUnavailableError(f"{self.place}: {self._fault(error)}")
        return None

    def _fault(self, error: RedisError) -> str:
        if isinstance(error, AuthenticationError):
            return "it refuses the password; check it"
        cause = _cause(error)
        if isinstance(cause, SSLCertVerificationError):
            refused = f"its certificate is refused ({cause.verify_message})"
            if self._authorities:
                return f"{refused} with the authorities in {self._authorities}"
            return f"{refused}; if an authority of your own signed it, add ?ssl_ca_certs=FILE to the address"
        text = cause.strerror if cause else ""
        if self._authorities and _is_of_a_file(cause):
            return f"the authorities in {self._authorities} cannot be read ({text}); check that file"
        reason = f"{type(error).__name__}: {text}" if cause else type(error).__name__
        return f"no answer ({reason}); check that it runs there"

    def decode(self, read: Callable[[], Read]) -> Read:
        """Return what *read* makes of an answer; what it cannot read becomes `StoreFormatError`."""
        try:
            return read()
        except (ValueError, TypeError) as error:
            raise self.foreign("a value cannot be read") from error

    def foreign(self, fault: str) -> StoreFormatError:
        """Return the error of content that another program wrote."""
        return StoreFormatError(
            f"{self.place}: {fault}, so another program writes recsys:* there; choose another database"
        )


def _cause(error: BaseException | None) -> OSError | None:
    """Return the error of the operating system or of TLS that led to *error*, if any."""
    while error:
        if isinstance(error, OSError) and error.strerror:
            return error
        error = error.__cause__ or error.__context__
    return None


def _is_of_a_file(error: OSError | None) -> bool:
    """Tell whether *error* is of reading a file of certificates."""
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError) or (
        isinstance(error, SSLError) and error.library == "X509"
    )


def _place(connection: Mapping[str, Any]) -> str:
    host, port, database = (connection.get(name) for name in ("host", "port", "db"))
    return f"Redis at {host or 'localhost'}:{port or 6379}, database {database or 0}"
