"""Two servers never get one port: not in one platform, and not in two."""

import json
import socket
import subprocess
import sys

import psutil
import pytest

from localkn import processes
from localkn.processes import free_port, is_free


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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
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
