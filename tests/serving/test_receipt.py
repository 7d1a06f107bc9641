import pytest

from recsys.serving.receipt import Receipt, parse_receipt


def test_a_receipt_reads_back():
    """What a function wrote into its receipt its caller reads out of it."""
    receipt = Receipt(0.0)
    receipt.spend("model", 0.00125)
    receipt.note("batch", "32")
    name, value = receipt.header(revision="rank-items-00003")
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
    durations, _ = parse_receipt(receipt.header(revision="r")[1].decode())
    assert durations["second"] < 1 < durations["first"]
    assert durations["first"] + durations["second"] == pytest.approx(durations["total"], rel=1e-3)


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
