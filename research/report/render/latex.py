"""Text and tables as LaTeX that compiles with pdflatex as it is.

Chinese, Japanese and Korean text goes through the package CJKutf8 (Debian: latex-cjk-chinese); the preamble of
`document` loads it where it is needed. Other characters outside T1 are written as math, as their plain letters, or
as their code point.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import accumulate

from research.common.text import unbroken
from research.report.tables.cells import Cell, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "\u00a0": "~",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\rightarrow$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "[": "{[}",  # after a line's end it would begin an option, as would a star
    "]": "{]}",
    "*": "{*}",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}
_FIGURE = r"""\begin{{figure}}[tp]
\centering
\includegraphics{{{name}}}
\caption{{{caption}}}
\end{{figure}}"""
TEXT_POINTS = 455  # of an A4 page with margins of 2.5 cm
CHARACTER_POINTS, GAP_POINTS = 4.5, 8  # of \small, and between two columns
Span = tuple[str, int, int]  # a group of columns: its head, the first of them, how many
_CJK = re.compile("[\u2e80-\u2fdf\u3000-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+")
_LETTERS = frozenset(  # of T1
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿŁłŒœŠšŽžĄąĆćĘęŃńŚśŹźŻżČčĎďĚěŇňŘřŤťŮůŐőŰűĞğİŞş"
)
_GREEK = re.compile("GREEK SMALL LETTER (ALPHA|BETA|GAMMA|DELTA|EPSILON|LAMDA|MU|SIGMA|TAU|PHI)")


def escape(text: str) -> str:
    """Plain text that LaTeX sets as it reads; control characters and line breaks become blanks."""
    parts, start, text = [], 0, unbroken(text)
    for found in _CJK.finditer(text):
        parts += [_plain(text[start : found.start()]), rf"\begin{{CJK}}{{UTF8}}{{gbsn}}{found[0]}\end{{CJK}}"]
        start = found.end()
    return "".join([*parts, _plain(text[start:])])


def _plain(text: str) -> str:
    return "".join(map(_character, text)).replace("--", "-{}-")  # two hyphens, no dash


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isspace() or unicodedata.category(character).startswith("C"):
        return " " if character.isspace() else ""
    if character.isascii() or character in _LETTERS:
        return character
    greek = _GREEK.fullmatch(unicodedata.name(character, ""))
    if greek:
        return rf"$\{greek[1].lower().replace('lamda', 'lambda')}$"
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return "".join(_SPECIAL.get(c, c) for c in plain) if plain.strip() else f"{{[}}U+{ord(character):04X}{{]}}"


def latex_table(shown: Table, spans: Sequence[tuple[str, int]], label: str) -> str:
    """A booktabs table: best in bold, tied with a dagger. `spans` heads groups of columns: (text, columns).

    Groups that do not fit beside each other on a page stand below each other, each with the settings.
    """
    wide = len(shown.columns) - spans[0][1] > 4  # spans both columns of a page that has two
    environment = "table*" if wide else "table"
    panels = [_tabular(shown, panel) for panel in _panels(shown, spans)]
    lines = [
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        r"\small",
        *([r"\setlength{\tabcolsep}{4pt}"] if wide else []),
        *"\n\\par\\medskip\n".join(panels).split("\n"),
        rf"\caption{{{escape(shown.caption)}}}",
        rf"\label{{{label}}}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _panels(shown: Table, spans: Sequence[tuple[str, int]]) -> list[list[Span]]:
    """The groups of columns, the settings first, that fit beside each other: (head, first column, columns)."""
    starts = accumulate((count for _, count in spans[:-1]), initial=0)
    settings, *groups = [(text, start, count) for (text, count), start in zip(spans, starts, strict=True)]
    panels = [[settings]]
    for group in groups:
        if len(panels[-1]) > 1 and sum(_width_points(shown, each) for each in (*panels[-1], group)) > TEXT_POINTS:
            panels.append([settings])
        panels[-1].append(group)
    return panels


def _width_points(shown: Table, span: Span) -> float:
    """About how wide a group of columns is."""
    text, start, count = span
    columns = range(start, start + count)
    heads = [shown.columns[i].removeprefix(f"{text} ") for i in columns]
    longest = [
        max(len(head), *(len(row[i].text) for row in shown.rows)) for i, head in zip(columns, heads, strict=True)
    ]
    return max(sum(longest) * CHARACTER_POINTS, len(text) * CHARACTER_POINTS) + count * GAP_POINTS


def _tabular(shown: Table, spans: Sequence[Span]) -> str:
    """The columns of some groups; one that is too wide even so is set smaller."""
    columns = [i for _, start, count in spans for i in range(start, start + count)]
    heads = [shown.columns[i].removeprefix(f"{text} ") for text, start, n in spans for i in range(start, start + n)]
    numbers = [any(row[i].value is not None for row in shown.rows) for i in columns]
    lines = [
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if number else 'l' for number in numbers)}@{{}}}}",
        r"\toprule",
        *_span_lines([(text, count) for text, _, count in spans]),
        _row([escape(head) for head in heads]),
        r"\midrule",
        *(_body_row([row[i] for i in columns], spans[0][2], numbers) for row in shown.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if sum(_width_points(shown, each) for each in spans) > TEXT_POINTS:
        lines = [r"\resizebox{\linewidth}{!}{%", *lines, "}"]
    return "\n".join(lines)


def latex_document(tables: Sequence[str], figures: Mapping[str, str] | None = None) -> str:
    """A complete document around tables, and figures (file name -> caption): `pdflatex` compiles it."""
    drawn = [_FIGURE.format(name=name, caption=escape(caption)) for name, caption in (figures or {}).items()]
    needs_cjk = any(r"\begin{CJK}" in text for text in (*tables, *drawn))
    lines = [
        r"\documentclass[10pt,a4paper]{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs}",
        r"\usepackage[margin=2.5cm]{geometry}",
        *([r"\usepackage{graphicx}"] if drawn or any(r"\resizebox" in text for text in tables) else []),
        *([r"\usepackage{CJKutf8}"] if needs_cjk else []),
        r"\begin{document}",
        *tables,
        *drawn,
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _span_lines(spans: Sequence[tuple[str, int]]) -> list[str]:
    if not any(text for text, _ in spans):
        return []
    heads, rules, start = [], [], 1
    for text, count in spans:
        heads.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(text)}}}" if text else "&" * (count - 1))
        if text:
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [" & ".join(heads) + r" \\", "".join(rules)]


def _body_row(row: Sequence[Cell], settings: int, numbers: Sequence[bool]) -> str:
    """A row; the name of one without settings (a baseline) takes their columns."""
    cells = [_cell(cell) for cell in row]
    if settings > 1 and row[0].value is None and numbers[0] and not any(cell.text for cell in row[1:settings]):
        cells[:settings] = [rf"\multicolumn{{{settings}}}{{@{{}}l}}{{{cells[0]}}}"]
    return _row(cells)


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.mark == "best":
        return rf"\textbf{{{text}}}"
    return text + (_SPECIAL["†"] if cell.mark == "tied" else "")


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
