"""Every dialect of a Trigger's filters, and their combinations."""

from typing import Any

import pytest

from kubeyaml.filters import FilterValue, every

EVENT: dict[str, FilterValue] = {
    "type": "dev.recsys.interaction.v1",
    "source": "/app",
    "id": "1",
    "subject": "",
    "urgent": True,
    "size": 12,
}


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ([], True),
        ([{}], True),
        ([{"exact": {"type": "dev.recsys.interaction.v1"}}], True),
        ([{"exact": {"type": "dev.recsys.interaction"}}], False),
        ([{"exact": {"type": "dev.recsys.interaction.v1", "source": "/other"}}], False),
        ([{"exact": {"absent": "x"}}], False),
        ([{"exact": {"urgent": "true", "size": "12"}}], True),
        ([{"prefix": {"type": "dev.recsys."}}], True),
        ([{"prefix": {"type": "com."}}], False),
        ([{"suffix": {"type": ".v1"}}], True),
        ([{"suffix": {"type": ".v2"}}], False),
        ([{"present": {"type": ""}}], True),
        ([{"present": {"subject": ""}}], False),
        ([{"present": {"absent": ""}}], False),
        ([{"all": [{"prefix": {"type": "dev"}}, {"suffix": {"type": "v1"}}]}], True),
        ([{"all": [{"prefix": {"type": "dev"}}, {"suffix": {"type": "v2"}}]}], False),
        ([{"any": [{"prefix": {"type": "com"}}, {"suffix": {"type": "v1"}}]}], True),
        ([{"any": [{"prefix": {"type": "com"}}, {"suffix": {"type": "v2"}}]}], False),
        ([{"any": [{}]}], True),
        ([{"not": {"exact": {"id": "1"}}}], False),
        ([{"not": {"exact": {"id": "2"}}}], True),
        ([{"not": {"any": [{"exact": {"id": "2"}}, {"not": {"exact": {"id": "1"}}}]}}], True),
        ([{"exact": {"id": "1"}}, {"exact": {"id": "2"}}], False),
    ],
)
def test_filters_select_events(filters: list[dict[str, Any]], passes: bool) -> None:  # noqa: FBT001 - a table's column
    """Every filter of a list and every attribute of a filter must match; a missing attribute never matches."""
    assert every(filters)(EVENT) is passes
