from collections.abc import Mapping
from dataclasses import dataclass

from chassis.environment import Reader
from chassis.server.settings import ServingSettings
from recsys.contracts.wire import MAX_HISTORY
from recsys.stores.counting import DEDUPLICATION_WINDOW_S
from recsys.stores.opening import check_store_url
from recsys.stores.port import StoreFormatError

_LONGEST_WINDOW_S = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class Settings:
    """
    What extract_features reads from its environment.

    Attributes:
        serving: The shell's settings.
        feature_store_url: Where features are computed from.
        feature_store_password: For Redis, kept out of its URL; None where it has none.
        deduplication_s: How long an event is known as repeated.
        user_ttl_s: For Redis: a user without events for so long is forgotten; 0 for never.
        reply_to_interactions: Answer an interaction event with the features it led to.
        simulated_latency_s: Pretended cost of each request; 0 for none.
        history_limit: How many items of a history are handed on, newest first.
    """

    serving: ServingSettings
    feature_store_url: str
    feature_store_password: str | None
    deduplication_s: float
    user_ttl_s: int
    reply_to_interactions: bool
    simulated_latency_s: float
    history_limit: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """
        Read and check the settings.

        Raises:
            SettingsError: with every fault.
        """
        reader = Reader(env)
        store_url = reader.text("FEATURE_STORE_URL")
        try:
            check_store_url(store_url or "memory:")
        except StoreFormatError as error:
            reader.require(False, f"FEATURE_STORE_URL: {error}")
        settings = cls(
            serving=ServingSettings.read(reader, name="extract-features", max_body_bytes=512 * 1024),
            feature_store_url=store_url,
            feature_store_password=reader.secret("FEATURE_STORE_PASSWORD"),
            deduplication_s=reader.number(
                "EVENT_DEDUPLICATION_S", DEDUPLICATION_WINDOW_S, least=1.0, most=_LONGEST_WINDOW_S
            ),
            user_ttl_s=reader.integer("USER_TTL_S", 0),
            reply_to_interactions=reader.flag("REPLY_TO_INTERACTIONS", default=False),
            simulated_latency_s=reader.number("SIMULATED_LATENCY_S", 0.0, most=10.0),
            history_limit=reader.integer("HISTORY_LIMIT", MAX_HISTORY, least=1, most=MAX_HISTORY),
        )
        reader.finish()
        return settings
