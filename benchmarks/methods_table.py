"""The tables of `benchmarks/methods.py`, from its rows and run folders."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.report.compare import compare_runs
from research.report.records import read_records

Row = dict[str, Any]
OURS, PEER, FULL = "harness", "peer", "full"
ALPHA = 0.05


def tables(rows: Sequence[Row], output: Path) -> str:
    """All tables in Markdown."""
    found: dict[str, dict[str, dict[str, list[Row]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        if "failed" not in row:
            found[row["table"]][row["name"]][row["system"]].append(row)
    parts = [
        "\n".join(FORMS[table](names) if table in FORMS else _table(table, names, output))
        for table, names in found.items()
    ]
    failed = [f"{row['table']} {row['name']} seed {row['seed']}: {row['failed']}" for row in rows if "failed" in row]
    return "\n\n".join([*parts, *failed]) + "\n"


def _table(table: str, names: dict[str, dict[str, list[Row]]], output: Path) -> Iterator[str]:
    marks = significance(table, names, output)
    yield f"### {table}\n"
    yield "| method | seeds | score | trained weights | examples/s | MiB | score of peft | examples/s | MiB | ratio |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, systems in names.items():
        ours, theirs = systems.get(OURS, []), systems.get(PEER, [])
        if not ours:
            continue
        cells = [name, str(len(ours)), _score(ours) + marks.get(name, ""), f"{ours[0]['trained']:,}", *_cost(ours)]
        cells += [_score(theirs), *_cost(theirs), _ratio(ours, theirs)] if theirs else ["", "", "", ""]
        yield f"| {' | '.join(cells)} |"


def _score(rows: Sequence[Row]) -> str:
    scores = [row["score"] for row in rows]
    mean = f"{statistics.mean(scores):.3f}"
    return f"{mean} ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else mean


def _cost(rows: Sequence[Row]) -> list[str]:
    rate, memory = (statistics.median(row[key] for row in rows) for key in ("examples_per_second", "peak_mib"))
    return [f"{rate:.0f}", f"{memory:,.0f}"]


def _ratio(ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    mine, other = (statistics.median(row["examples_per_second"] for row in rows) for rows in (ours, theirs))
    return f"{mine / other:.1f}"


def significance(table: str, names: dict[str, dict[str, list[Row]]], output: Path) -> dict[str, str]:
    """By method ↑ or ↓ where `research compare` finds it better or worse than `full`, corrected after Holm."""
    runs = output / "runs" / table
    several = [name for name, systems in names.items() if name != FULL and len(systems.get(OURS, [])) > 1]
    if FULL not in names or len(names[FULL].get(OURS, [])) < 2 or not several:
        return {}
    full, p_values, differences = read_records([runs / FULL]), {}, {}
    for name in several:
        try:
            [comparison] = compare_runs(read_records([runs / name]), full, correction="none").comparisons
        except UserError as error:
            print(f"{table} {name}: {error}")
            continue
        p_values[name] = next((p for p in comparison.corrected if p is not None), 1.0)
        differences[name] = comparison.difference
    found, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda each: p_values[each])):
        largest = max(largest, p_values[name] * (len(p_values) - place))  # Holm 1979
        if largest < ALPHA:
            found[name] = " ↑" if differences[name] > 0 else " ↓"
    return found


def _curve(names: dict[str, dict[str, list[Row]]]) -> Iterator[str]:
    """Rows are adapters, columns the numbers of examples."""
    by_name: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for name, systems in names.items():
        adapter, _, size = name.rpartition("-")
        by_name[adapter][size] = systems[OURS]
    sizes = sorted(
        {size for each in by_name.values() for size in each}, key=lambda size: (size == "all", len(size), size)
    )
    yield "### Low-data curve, sst2\n"
    yield f"| adapter | {' | '.join(f'{size} examples' for size in sizes)} |"
    yield f"|---|{'---|' * len(sizes)}"
    for adapter, each in by_name.items():
        yield f"| {adapter} | {' | '.join(_score(each[size]) if size in each else '' for size in sizes)} |"


def _complete_runs(names: dict[str, dict[str, list[Row]]]) -> Iterator[str]:
    """Processor time of complete runs, from data to scores."""
    yield "### The head alone, ten epochs, sst2\n"
    yield "| run | seeds | score | processor seconds |"
    yield "|---|---|---|---|"
    for name, systems in names.items():
        for system, rows in systems.items():
            seconds = statistics.median(row["processor_seconds"] for row in rows)
            yield f"| {name}, {system} | {len(rows)} | {_score(rows)} | {seconds:.1f} |"


FORMS = {"curve": _curve, "ten epochs": _complete_runs}
