"""LaTeX that compiles: escaping, marks, Chinese; with the real program where it is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from research.report.render.latex import escape, latex_document, latex_table
from research.report.tables.cells import Cell, Table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % of R&D_x #1 $5 {a}", r"50~\% of R\&D\_x \#1 \$5 \{a\}"),
        (r"C:\x ~ ^", r"C:\textbackslash{}x \textasciitilde{} \textasciicircum{}"),
        ("<b>|</b>", r"\textless{}b\textgreater{}\textbar{}\textless{}/b\textgreater{}"),
        ("--by", "-{}-by"),
        ("[CLS] *", "{[}CLS{]} {*}"),
        ("84.3 ± 0.4", r"84.3 $\pm$ 0.4"),
        ("naïve Łódź", "naïve Łódź"),
        ("α ﬁ", r"$\alpha$ fi"),
        ("中文 BERT", r"\begin{CJK}{UTF8}{gbsn}中文\end{CJK} BERT"),
        ("\u202ea\nb\x00", "a b"),
        ("🙂", "{[}U+1F642{]}"),
    ],
)
def test_text_is_set_as_it_reads(text: str, expected: str) -> None:
    assert escape(text) == expected


def small_table(names: tuple[str, ...] = ("lr 3e-5", "lr 1e-4")) -> Table:
    cells = [Cell("84.3 ± 0.4", 0.843, (), "best"), Cell("84.1 ± 0.5", 0.841, (), "tied")]
    rows = [[Cell(name), Cell("5", 5.0), cell, Cell("–")] for name, cell in zip(names, cells, strict=True)]
    return Table(
        "Scores", ["system", "runs", "news F1 validation", "news F1 test"], rows, "Scores in per cent, 5 % more."
    )


def test_a_table_has_rules_spans_and_marks() -> None:
    lines = latex_table(small_table(), [("", 2), ("news F1", 2)], "tab:x").splitlines()
    assert r"\begin{tabular}{@{}lrrl@{}}" in lines
    assert r"& & \multicolumn{2}{c}{news F1} \\" in lines
    assert r"\cmidrule(lr){3-4}" in lines
    assert r"system & runs & validation & test \\" in lines
    assert r"lr 3e-5 & 5 & \textbf{84.3 $\pm$ 0.4} & \textendash{} \\" in lines
    assert r"lr 1e-4 & 5 & 84.1 $\pm$ 0.5$^\dagger$ & \textendash{} \\" in lines
    assert r"\caption{Scores in per cent, 5~\% more.}" in lines


def wide_table(data_sets: int, system: str = "all-MiniLM-L6-v2") -> tuple[Table, list[tuple[str, int]]]:
    heads = [f"data set {i} macro F1" for i in range(data_sets)]
    columns = ["model", "lr", "runs", *(f"{head} {split}" for head in heads for split in ("validation", "test"))]
    scores = [Cell("84.3 ± 0.4", 0.843) for _ in range(2 * data_sets)]
    rows = [[Cell(system), Cell("3e-5", 3e-5), Cell("5", 5.0), *scores] for _ in range(3)]
    return Table("Scores", columns, rows, "Scores in per cent."), [("", 3), *((head, 2) for head in heads)]


def test_data_sets_that_do_not_fit_the_page_stand_below_each_other() -> None:
    tex = latex_table(*wide_table(7), "t")
    # about 132 points of settings and 106 each data set: three fit into 455
    assert tex.count(r"\begin{tabular}{@{}lrrrrrrrr@{}}") == 2 and tex.count(r"\begin{tabular}{@{}lrrrr@{}}") == 1
    assert tex.count("model & lr & runs & validation & test") == 3 and tex.count(r"\caption") == 1
    assert all(f"data set {i} macro F1" in tex for i in range(7)) and r"\resizebox" not in tex
    assert latex_table(*wide_table(2), "t").count(r"\begin{tabular}") == 1


@pytest.mark.service
@pytest.mark.parametrize("system", ["all-MiniLM-L6-v2", "organisation/a-model-whose-name-is-very-long-" * 2])
def test_no_table_is_wider_than_the_page(system: str, tmp_path: Path) -> None:
    needs_latex("booktabs.sty")
    (tmp_path / "page.tex").write_text(latex_document([latex_table(*wide_table(7, system), "t")]), encoding="utf-8")
    assert "Overfull" not in compile_tex(tmp_path, "page.tex")


def needs_latex(*packages: str) -> None:
    """Skip, or with CI_REQUIRES_LATEX=1 fail, where LaTeX or a package is missing."""
    missing = [] if shutil.which("pdflatex") else ["pdflatex"]
    if not missing:
        missing = [p for p in packages if not subprocess.run(["kpsewhich", p], capture_output=True, text=True).stdout]
    if missing:
        wanted = "texlive-latex-base texlive-latex-recommended latex-cjk-chinese latex-cjk-chinese-arphic-gbsn00lp"
        reason = f"{', '.join(missing)} missing: apt-get install {wanted}"
        if os.environ.get("CI_REQUIRES_LATEX") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def compile_tex(folder: Path, name: str) -> str:
    """Compile a document; returns its text."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    pdf = folder / name.replace(".tex", ".pdf")
    assert pdf.read_bytes().startswith(b"%PDF")
    return done.stdout


@pytest.mark.service
def test_every_special_character_compiles(tmp_path: Path) -> None:
    needs_latex("booktabs.sty")
    hostile = (r"\_{}$&#%~^<>|\"'`-- [x] * ± † × ÷ ≥ ≤ → – — … ‘’ “” é ł ﬁ α µ 🙂", "[first cell]")
    (tmp_path / "page.tex").write_text(
        latex_document([latex_table(small_table(hostile), [("", 2), ("a_b", 2)], "t")]), encoding="utf-8"
    )
    compile_tex(tmp_path, "page.tex")


@pytest.mark.service
def test_every_printable_latin_character_compiles(tmp_path: Path) -> None:
    needs_latex("booktabs.sty")
    names = ("".join(map(chr, range(32, 127))), "".join(map(chr, range(0xA0, 0x250))))
    (tmp_path / "page.tex").write_text(
        latex_document([latex_table(small_table(names), [("", 4)], "t")]), encoding="utf-8"
    )
    compile_tex(tmp_path, "page.tex")


@pytest.mark.service
def test_chinese_compiles(tmp_path: Path) -> None:
    needs_latex("booktabs.sty", "CJKutf8.sty", "c70gbsn.fd")
    shown = small_table(("中文模型", "情感分析 100%"))
    shown = Table(shown.title, shown.columns, shown.rows, "所有结果。 Scores.")
    text = latex_document([latex_table(shown, [("", 2), ("新闻", 2)], "t")])
    assert r"\usepackage{CJKutf8}" in text
    (tmp_path / "page.tex").write_text(text, encoding="utf-8")
    compile_tex(tmp_path, "page.tex")
