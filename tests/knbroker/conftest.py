"""Fixtures of the broker's tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The broker is written for asyncio."""
    return "asyncio"
