"""Figures as files: one column wide, embedded TrueType fonts, the same bytes each time, nothing global changed."""

from pathlib import Path
from typing import Any

import matplotlib
import pytest
from pypdf import PdfReader

from research.report.figures import style


def one(name: str = "figure", label: str = "x $a_b$ <i>", *, tmp_path: Path) -> Path:
    with style.applied():
        figure, axes = style.new_figure(2.0)
        axes.plot([0, 1], [0, 1], label=label)
        axes.set_xlabel(label)
        style.legend_below(figure, axes)
        return style.save_figure(figure, tmp_path, name)


def test_a_figure_is_one_column_wide_with_embedded_truetype_fonts(tmp_path: Path) -> None:
    page: Any = PdfReader(one(tmp_path=tmp_path)).pages[0]
    assert float(page.mediabox.width) == pytest.approx(3.3 * 72)
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].get_object().values()]
    assert fonts
    for font in fonts:
        assert "STIXGeneral" in font["/BaseFont"]
        assert font["/Subtype"] in ("/TrueType", "/Type0")  # not Type 3
        inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        assert "/FontFile2" in inner["/FontDescriptor"].get_object()


def test_labels_are_taken_as_they_are(tmp_path: Path) -> None:
    assert "x $a_b$ <i>" in PdfReader(one(tmp_path=tmp_path)).pages[0].extract_text()


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = one("a", tmp_path=tmp_path), one("b", tmp_path=tmp_path)
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".png").read_bytes() == second.with_suffix(".png").read_bytes()


def test_nothing_global_is_changed(tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 31.0}):
        before = dict(matplotlib.rcParams)
        one(tmp_path=tmp_path)
        assert dict(matplotlib.rcParams) == before


def test_colours_differ_in_grey() -> None:
    looks = [style.look(i) for i in range(style.MOST_LINES)]
    assert len({look["marker"] for look in looks}) == len({str(look["linestyle"]) for look in looks}) == len(looks)
