"""Check pages in a browser: the faults that axe-core finds, and the charts' figures."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

# A busy machine may draw pages late, which is not a fault of the page.
expect.set_options(timeout=30_000)


def faults(page: Page, *, leave_out: str | None = None) -> list[tuple[str, list[str]]]:
    """Return the rules of axe-core that the page violates or leaves undecided, each with the elements; *leave_out* is a selector."""
    found = Axe().run(page, context={"exclude": [[leave_out]]} if leave_out else None).response
    return [
        (rule["id"], [node["target"] for node in rule["nodes"]])
        for rule in (*found["violations"], *found["incomplete"])
    ]


def highest(page: Page, chart: str, column: str) -> float:
    """Return the highest value of a column in the table of a chart."""
    figure = page.locator("figure").filter(has=page.get_by_text(chart, exact=True))
    figure.locator("summary").click()
    table = figure.locator("table")
    expect(table).to_be_visible()
    heads = table.locator("thead th").all_inner_texts()
    values = table.locator(f"tbody tr > :nth-child({heads.index(column) + 1})").all_inner_texts()
    return max(float(value.replace(",", "")) for value in values if value[0].isdigit())
