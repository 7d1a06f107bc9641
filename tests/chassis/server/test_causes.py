"""The cause of a failed request is for the operator."""

import logging

import pytest

from chassis.call import Call, Reply
from chassis.wire.problems import DependencyError
from tests.chassis.server.test_service import make_service, receive_of, scope


async def test_the_log_states_the_cause_and_the_answer_does_not(caplog: pytest.LogCaptureFixture) -> None:
    """The log of a failed request states why a dependency failed; the answer names no file."""

    async def fail(_call: Call) -> Reply:
        raise DependencyError("the store does not answer") from OSError("store.db: the file was removed; restart")

    with caplog.at_level(logging.WARNING):
        reply = await make_service(fail).answer(scope(), receive_of(b"{}"))
    (record,) = [record for record in caplog.records if record.msg == "request_failed"]
    assert record.__dict__["cause"] == "store.db: the file was removed; restart"
    assert (reply.status, b"store.db" in reply.body) == (503, False)
