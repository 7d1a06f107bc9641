from collections.abc import Mapping
from dataclasses import dataclass

from recsys.contracts.wire import MAX_HISTORY
from recsys.serving.settings import ServingSettings
from recsys.settings import Reader


@dataclass(frozen=True)
class Settings:
    """
    What extract_features reads from its environment.

    Attributes:
        serving: The shell's settings.
        feature_store_url: Where features are computed from.
        history_limit: How many items of a history are handed on, newest first.
    """

    serving: ServingSettings
    feature_store_url: str
    history_limit: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """
        Read and check the settings.

        Raises:
            SettingsError: with every fault.
        """
        reader = Reader(env)
        settings = cls(
            serving=ServingSettings.read(reader, name="extract-features", max_body_bytes=256 * 1024),
            feature_store_url=reader.text("FEATURE_STORE_URL"),
            history_limit=reader.integer("HISTORY_LIMIT", MAX_HISTORY, least=1, most=MAX_HISTORY),
        )
        reader.finish()
        return settings
