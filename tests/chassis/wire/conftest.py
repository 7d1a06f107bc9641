from collections.abc import AsyncIterator

import pytest

from chassis.wire.transport import HttptoolsTransport


@pytest.fixture
async def transport() -> AsyncIterator[HttptoolsTransport]:
    opened = HttptoolsTransport(max_connections=4)
    yield opened
    await opened.aclose()
