import time

import pytest

from chassis.receipt import Receipt, parse_receipt


def test_a_receipt_can_be_read_back():
    """A caller reads from a receipt exactly what the function wrote into it."""
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


def test_marked_phases_add_up_to_the_total():
    """Phases marked in sequence add up to the total, except for the time after the last mark."""
    receipt = Receipt(0.0)
    receipt.mark("first")
    receipt.mark("second")
    receipt.close(revision="r")
    durations = receipt.durations
    assert durations["second"] < 1 < durations["first"]
    assert durations["first"] + durations["second"] == pytest.approx(durations["total"], rel=1e-3)


def test_unclaimed_time_goes_to_one_phase():
    """Time that no phase claimed goes to the phase that accounts for the rest; a phase entered twice adds up."""
    receipt = Receipt(time.monotonic() - 10)
    receipt.spend("hop", 2.0)
    receipt.spend("hop", 3.0)
    receipt.account("app")
    assert receipt.durations["hop"] == 5.0
    # Time passes between the two calls.
    assert 5.0 <= receipt.durations["app"] < 10.0


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
    """The parser returns the entries it understands and leaves out the rest."""
    assert parse_receipt(value) == (durations, facts)
