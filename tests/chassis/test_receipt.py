import time

import pytest

from chassis.receipt import Receipt, parse_receipt


def test_a_receipt_reads_back():
    """What a function wrote into its receipt its caller reads out of it."""
    receipt = Receipt(0.0)
    receipt.spend("model", 0.00125)
    receipt.note("batch", "32")
    receipt.close(revision="rank-items-00003")
    name, value = receipt.header()
    assert name == b"server-timing"
    durations, facts = parse_receipt(value.decode())
    assert durations["model"] == 0.00125
    assert durations["total"] > 0
    assert facts == {"batch": "32", "rev": "rank-items-00003"}


def test_marks_share_the_time_out():
    """Phases marked one after the other sum up to the total, but for what comes after the last."""
    receipt = Receipt(0.0)
    receipt.mark("first")
    receipt.mark("second")
    receipt.close(revision="r")
    durations = receipt.durations
    assert durations["second"] < 1 < durations["first"]
    assert durations["first"] + durations["second"] == pytest.approx(durations["total"], rel=1e-3)


def test_the_rest_is_accounted_for():
    """What no phase claimed goes to the one that accounts for the rest; a phase entered twice adds up."""
    receipt = Receipt(time.monotonic() - 10)
    receipt.spend("hop", 2.0)
    receipt.spend("hop", 3.0)
    receipt.account("app")
    assert receipt.durations["hop"] == 5.0
    assert receipt.durations["app"] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(
    ("value", "durations", "facts"),
    [
        ("", {}, {}),
        ("cache", {}, {}),
        ("db;dur=2", {"db": 0.002}, {}),
        ('a;dur=1;desc="x, y", b;desc=z', {"a": 0.001}, {"a": "x, y", "b": "z"}),
        ("a;dur=much, b;dur=1", {"b": 0.001}, {}),
        (";;;,,=", {}, {}),
    ],
)
def test_foreign_receipts_are_read_leniently(value, durations, facts):
    """Whatever stands in the header: what can be read is, the rest is left out."""
    assert parse_receipt(value) == (durations, facts)
