"""rank_items with a fault that a rollout must notice: every twentieth request fails. Started by test_rollouts.py."""

import itertools
import sys

from chassis.call import Call, Handler, Reply, problem_reply
from chassis.server import __main__ as serving
from chassis.server.caller_watch import Receive
from chassis.server.service import Service
from chassis.wire.problems import ServingError

_genuine = Service._handle
_count = itertools.count(1)


async def _handle(self: Service, handler: Handler, call: Call, receive: Receive) -> Reply:
    if next(_count) % 20 == 0:
        return problem_reply(ServingError())
    return await _genuine(self, handler, call, receive)


if __name__ == "__main__":
    Service._handle = _handle  # type: ignore[method-assign]
    sys.exit(serving.main())
