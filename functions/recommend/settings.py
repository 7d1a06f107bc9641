from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from recsys.batching import BatchLimits
from recsys.serving.settings import ServingSettings
from recsys.settings import Reader


@dataclass(frozen=True)
class PopularSettings:
    """
    What is shown without a ranker.

    Attributes:
        path: Where the list survives a restart; None for nowhere.
        refresh_s: How old it may become.
    """

    path: Path | None
    refresh_s: float

    @classmethod
    def read(cls, env: Reader) -> "PopularSettings":
        """Read the settings; faults stay with *env*."""
        return cls(
            path=_path(env, "POPULAR_LIST_PATH"),
            refresh_s=env.number("POPULAR_LIST_REFRESH_S", 30.0, least=0.1),
        )


@dataclass(frozen=True)
class Settings:
    """
    What recommend reads from its environment.

    Attributes:
        serving: The shell's settings.
        extract_features_url: Where function 1 answers.
        rank_items_url: Where function 2 answers.
        max_connections: To each of them, at most.
        service_token_file: Tokens to send to them, the first one that is valid; None for none.
        hedge: Send a second request when the first is slower than usual.
        coalesce: How single requests to a hop are sent together; None sends each alone.
        popular: What is shown without a ranker.
    """

    serving: ServingSettings
    extract_features_url: str
    rank_items_url: str
    max_connections: int
    service_token_file: Path | None
    hedge: bool
    coalesce: BatchLimits | None
    popular: PopularSettings

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """
        Read and check the settings.

        Raises:
            SettingsError: with every fault.
        """
        reader = Reader(env)
        settings = cls(
            serving=ServingSettings.read(reader, name="recommend", max_body_bytes=512 * 1024),
            extract_features_url=_url(reader, "EXTRACT_FEATURES_URL"),
            rank_items_url=_url(reader, "RANK_ITEMS_URL"),
            max_connections=reader.integer("HOP_MAX_CONNECTIONS", 256, least=1),
            service_token_file=_path(reader, "SERVICE_TOKEN_FILE"),
            hedge=reader.flag("HOP_HEDGING", default=False),
            coalesce=_coalescing(reader),
            popular=PopularSettings.read(reader),
        )
        reader.finish()
        return settings


def _coalescing(reader: Reader) -> BatchLimits | None:
    """Return the limits; with 0 calls in flight, no coalescing."""
    in_flight = reader.integer("HOP_COALESCE_IN_FLIGHT", 16)
    if not in_flight:
        return None
    return BatchLimits(max_batch_size=64, max_wait_s=0.0, max_queue_size=4096, slots=in_flight)


def _path(reader: Reader, name: str) -> Path | None:
    text = reader.text(name, "-")
    return None if text == "-" else Path(text)


def _url(reader: Reader, name: str) -> str:
    text = reader.text(name)
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if text:
        reader.require(
            url.scheme in {"http", "https"} and bool(url.host), f"{name} must be a http(s) URL, not {text!r}"
        )
    return text
