"""The page as text: what stands in it, what is escaped, what every number leads to."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from research.report.checklist import items as checklist
from research.report.error_analysis import tables as errors
from research.report.grouping import group_runs
from research.report.records import Record, read_records
from research.report.render import html as page
from research.report.tables.cells import Cell, Table, make_table
from tests.report.synthetic import MakeRun

VOID = {"meta", "link", "input", "img", "br"}


class Parsed(HTMLParser):
    """Elements with their attributes and texts; raises where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]


def whole_page(records: list[Record], folder: Path, **others: Any) -> str:
    grid = group_runs(records)
    shown = page.Page(
        title="a study", command=["research", "report", "runs"], records=records,
        errors=errors.analyse_errors(grid, folder / "errors"),
        checklist=checklist.write_checklist(records, grid, folder), **others,
    )  # fmt: skip
    return page.write_page(folder, shown).read_text(encoding="utf-8")


def test_a_number_leads_to_its_runs_and_a_run_to_its_folder(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(seed=seed) for seed in range(3)]
    records = read_records(runs)
    cells = [Cell("x"), Cell("90.1", 0.901, (runs[0], runs[2]), "best")]
    scores = Table("Scores", ("system", "F1"), [cells], "Found with probability 80 %.")
    (tmp_path / "paper").mkdir()
    parsed = Parsed(whole_page(records, tmp_path / "paper", scores=[scores]))
    number = next(a for a in parsed.all("a") if a.get("data-runs") == "0 2")
    assert number["href"] == "#run-0"
    assert [a["id"] for a in parsed.all("tr") if "id" in a] == ["run-0", "run-1", "run-2"]
    links = [a["href"] for a in parsed.all("a") if a["href"].startswith("../runs/")]
    assert links == ["../runs/0000", "../runs/0001", "../runs/0002"]
    assert all((tmp_path / "paper" / link / "config.yaml").is_file() for link in links)
    assert "Found with probability 80\u00a0%." in parsed.text  # where no line ends


def test_texts_stand_beside_their_references_and_outputs(make_run: MakeRun, tmp_path: Path) -> None:
    """The worst, the best, the longest, and those that the limit cut, of which the synthetic ones are every seventh."""
    run = read_records([make_run(task="translation", data_set="captions")])[0]
    text = whole_page([run], tmp_path)
    shown = "\n".join(Parsed(text).text)
    for kind in ("Worst examples", "Best examples", "Longest outputs", "Outputs cut at the limit"):
        assert f"{kind} of captions" in shown
    table = run.predictions("test")
    row = {name: table[name][7].as_py() for name in ("id", "source", "gold", "prediction")}
    said = shown[shown.index("Outputs cut at the limit of captions") :]
    said = said[said.index(row["id"]) :]
    cells = [each.strip() for each in said.split("\n") if each.strip()]
    assert cells[2:5] == [row["source"], " | ".join(row["gold"]), row["prediction"]]


@pytest.mark.slow
def test_every_link_inside_the_page_has_its_target(grid: Path, tmp_path: Path) -> None:
    parsed = Parsed(whole_page(read_records([grid]), tmp_path))
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in parsed.all("a") if a["href"].startswith("#")}
    assert targets and targets <= set(ids)


def test_texts_and_names_are_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    evil = "</script><script>window.pwned=1</script>"
    make_run(data_set="<img src=x onerror=alert(1)>", labels=("好 & <b>", evil))
    table = Table(evil, (evil,), [[Cell(evil)]])
    text = whole_page(read_records([tmp_path / "runs"]), tmp_path, notes=[evil], significance=[table])
    parsed = Parsed(text)
    assert len(parsed.all("script")) == 1 and parsed.all("b") == [] and parsed.all("img") == []
    shown = "".join(parsed.text)
    assert evil in shown and "好 & <b>" in shown and "<img src=x onerror=alert(1)>" in shown


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(grid: Path, tmp_path: Path) -> None:
    text = whole_page(read_records([grid]), tmp_path)
    parsed = Parsed(text)
    sources = [a[name] for _, a in parsed.elements for name in ("src", "href") if name in a]
    assert not [source for source in sources if re.match(r"(https?:)?//", source)]
    policy = next(a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_figures_stand_inside_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "a b.pdf").write_bytes(b"%PDF")
    (folder / "a b.png").write_bytes(b"\x89PNG")
    parsed = Parsed(
        whole_page(read_records([tmp_path / "runs"]), tmp_path, figures={folder / "a b.pdf": "What <it> shows"})
    )
    (image,) = parsed.all("img")
    assert image == {"src": "data:image/png;base64,iVBORw==", "alt": "What <it> shows"}
    assert "figures/a%20b.pdf" in [a["href"] for a in parsed.all("a")]


def test_long_texts_are_folded_and_complete(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    text = "word " * 100
    parsed = Parsed(whole_page(read_records([tmp_path / "runs"]), tmp_path, scores=[make_table("T", ("a",), [[text]])]))
    assert {"class": "long"} in parsed.all("details")
    assert text.strip() in "".join(parsed.text)


def test_failed_and_pruned_runs_are_counted_and_listed(make_run: MakeRun, tmp_path: Path) -> None:
    for status in ("finished", "pruned", "failed", "unfinished"):
        make_run(status=status)
    parsed = Parsed(whole_page(read_records([tmp_path / "runs"]), tmp_path))
    shown = " ".join("".join(parsed.text).split())
    assert "4 runs: 1 finished, 1 unfinished, 1 pruned, 1 failed." in shown
    assert len([a for a in parsed.all("tr") if "id" in a]) == 4


def test_a_page_without_figures_errors_and_checklist_is_complete(make_run: MakeRun, tmp_path: Path) -> None:
    records = read_records([make_run()])
    text = page.write_page(tmp_path, page.Page(records, "t", ["research"])).read_text(encoding="utf-8")
    assert next(a["href"] for a in Parsed(text).all("a")) == "#runs"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_colour_can_be_read_on_every_ground(scheme: str) -> None:
    css = (page.TEMPLATES / "page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme == "dark"]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
    for text in ("text", "quiet", "link", "ask"):
        for ground in ("ground", "raised"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["text"], colours["mark"]) >= 4.5


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
