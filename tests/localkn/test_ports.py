"""Two servers never get one port: not in one platform, and not in two."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from localkn import processes, up
from localkn.errors import PlatformError
from localkn.processes import free_port, is_free
from localkn.state import PlatformDirectory


def undrawn_port() -> int:
    """Return a free port that no process draws."""
    return free_port() + 1


def test_draws_in_a_row_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty draws among 128 ports return 60 ports, although random draws from so few repeat some."""
    first = next(port for port in range(18_000, 31_000, 128) if all(map(is_free, range(port, port + 128))))
    monkeypatch.setattr(processes, "_PORTS", range(first, first + 128))
    drawn = [free_port() for _ in range(60)]
    assert len(set(drawn)) == 60


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a server listen beside a reservation")
def test_no_other_process_draws_a_reserved_port() -> None:
    """A process that chooses among a reserved port and a free one chooses the free one each time."""
    reserved, other = free_port(), free_port()
    free = undrawn_port()
    draw = (
        "import json; from localkn import processes;"
        f"processes._PORTS = [{reserved}, {other}, {free}]; print(json.dumps(processes.free_port()))"
    )
    drawn = subprocess.run([sys.executable, "-c", draw], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(drawn.stdout) == free


def test_a_server_listens_on_a_reserved_port() -> None:
    """A server can listen on the port that was drawn for it."""
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1]


def test_old_reservations_end() -> None:
    """A process that draws hundreds of ports holds a bounded number of descriptors."""
    before = psutil.Process().num_fds()
    for _ in range(200):
        free_port()
    assert psutil.Process().num_fds() <= before + 64


def test_the_port_after_a_drawn_one_is_never_drawn() -> None:
    """`up --port N` gives the dashboard port N + 1, which another platform must not have drawn."""
    assert not any(free_port() % 2 for _ in range(30))


def test_the_ports_of_the_command_line_are_reserved_before_the_first_draw(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A platform draws neither the public port nor the dashboard's for one of its Services."""
    public, dashboard, free = (undrawn_port() for _ in range(3))

    def compose(*_: object) -> None:
        monkeypatch.setattr(processes, "_PORTS", [public, dashboard, free])
        raise PlatformError(f"drew {free_port()}")

    monkeypatch.setattr(up, "compose", compose)
    options = up.Options(tmp_path, tmp_path, PlatformDirectory(tmp_path), public, dashboard_port=dashboard)
    with pytest.raises(PlatformError, match=f"drew {free}"):
        asyncio.run(up.run(options, ready=print))
