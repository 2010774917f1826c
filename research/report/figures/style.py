"""How every figure looks: one column wide, serif like the paper, colours that colour-blind readers tell apart.

Nothing global is changed: figures are `matplotlib.figure.Figure` objects made and saved inside `applied()`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.metrics.score import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_INCHES = 3.3  # the width of a column of an ACL paper
DPI = 300  # of the PNG, and of dots in a PDF that are too many to stay vector
# Okabe & Ito 2008, with grey for their yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX*"
MOST_LINES = len(COLOURS)
SEQUENTIAL = "cividis"
GREY = "#767676"
LEGEND_CHARACTERS, LEGEND_LINE_INCHES = 46, 0.145
# TrueType first: a PDF takes those as they are. fonts-droid-fallback is the smallest of Debian's.
CHINESE_FONTS = ("DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "wqy-zenhei.ttc", "uming.ttc", "simsun.ttc",
                 "Songti.ttc", "NotoSerifCJK-Regular.ttc", "NotoSansCJK-Regular.ttc")  # fmt: skip

RC: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#e3e3e3",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "patch.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType outlines that editors and journals take, not Type 3
    "mathtext.fontset": "stix",
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "figure.facecolor": "white",
}


@contextmanager
def applied() -> Iterator[None]:
    """matplotlib's defaults and our style, inside the block alone."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = RC | {"font.family": ["STIXGeneral", *_chinese_font()]}
        matplotlib.rcParams.update(settings)
        yield


@cache
def _chinese_font() -> tuple[str, ...]:
    """The first font with Chinese characters that is installed; matplotlib's own list may be older than the font."""
    from matplotlib import font_manager

    installed = {Path(path).name: path for path in font_manager.findSystemFonts()}
    path = next((installed[name] for name in CHINESE_FONTS if name in installed), None)
    if path is None:
        return ()
    font_manager.fontManager.addfont(path)
    return (font_manager.FontProperties(fname=path).get_name(),)


def new_figure(height_inches: float, rows: int = 1, **layout: Any) -> tuple[Figure, Any]:
    """A figure one column wide and its axes: one, or an array of `rows`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_INCHES, height_inches), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(rows, **layout)


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Write `<name>.pdf` and `<name>.png`; the same figure gives the same bytes. Returns the PDF's path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    path = folder / f"{name}.pdf"
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not again for each file
    # Each canvas draws once; `savefig` would draw twice.
    FigureCanvasPdf(figure).print_pdf(path, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    figure.set_dpi(DPI)  # the PDF's is 72
    FigureCanvasAgg(figure).print_png(path.with_suffix(".png"), metadata={"Software": None})
    return path


def look(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the line with this index."""
    i = index % MOST_LINES
    return {"color": COLOURS[i], "linestyle": DASHES[i], "marker": MARKERS[i]}


def legend_below(figure: Figure, axes: Axes) -> None:
    """The lines' names under the axes, side by side where they are short; the figure grows by their height."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    wrapped = [textwrap.fill(label, LEGEND_CHARACTERS, max_lines=2, placeholder=" …") for label in labels]
    columns = 2 if len(labels) > 1 and max(map(len, labels)) <= LEGEND_CHARACTERS // 2 else 1
    lines = sum(label.count("\n") + 1 for label in wrapped[::columns])
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE_INCHES * lines)
    figure.legend(handles, wrapped, loc="outside lower center", ncols=columns)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Long names in two lines at the left of rows 0, 1, ... from the top."""
    axes.set_yticks(range(len(names)), [textwrap.fill(n, 22, max_lines=2, placeholder=" …") for n in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def per_cent(*axes: Any) -> None:
    """Fractions on these axes, an `xaxis` or a colorbar's `ax.yaxis`, as the tables have them: 0.85 as 85."""
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:z.6g}"))


def score_axis(axis: Any, text: str, score: Score) -> None:
    """Name an axis of scores; fractions are in per cent, as in the tables, a loss as it is."""
    if math.isfinite(score.high):
        per_cent(axis)
        text += " (%)"
    axis.set_label_text(text)


def log_axis(axis: Any) -> None:
    """A logarithmic axis with ticks as people write them: 3e-5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from research.report.settings import value_text

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: value_text(float(value))))
    axis.set_minor_formatter(NullFormatter())
