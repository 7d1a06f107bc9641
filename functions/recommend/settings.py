"""The settings of recommend, read from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chassis.batching.queue import BatchLimits
from chassis.environment import Reader, is_http_url
from chassis.server.cors import Cors
from chassis.server.settings import ServingSettings
from chassis.wake import complete_url
from chassis.wire.cloudevents import find_extension_faults
from chassis.wire.decoder import Decoder
from chassis.wire.problems import ServingError
from functions.recommend.hops import IN_FLIGHT, MOST_CALLS
from recsys.contracts.events import MAX_GROUP
from recsys.contracts.wire import EXPOSURE_HEADER, Exploration
from recsys.experiments.declaration import Experiment, read_experiments


@dataclass(frozen=True)
class PopularSettings:
    """
    Settings of the popular list, which recommend answers with while rank_items is unavailable.

    Attributes:
        path: The file that keeps the list across restarts; None keeps it in memory only.
        refresh_s: The time between refreshes.
    """

    path: Path | None
    refresh_s: float

    @classmethod
    def read(cls, env: Reader) -> "PopularSettings":
        """Read the settings and add their faults to *env*."""
        return cls(
            path=env.path("POPULAR_LIST_PATH"),
            refresh_s=env.number("POPULAR_LIST_REFRESH_S", 30.0, least=0.1),
        )


@dataclass(frozen=True)
class SinkSettings:
    """
    Settings of the events about answers.

    Attributes:
        url: The sink, from Knative's K_SINK.
        extensions: Further attributes of every event, from Knative's K_CE_OVERRIDES.
        group: The largest number of answers that an event describes; 1 sends an event for each answer.
    """

    url: str
    extensions: dict[str, str]
    group: int = 1

    @classmethod
    def read(cls, env: Reader) -> "SinkSettings | None":
        """Read the settings and add their faults to *env*; return None without a sink."""
        url, overrides = env.http_url("K_SINK", "-"), env.text("K_CE_OVERRIDES", "{}")
        group = env.integer("SERVED_EVENTS_GROUP", 1, least=1, most=MAX_GROUP)
        try:
            extensions = _overrides.decode(overrides).extensions
        except msgspec.DecodeError as error:
            env.faults.append(f"K_CE_OVERRIDES cannot be read: {error}")
            return None
        env.faults += [
            f"{fault.path}: {fault.detail}" for fault in find_extension_faults(extensions, "K_CE_OVERRIDES ")
        ]
        return None if url == "-" else cls(url, extensions, group)


@dataclass(frozen=True)
class ShadowSettings:
    """
    Settings of the shadow, which gets copies of calls to rank_items.

    Attributes:
        url: The address of the candidate, such as the URL of a tag.
        share: The share of the calls that are copied.
    """

    url: str
    share: float

    @classmethod
    def read(cls, env: Reader) -> "ShadowSettings | None":
        """Read the settings and add their faults to *env*; return None without a shadow."""
        url, share = env.http_url("SHADOW_RANK_ITEMS_URL", "-"), env.number("SHADOW_SHARE", 0.05, least=0.0, most=1.0)
        return None if url == "-" else cls(url, share)


def read_exploration(env: Reader) -> Exploration | None:
    """Read the setting of exploration and add its faults to *env*; return None if nothing is drawn at random."""
    text = env.optional("EXPLORATION")
    if text is None:
        return None
    try:
        return _exploration.decode(text.encode())
    except ServingError as refusal:
        said = "; ".join(map(str, refusal.faults)) or refusal
        env.faults.append(f'EXPLORATION cannot be read: {said}; write {{"share": 0.1, "temperature": 0.5}}, or -')
        return None


def read_running(env: Reader) -> tuple[Experiment, ...]:
    """Read the running experiments and add their faults to *env*; return none without any."""
    text = env.optional("EXPERIMENTS")
    try:
        return read_experiments(text) if text else ()
    except ValueError as error:
        env.faults.append(f"EXPERIMENTS cannot be read: {error}; ./run.sh experiments start writes it")
        return ()


class _Overrides(msgspec.Struct):
    extensions: dict[str, str] = {}


_overrides = msgspec.json.Decoder(_Overrides)
_exploration = Decoder(Exploration)


@dataclass(frozen=True)
class Settings:
    """
    The settings that recommend reads from its environment.

    Attributes:
        serving: The settings that all functions share.
        extract_features_url: The address of extract_features.
        rank_items_url: The address of rank_items.
        max_connections: The limit of connections to each of them.
        service_token_file: The file whose first valid token is sent to them; None sends no token.
        hedge: Send a second request if the first is slower than usual.
        coalesce_features: Limits of the groups in which single requests to extract_features are sent; None sends each
            request alone.
        coalesce_ranking: The same for rank_items.
        popular: The popular list.
        sink: The sink of events about answers; None sends no events.
        cors: The origins whose pages may call; None lets none call.
        wake_urls: The functions that the process wakes when it starts; none unless they scale to zero.
        shadow: The candidate that gets copies of calls to rank_items; None copies none.
        exploration: Draws a part of the lists at random; None draws none.
        experiments: The running experiments.
    """

    serving: ServingSettings
    extract_features_url: str
    rank_items_url: str
    max_connections: int
    service_token_file: Path | None
    hedge: bool
    coalesce_features: BatchLimits | None
    coalesce_ranking: BatchLimits | None
    popular: PopularSettings
    sink: SinkSettings | None
    cors: Cors | None
    shadow: ShadowSettings | None
    exploration: Exploration | None
    wake_urls: tuple[str, ...]
    experiments: tuple[Experiment, ...]

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """
        Read and check the settings.

        Raises:
            SettingsError: the environment has faults; lists all of them.
        """
        reader = Reader(env)
        settings = cls(
            serving=ServingSettings.read(reader, name="recommend", max_body_bytes=512 * 1024),
            extract_features_url=complete_url(reader.http_url("EXTRACT_FEATURES_URL")),
            rank_items_url=complete_url(reader.http_url("RANK_ITEMS_URL")),
            max_connections=reader.integer("HOP_MAX_CONNECTIONS", 256, least=1),
            service_token_file=reader.path("SERVICE_TOKEN_FILE"),
            hedge=reader.flag("HOP_HEDGING", default=False),
            coalesce_features=_coalescing(reader, "FEATURES_COALESCE_IN_FLIGHT", IN_FLIGHT),
            coalesce_ranking=_coalescing(reader, "RANKING_COALESCE_IN_FLIGHT", 16, "RANKING_COALESCE_CALLS"),
            popular=PopularSettings.read(reader),
            sink=SinkSettings.read(reader),
            cors=Cors.read(reader, exposed=[EXPOSURE_HEADER]),
            shadow=ShadowSettings.read(reader),
            exploration=read_exploration(reader),
            wake_urls=tuple(complete_url(url) for url in (reader.optional("WAKE_URLS") or "").split()),
            experiments=read_running(reader),
        )
        for url in settings.wake_urls:
            reader.require(is_http_url(url), f"WAKE_URLS must hold http(s) URLs, not {url!r}")
        reader.finish()
        return settings


def _coalescing(reader: Reader, name: str, usual: int, calls_name: str | None = None) -> BatchLimits | None:
    """Return the limits of the groups; None, for no groups, if *name* is 0."""
    in_flight = reader.integer(name, usual)
    most = reader.integer(calls_name, MOST_CALLS, least=1, most=MOST_CALLS) if calls_name else MOST_CALLS
    if not in_flight:
        return None
    return BatchLimits(max_batch_size=most, max_wait_s=0.0, max_queue_size=4096, slots=in_flight)
