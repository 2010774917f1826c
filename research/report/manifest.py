"""`manifest.json`: the runs, file hashes and commands behind every number of a paper, and whether they still hold.

A number is checked twice: its runs' files must be those the report read, and the number must come out of them again.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypedDict

from research.common.errors import UserError
from research.common.files import write_json
from research.common.text import one_line
from research.report.output import sha256
from research.report.records import Record
from research.report.statistics.baselines import Baseline
from research.report.statistics.summary import Summary
from research.report.tables.cells import Table

NAME = "manifest.json"
RUN_FILES = ("config.yaml", "result.json", "outcome.json", "provenance.json", "cost.json", "metrics.jsonl",
             "evaluations.jsonl")  # fmt: skip
Number = tuple[str, float, list[Path]]  # what it is, its value, the runs it comes from


class Options(TypedDict):
    """The options of the command that decide the numbers."""

    by: Sequence[str] | None
    metric: str | None


class RunEntry(TypedDict):
    """One run of the report."""

    path: str  # relative to the report's folder
    status: str
    command: Sequence[str] | None
    commit: str | None
    files: dict[str, str]  # name -> sha256


class NumberEntry(TypedDict):
    """One number of the report."""

    what: str
    value: float
    runs: list[int]  # places in `runs`


@dataclass(frozen=True)
class Manifest:
    """The sources of a report."""

    command: Sequence[str]
    options: Options
    runs: Sequence[RunEntry]
    numbers: Sequence[NumberEntry]
    files: Mapping[str, str]  # of the report itself: name -> sha256


def numbers(summaries: Iterable[Summary], lowest: Iterable[Baseline], tables: Iterable[Table]) -> Iterator[Number]:
    """Every number of a report: those of the main table, and those in the cells of all other tables."""
    for s in summaries:
        place, runs = f"{s.group.system} on {s.group.data_set}, {s.split} {s.group.metric}", s.group.runs
        low, high = (s.interval.low, s.interval.high) if s.interval else (None, None)
        named = {"mean": s.mean, "deviation": s.deviation, "lower limit": low, "upper limit": high, "p": s.p_value}
        for name, value in named.items():
            if value is not None:
                yield f"{place}, {name}", value, [run.path for run in runs]
    for b in lowest:
        yield f"{b.name} on {b.group.data_set}, {b.split} {b.group.metric}", b.value, list(b.group.paths)
    seen: Counter[str] = Counter()
    for table in tables:
        for row in table.rows:
            name = ", ".join(cell.text for cell in takewhile(lambda cell: cell.value is None, row))
            for column, cell in zip(table.columns, row, strict=True):
                if cell.value is not None:
                    what = f"{table.title}: {name}, {column}"
                    seen[what] += 1
                    yield what + (f" ({seen[what]})" if seen[what] > 1 else ""), cell.value, list(cell.runs)


def write_manifest(
    folder: Path, place: Path, command: Sequence[str], options: Options, records: Sequence[Record],
    computed: Iterable[Number],
) -> None:  # fmt: skip
    """Write the manifest of a report whose other files are in `folder`; run folders are relative to `place`."""
    places = {record.path: number for number, record in enumerate(records)}
    numbers: list[NumberEntry] = [
        {"what": what, "value": value, "runs": [places[run] for run in runs if run in places]}
        for what, value, runs in computed
    ]
    files = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    runs = [_run(record, place) for record in records]
    write_json(folder / NAME, asdict(Manifest(list(command), options, runs, numbers, files)))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a report. Raises UserError where there is none, or one that this version cannot read."""
    path = folder / NAME
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{folder} has no {NAME}; `research report RUNS... --output {folder}` writes one.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not the manifest of a report: {one_line(error)}.") from None


def earlier_files(folder: Path) -> Mapping[str, str]:
    """The files of a report in the folder, with their hashes; none where there is none."""
    try:
        return read_manifest(folder).files
    except UserError:
        return {}


def run_paths(manifest: Manifest, folder: Path) -> list[Path]:
    """The paths of a manifest's runs, seen from here."""
    return [Path(os.path.normpath(folder / run["path"])) for run in manifest.runs]


def changed_runs(manifest: Manifest, folder: Path) -> list[list[str]]:
    """For each run, what of its files is gone or differs from what the report read, one sentence each."""
    return [_changes(path, run["files"]) for path, run in zip(run_paths(manifest, folder), manifest.runs, strict=True)]


def changed_files(manifest: Manifest, folder: Path) -> list[str]:
    """The report's own files that were edited or removed since."""
    return [
        f"{folder / name} was changed or removed after the report was made"
        for name, sha in manifest.files.items()
        if not (folder / name).is_file() or sha256(folder / name) != sha
    ]


def wrong_numbers(manifest: Manifest, now: Mapping[str, float] | None, changed: Sequence[Sequence[str]]) -> list[str]:
    """The numbers that `now` lacks or has with another value, and those whose runs were changed.

    `now` is None where runs were changed so that nothing was computed again.
    """
    faults = []
    for number in manifest.numbers:
        said, is_changed = f"{number['what']} = {number['value']:.6g}", any(changed[run] for run in number["runs"])
        if now is None:
            faults += [f"{said} rests on runs that were changed"] if is_changed else []
            continue
        value = now.get(number["what"])
        if value is None:
            faults.append(f"{said} can no longer be computed")
        elif not math.isclose(value, number["value"], rel_tol=1e-9, abs_tol=1e-9):
            faults.append(f"{said} no longer follows: its runs give {value:.6g} now")
        elif is_changed:
            faults.append(f"{said} still comes out, but of runs that were changed")
    return faults


def _run(record: Record, folder: Path) -> RunEntry:
    attempts, path = record.provenance.get("attempts") or [{}], record.path
    command = attempts[-1].get("command")
    files = [path / name for name in RUN_FILES if (path / name).is_file()]
    files += sorted((path / "predictions").glob("*.parquet"))
    return {
        "path": os.path.relpath(path, folder),
        "status": record.status,
        "command": command and [Path(command[0]).name, *command[1:]],
        "commit": (attempts[-1].get("code") or {}).get("commit"),
        "files": {str(file.relative_to(path)): sha256(file) for file in files},
    }


def _changes(path: Path, files: Mapping[str, str]) -> list[str]:
    if not path.is_dir():
        return [f"the run {path} is gone"]
    return [
        f"{path / name} {'differs from what the report read' if (path / name).is_file() else 'is gone'}"
        for name, sha in files.items()
        if not (path / name).is_file() or sha256(path / name) != sha
    ]
