"""The page in a real Chromium: sorting, filtering, links to runs, light and dark, narrow and wide, no errors."""

from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome

from research.report import figures
from research.report.checklist import items as checklist
from research.report.error_analysis import tables as errors
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.render import html as page
from research.report.tables.cells import Cell, Table
from tests.browser import open_browser
from tests.report.synthetic import write_run

pytestmark = pytest.mark.service

EVIL = "<script>window.pwned = 1</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with open_browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a small study with every section."""
    root = tmp_path_factory.mktemp("study")
    for i in range(8):
        task, data_set = (("sentiment", "reviews"), ("ner", "news"))[i // 4]
        settings: Any = {
            "quality": 0.9 - 0.2 * (i % 2),
            "config": {"optim.lr": (3e-5, 1e-4)[i % 2]},
            "seed": i // 2,
        }
        write_run(root / "runs" / str(i), task=task, data_set=data_set, **settings)
    write_run(root / "runs" / "8", seed=9, status="failed", config={"optim.lr": 3e-5})
    records = read_records([root / "runs"])
    grid = group_runs(records)
    runs = [record.path for record in records]
    rows = [
        [Cell("b 10"), Cell("90.1 ± 0.2", 0.901, (runs[0], runs[3]), "best"), Cell("")],
        [Cell("b 9"), Cell("100.0", 1.0, (runs[1],)), Cell("0.5", 0.5)],
        [Cell(EVIL), Cell("9.5", 0.095, tuple(runs)), Cell("-2", -2.0)],
    ]
    folder = root / "paper"
    folder.mkdir()
    shown = page.Page(
        title="A study of learning rates", command=["research", "report", "runs", "--output", "paper"], records=records,
        scores=[Table("Scores", ("system", "F1", "other"), rows, "Per cent.")], notes=["A note " + EVIL],
        figures=figures.draw_figures(grid, records, folder / "figures"),
        errors=errors.analyse_errors(grid, folder / "errors"),
        checklist=checklist.write_checklist(records, grid, folder),
    )  # fmt: skip
    return page.write_page(folder, shown).as_uri()


@pytest.fixture
def opened(browser: Chrome, address: str) -> Iterator[Chrome]:
    """The page, opened again; afterwards nothing was complained of and no foreign script has run."""
    browser.get(address)
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return window.pwned") is None


def column(browser: Chrome, table: str, index: int) -> Any:
    return browser.execute_script(
        """return [...document.querySelector(arguments[0]).tBodies[0].rows]
             .filter((row) => !row.hidden).map((row) => row.cells[arguments[1]].textContent.trim())""",
        table, index,
    )  # fmt: skip


def click(browser: Chrome, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def write(browser: Chrome, selector: str, text: str) -> None:
    browser.execute_script(
        """const box = document.querySelector(arguments[0]); box.value = arguments[1];
           box.dispatchEvent(new Event("input"))""",
        selector, text,
    )  # fmt: skip


SCORES = "#scores table"


def test_sorting_by_numbers_texts_and_with_empty_cells(opened: Chrome) -> None:
    head = f"{SCORES} th:nth-child({{}}) button"
    click(opened, head.format(2))
    assert column(opened, SCORES, 1) == ["9.5", "90.1 ± 0.2", "100.0"]
    click(opened, head.format(2))
    assert column(opened, SCORES, 1) == ["100.0", "90.1 ± 0.2", "9.5"]
    state = "return document.querySelector('#scores th:nth-child(2)').getAttribute('aria-sort')"
    assert opened.execute_script(state) == "descending"
    click(opened, head.format(1))
    assert column(opened, SCORES, 0) == [EVIL, "b 9", "b 10"]
    assert opened.execute_script(state) is None
    for expected in (["-2", "0.5", ""], ["0.5", "-2", ""]):
        click(opened, head.format(3))
        assert column(opened, SCORES, 2) == expected


def test_filtering_by_words(opened: Chrome) -> None:
    write(opened, "#scores input", "100.0 B")
    assert column(opened, SCORES, 0) == ["b 9"]
    assert opened.execute_script("return document.querySelector('#scores output').textContent") == "1 of 3"
    write(opened, "#scores input", "")
    assert len(column(opened, SCORES, 0)) == 3


def test_a_number_shows_its_runs_and_the_button_all_again(opened: Chrome) -> None:
    total = len(column(opened, "#runs table", 0))
    assert total == 9
    click(opened, "#scores a[data-runs]")
    assert len(column(opened, "#runs table", 0)) == 2
    reported = opened.execute_script("return document.querySelector('#chosen span').textContent")
    assert reported == "2 runs behind 90.1 ± 0.2"
    click(opened, "#chosen button")
    assert len(column(opened, "#runs table", 0)) == total
    write(opened, "#runs input", "failed")
    assert column(opened, "#runs table", 4) == ["failed"]


def test_a_link_opens_the_closed_table_it_leads_to(opened: Chrome) -> None:
    closed = "return document.querySelector('#table-packages details').open"
    assert opened.execute_script(closed) is False
    click(opened, "a[href='#table-packages']")
    assert opened.execute_async_script(f"setTimeout(() => arguments[0]((() => {{{closed}}})()), 100)") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_overflows_and_colours_follow_the_scheme(opened: Chrome, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    opened.execute_script("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    wide = """return [...document.querySelectorAll("body *")].filter((each) => !each.closest(".scroll table")
              && each.getBoundingClientRect().right > innerWidth + 0.5).map((each) => each.outerHTML.slice(0, 80))"""
    assert opened.execute_script(wide) == []
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]


def test_every_figure_is_drawn(opened: Chrome) -> None:
    sizes = opened.execute_script("return [...document.images].map((image) => [image.complete, image.naturalWidth])")
    assert len(sizes) == 8 and all(complete and width == 990 for complete, width in sizes)
