"""Text and tables as LaTeX that compiles with pdflatex as it is.

Chinese, Japanese and Korean text goes through the package CJKutf8 (Debian: latex-cjk-chinese); the preamble of
`document` loads it where it is needed. Other characters outside T1 are written as math, as their plain letters, or
as their code point.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

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
_CJK = re.compile("[\u2e80-\u2fdf\u3000-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+")
_LETTERS = frozenset(  # of T1
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿŁłŒœŠšŽžĄąĆćĘęŃńŚśŹźŻżČčĎďĚěŇňŘřŤťŮůŐőŰűĞğİŞş"
)
_GREEK = re.compile("GREEK SMALL LETTER (ALPHA|BETA|GAMMA|DELTA|EPSILON|LAMDA|MU|SIGMA|TAU|PHI)")


def escape(text: str) -> str:
    """Plain text that LaTeX sets as it reads; control characters and line breaks become blanks."""
    parts, start = [], 0
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
    """A booktabs table: best in bold, tied with a dagger. `spans` heads groups of columns: (text, columns)."""
    heads = [column.removeprefix(f"{span} ") for span, column in zip(_spread(spans), shown.columns, strict=True)]
    numbers = [any(row[i].value is not None for row in shown.rows) for i in range(len(shown.columns))]
    wide = len(shown.columns) - spans[0][1] > 4  # spans both columns of a page that has two
    environment = "table*" if wide else "table"
    lines = [
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        r"\small",
        *([r"\setlength{\tabcolsep}{4pt}"] if wide else []),
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if number else 'l' for number in numbers)}@{{}}}}",
        r"\toprule",
        *_span_lines(spans),
        _row([escape(head) for head in heads]),
        r"\midrule",
        *(_body_row(row, spans[0][1], numbers) for row in shown.rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{escape(shown.caption)}}}",
        rf"\label{{{label}}}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


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
        *([r"\usepackage{graphicx}"] if drawn else []),
        *([r"\usepackage{CJKutf8}"] if needs_cjk else []),
        r"\begin{document}",
        *tables,
        *drawn,
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _spread(spans: Sequence[tuple[str, int]]) -> list[str]:
    return [text for text, count in spans for _ in range(count)]


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
