from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis.batching.queue import BatchLimits
from chassis.environment import Reader
from chassis.server.settings import ServingSettings
from functions.rank_items.rules import read_rules
from recrank.onnx_model import PROVIDERS, Provider
from recrank.places import ModelPlace, PlaceError, parse_place
from recstore.urls import require_store_url
from recsys.declaration.agreement import read_setting
from recsys.declaration.types import Declaration, DeclaredRules


@dataclass(frozen=True)
class Settings:
    """
    The settings that rank_items reads from its environment.

    Attributes:
        serving: Settings of the server.
        model_place: Folder of the artefact to serve, or its place in an object store.
        unavailable_path: File of items that no user may get, read again when it changes; None for no such file.
        catalogue_url: URL of the feature store whose catalogue the instance follows; None for no store.
        catalogue_password: Password for Redis, if the URL has none; None for no password.
        declaration: The declaration that the model must agree with; None follows the model's.
        rules: Rules of every answer, instead of the declaration's; None keeps those.
        probes: Groups of an approximate index to scan per user; 0 scans the whole catalogue.
        min_recall: Least share of the exact answer that an approximate index must find; below it the instance does
            not start.
        provider: The device that runs the ONNX files of the model.
        batch: Limits of the batcher.
        simulated_latency_s: Simulated cost of each batch; 0 for none.
        cpu_limit: CPUs this instance may use; determines the number of scoring threads.
    """

    serving: ServingSettings
    model_place: ModelPlace
    unavailable_path: Path | None
    catalogue_url: str | None
    catalogue_password: str | None
    declaration: Declaration | None
    rules: DeclaredRules | None
    probes: int
    min_recall: float
    provider: Provider
    batch: BatchLimits
    simulated_latency_s: float
    cpu_limit: float

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """
        Read and check the settings.

        Raises:
            SettingsError: a setting is invalid; the message lists every fault.
        """
        reader = Reader(env)
        limits = BatchLimits(
            max_batch_size=reader.integer("MAX_BATCH_SIZE", 32, least=1, most=1024),
            max_wait_s=reader.number("BATCH_WAIT_TIMEOUT_S", 0.010, most=1.0),
            max_queue_size=reader.integer("MAX_QUEUE_SIZE", 256, least=1),
        )
        index, probes = reader.text("INDEX", "exact"), reader.integer("INDEX_PROBES", 32, least=1)
        reader.require(index in {"exact", "ivf"}, f"INDEX must be exact or ivf, not {index!r}")
        catalogue = reader.optional("CATALOGUE_URL")
        require_store_url(reader, "CATALOGUE_URL", catalogue)
        unavailable = reader.path("UNAVAILABLE_ITEMS_PATH")
        settings = cls(
            serving=ServingSettings.read(reader, name="rank-items", max_body_bytes=4 * 1024 * 1024),
            model_place=_read_place(reader),
            unavailable_path=unavailable,
            catalogue_url=catalogue,
            catalogue_password=reader.secret("FEATURE_STORE_PASSWORD"),
            declaration=read_setting(reader),
            rules=read_rules(reader),
            probes=probes if index == "ivf" else 0,
            min_recall=reader.number("INDEX_MIN_RECALL", 0.9, most=1.0),
            provider=_read_provider(reader),
            batch=limits,
            simulated_latency_s=reader.number("SIMULATED_LATENCY_S", 0.0, most=10.0),
            cpu_limit=reader.number("CPU_LIMIT", 1.0, least=0.01),
        )
        reader.require(
            limits.max_queue_size >= limits.max_batch_size,
            f"MAX_QUEUE_SIZE ({limits.max_queue_size}) below MAX_BATCH_SIZE ({limits.max_batch_size}): "
            "no batch could ever fill",
        )
        reader.require(
            limits.max_wait_s < settings.serving.default_timeout_s,
            f"BATCH_WAIT_TIMEOUT_S ({limits.max_wait_s}) must be below "
            f"REQUEST_TIMEOUT_S ({settings.serving.default_timeout_s})",
        )
        reader.finish()
        return settings


def _read_place(reader: Reader) -> ModelPlace:
    text = reader.text("MODEL_PATH")
    try:
        return parse_place(text)
    except PlaceError as error:
        reader.faults.append(f"MODEL_PATH: {error}")
        return Path(text)


def _read_provider(reader: Reader) -> Provider:
    text = reader.text("EXECUTION_PROVIDER", "cpu")
    reader.require(text in PROVIDERS, f"EXECUTION_PROVIDER must be {' or '.join(PROVIDERS)}, not {text!r}")
    return "cuda" if text == "cuda" else "cpu"
