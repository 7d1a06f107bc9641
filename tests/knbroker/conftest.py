"""Fixtures of the broker's tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, for which the broker is written."""
    return "asyncio"
