from collections.abc import Mapping
from dataclasses import dataclass

from chassis.environment import Reader
from chassis.server.settings import ServingSettings
from recstore.counters import DEDUPLICATION_WINDOW_S
from recstore.exposures.log import MOST_PER_USER, RETENTION_S
from recstore.urls import require_store_url
from recsys.contracts.wire import MAX_HISTORY
from recsys.declaration.agreement import read_setting
from recsys.declaration.types import Declaration

_LONGEST_WINDOW_S = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class ExposureSettings:
    """
    The limits of the exposure log.

    Attributes:
        retention_s: Age in seconds from which exposures and actions are deleted.
        most_per_user: Most exposures, and most actions, that the log keeps for each user.
    """

    retention_s: float
    most_per_user: int

    @classmethod
    def read(cls, env: Reader) -> "ExposureSettings | None":
        """Read the settings and add their faults to *env*; return None if exposures are off."""
        limits = cls(
            retention_s=env.number("EXPOSURE_RETENTION_S", RETENTION_S, least=1.0, most=_LONGEST_WINDOW_S),
            most_per_user=env.integer("EXPOSURES_PER_USER", MOST_PER_USER, least=1),
        )
        return limits if env.flag("EXPOSURES", default=False) else None


@dataclass(frozen=True)
class Settings:
    """
    The settings of extract_features, read from the environment.

    Attributes:
        serving: Settings that all functions share.
        feature_store_url: URL of the feature store.
        declaration: The declaration that the store must agree with; None follows the store's.
        feature_store_password: Password for Redis, if the URL has none; None for no password.
        deduplication_s: Seconds during which a repeated event is recognised.
        user_ttl_s: For Redis: seconds without events after which a user is deleted; 0 for never.
        reply_to_interactions: Answer an interaction event with the user's new features.
        simulated_latency_s: Delay added to each request; 0 for none.
        history_limit: The largest number of items of a history in an answer; the newest are kept.
        exposures: The limits of the exposure log; None keeps no exposures.
    """

    serving: ServingSettings
    feature_store_url: str
    declaration: Declaration | None
    feature_store_password: str | None
    deduplication_s: float
    user_ttl_s: int
    reply_to_interactions: bool
    simulated_latency_s: float
    history_limit: int
    exposures: ExposureSettings | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """
        Read and check the settings.

        Raises:
            SettingsError: with every fault.
        """
        reader = Reader(env)
        store_url = reader.text("FEATURE_STORE_URL")
        require_store_url(reader, "FEATURE_STORE_URL", store_url)
        settings = cls(
            serving=ServingSettings.read(reader, name="extract-features", max_body_bytes=512 * 1024),
            feature_store_url=store_url,
            declaration=read_setting(reader),
            feature_store_password=reader.secret("FEATURE_STORE_PASSWORD"),
            deduplication_s=reader.number(
                "EVENT_DEDUPLICATION_S", DEDUPLICATION_WINDOW_S, least=1.0, most=_LONGEST_WINDOW_S
            ),
            user_ttl_s=reader.integer("USER_TTL_S", 0),
            reply_to_interactions=reader.flag("REPLY_TO_INTERACTIONS", default=False),
            simulated_latency_s=reader.number("SIMULATED_LATENCY_S", 0.0, most=10.0),
            history_limit=reader.integer("HISTORY_LIMIT", MAX_HISTORY, least=1, most=MAX_HISTORY),
            exposures=ExposureSettings.read(reader),
        )
        reader.finish()
        return settings
