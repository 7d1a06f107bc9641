"""The command line of localkn: what is wrong is said before anything starts, and the exit status tells its kind."""

import errno
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from localkn.__main__ import main
from localkn.processes import free_port
from localkn.state import PlatformDirectory
from tests.localkn.running import SAMPLE, Running


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a verb; return exit status, output and messages."""
    try:
        status = main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


def up(tmp_path: Path, *words: str) -> list[str]:
    given = ["--manifests", str(SAMPLE / "services.yaml"), "--commands", str(SAMPLE / "commands.yaml")]
    return ["up", *given, "--state-dir", str(tmp_path / "state"), "--port", str(free_port()), *words]


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "0"], ["--port", "65536"], ["--port", "x"], ["--nope"], ["--tls-cert", "x"],
        ["--tls-cert", "x", "--tls-key", "y", "--direct"],
    ],
)  # fmt: skip
def test_wrong_arguments_are_exit_status_2(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where each of them is fine and they contradict each other."""
    assert run(capsys, *up(tmp_path, *words))[0] == 2


def test_redriving_nothing_is_a_wrong_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids, a Trigger or --all are wanted."""
    assert run(capsys, "events", "--state-dir", str(tmp_path), "redrive")[0] == 2


def test_a_taken_port_is_noticed_by_looking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`up --check` starts nothing and leaves nothing behind that a platform would have made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for more in ([], ["--check"]):
            status, _, said = run(capsys, *up(tmp_path, *more, "--port", str(port)))
            assert (status, said) == (1, f"port {port} is taken; choose another with --port\n")
    assert run(capsys, *up(tmp_path, "--check"))[0] == 0
    assert not (tmp_path / "state/logs").exists()


def test_a_state_directory_has_one_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `up` is refused and changes nothing; after a crash the directory is free."""
    state = PlatformDirectory(tmp_path / "state")
    with state.held():
        (state.logs / "front.log").write_text("of the first")
        for more in ([], ["--check"]):
            status, _, said = run(capsys, *up(tmp_path, *more))
            assert (status, said) == (1, f"already running in {state.root}; `down` stops it\n")
        assert (state.logs / "front.log").read_text() == "of the first"


def test_a_state_directory_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its path is that of a file."""
    (tmp_path / "state").write_text("")
    status, _, said = run(capsys, *up(tmp_path))
    assert (status, len(said.splitlines())) == (1, 1)
    assert said.startswith(f"{tmp_path / 'state'}: ")


def test_logs_are_found_by_whole_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An instance, a revision or a Service; anything else is an error that names what there is."""
    state = PlatformDirectory(tmp_path / "state")
    state.logs.mkdir(parents=True)
    for name in ("front-00001-1", "front-00002-3", "frontier-00001-2", "envoy"):
        (state.logs / f"{name}.log").write_text(f"of {name}\n")
    (tmp_path / "state/secret.log").write_text("secret")
    place = ["logs", "--state-dir", str(state.root)]
    assert run(capsys, *place, "front")[1].splitlines() == [
        "front-00001-1 | of front-00001-1", "front-00002-3 | of front-00002-3",
    ]  # fmt: skip
    assert run(capsys, *place, "front-00001-1")[1] == "front-00001-1 | of front-00001-1\n"
    assert len(run(capsys, *place)[1].splitlines()) == 4
    for name in ("nope", "fron", "../secret", "*", "front-00001-1.log"):
        for more in ([], ["-f"]):
            status, out, said = run(capsys, *place, name, *more)
            assert (status, out) == (1, "")
            assert said.startswith(f"{name}: no log has that name; these exist: envoy, front-00001-1")


def test_a_platform_that_hangs_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verb does not wait for ever for a platform that is stopped or overloaded."""
    monkeypatch.setattr("localkn.control.call.__kwdefaults__", {"timeout_s": 0.05})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(PlatformDirectory(tmp_path).socket("control")))
        listener.listen()
        status, _, said = run(capsys, "status", "--json", "--state-dir", str(tmp_path))
    assert (status, said) == (1, f"the platform in {tmp_path} does not answer within 0 s\n")


def test_a_platform_outlives_what_it_does_not_understand(platform: Running) -> None:
    """A malformed request on the control socket gets an error, and the platform continues."""
    assert platform.up().returncode == 0
    for request in (b"\xff\n", b"5\n", b"{}\n", b'{"verb": "nope"}\n', b'{"verb": "apply"}\n', b"[" * 100_000 + b"\n",
                    b'{"verb": "apply", "service": {"metadata": []}, "wait_s": 0}\n'):  # fmt: skip
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(platform.state.socket("control")))
            connection.sendall(request)
            assert b'"error"' in connection.makefile("rb").readline(), request
    for datagram in (b"\xff", b"5", b'{"pod": "front-00001-1", "concurrency": NaN, "requests": 1}',
                     b'{"pod": "front-00001-1", "concurrency": 1e400, "requests": -1}'):  # fmt: skip
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(datagram, str(platform.state.socket("stats")))
    assert platform.status()["ready"]


def test_ctrl_c_prints_no_traceback(tmp_path: Path) -> None:
    """Not even while a verb is still being imported; its status is 130."""
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n")
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", "down"],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "")


def test_an_error_of_the_disk_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full while the platform starts."""
    monkeypatch.setattr("localkn.up.run", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    status, _, said = run(capsys, *up(tmp_path))
    assert (status, said) == (1, f"{tmp_path / 'state'}: No space left on device\n")
