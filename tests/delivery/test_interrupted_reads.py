"""A download that takes minutes does not keep an instance from ending."""

import asyncio
import threading

import pytest

from recrank.interruptible import InterruptedReadError, Interruptible
from recrank.places import BucketPlace, PlaceError
from recrank.sources import opened_source
from tests.delivery.slow_store import slow_store
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.may_block


def test_another_thread_ends_what_runs_and_refuses_more():
    """`run` raises in the waiting thread, and later calls raise without running."""
    reads, started = Interruptible(), threading.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    async def run() -> str:
        return "ran"

    assert reads.run(run()) == "ran"

    def stop() -> None:
        started.wait(LIMIT_S)
        reads.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(InterruptedReadError):
        reads.run(wait())
    stopper.join()
    with pytest.raises(InterruptedReadError):
        reads.run(run())


def test_a_download_ends_with_its_source(monkeypatch, tmp_path):
    """When the block of a source ends, a thread that downloads gets an error, and no copy is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reasons: list[str] = []
    with slow_store() as store:
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        with opened_source(BucketPlace("models", "slow")) as source:

            def fetch() -> None:
                try:
                    source.fetch()
                except PlaceError as error:
                    reasons.append(str(error))

            thread = threading.Thread(target=fetch)
            thread.start()
            assert store.downloading.wait(LIMIT_S)
        thread.join(LIMIT_S)
    assert len(reasons) == 1
    assert "the process ends" in reasons[0]
    assert list(tmp_path.glob("recsys-model-*/")) == []
