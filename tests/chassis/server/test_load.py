import asyncio
import json
import socket

import pytest

from chassis.server import load
from chassis.server.load import Load, report_load
from tests.clock import Clock
from tests.waiting import LIMIT_S, until


def test_concurrency_is_weighted_by_time():
    """One request for a quarter of a second and a second one for half of that time make a concurrency of 0.375."""
    clock = Clock(100.0)
    measured = Load(clock)
    measured.arrive()
    clock.now += 0.125
    measured.arrive()
    clock.now += 0.125
    measured.leave()
    measured.leave()
    clock.now += 0.75
    assert measured.report() == (0.375, 2)


def test_requests_in_flight_carry_over_to_the_next_report():
    """A request that outlives a report counts fully in the next one, but its arrival is counted only once."""
    clock = Clock(100.0)
    measured = Load(clock)
    measured.arrive()
    clock.now += 1
    assert measured.report() == (1.0, 1)
    clock.now += 1
    assert measured.report() == (1.0, 0)
    assert measured.in_flight == 1


def test_an_empty_period_reports_no_concurrency():
    """Two reports at the same instant do not divide by zero."""
    measured = Load(Clock(100.0))
    assert measured.report() == (0.0, 0)


class CountedLoad(Load):
    """A load that counts its reports."""

    reports = 0

    def report(self) -> tuple[float, int]:
        self.reports += 1
        return super().report()


async def test_reports_reach_the_socket(tmp_path, monkeypatch):
    """A listener receives one datagram per period, also a listener that binds after the first reports."""
    monkeypatch.setattr(load, "REPORT_PERIOD_S", 0.005)
    path = str(tmp_path / "stats.sock")
    measured = CountedLoad()
    measured.arrive()
    reporting = asyncio.create_task(report_load(measured, path=path, pod="pod-1"))
    await until(lambda: measured.reports >= 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        report = json.loads(await asyncio.get_running_loop().run_in_executor(None, _receive, listener))
    reporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reporting
    assert report["pod"] == "pod-1"
    assert report["concurrency"] == pytest.approx(1.0, abs=0.01)


def _receive(listener: socket.socket) -> bytes:
    listener.settimeout(LIMIT_S)
    return listener.recv(1024)
