"""Tests that need a program which no wheel brings: their markers, each with the command that installs it."""

import pytest

from tools import browser
from tools.bench import redis_server

NO_REDIS = "redis-server is not installed; install it, for example with: apt-get install redis-server"
needs_redis = pytest.mark.skipif(redis_server.PROGRAM is None, reason=NO_REDIS)
needs_browser = pytest.mark.skipif(
    browser.PROGRAM is None, reason="no chromium is installed; install it, for example with: apt-get install chromium"
)
