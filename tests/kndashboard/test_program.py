"""The dashboard as the process that localkn starts."""

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from kndashboard.__main__ import main
from localkn import control
from localkn.processes import free_port
from localkn.state import PlatformDirectory
from tests.kndashboard.seen import revision, service, status
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.anyio, pytest.mark.may_block]

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    await writer.drain()
    writer.close()


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """Serve a control socket of a platform whose public URL uses TLS with a private certificate."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server = await asyncio.start_server(answer_once, "127.0.0.1", 0, ssl=context)
    said = status(front=service(revision("front-00001", "ready"), public=True))
    said["url"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def tell(_: dict[str, Any]) -> Any:
        return said

    async with server, control.serving(PlatformDirectory(tmp_path).socket("control"), {"status": tell}):
        yield said


def started(tmp_path: Path, *words: str) -> tuple[str, "subprocess.Popen[bytes]"]:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "kndashboard", "--state-dir", str(tmp_path), "--fd", str(fd), *words]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return url, subprocess.Popen(command, pass_fds=[fd])


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_request_is_sent_over_tls(platform: dict[str, Any], tmp_path: Path, *, trusted: bool) -> None:
    """The dashboard trusts only the certificate that localkn serves, and stops promptly."""
    url, process = started(tmp_path, *(["--trust", str(tmp_path / "cert.pem")] if trusted else []))
    try:
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client:
            shown = (await client.post("/_dashboard/request", json={})).json()
            assert "kn_revision_pods_count" in (await client.get("/metrics")).text
            process.terminate()
            assert await asyncio.to_thread(process.wait, LIMIT_S) in {0, -15}
    finally:
        process.kill()
        process.wait()
    assert shown.get("status") == (200 if trusted else None)
    assert trusted or "CERTIFICATE_VERIFY_FAILED" in shown["error"]


def test_missing_arguments_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """The program names its required arguments."""
    with pytest.raises(SystemExit):
        main([])
    assert "--state-dir" in capsys.readouterr().err
