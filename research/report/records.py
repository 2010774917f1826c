"""Run folders as records: what was asked, what came out, what it cost. Nothing is computed here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from research.common.errors import UserError
from research.config import component
from research.metrics import metric_of, smaller_is_better
from research.metrics.base import BaseMetric
from research.metrics.score import Score, from_record, score_named
from research.report.data_set_names import data_set_name
from research.report.deciding_settings import deciding_settings
from research.report.recorded_files import read_config, read_json
from research.tracking.predictions import KEY
from research.tracking.run import Run

Status = Literal["finished", "unfinished", "pruned", "failed"]

SMALL_BYTES = 32_768  # of predictions that stay in memory once they were read
MOST_NAME_PARTS = 8  # of a path in the name of a data set


class ChangedRun(UserError):
    """A run whose files were changed after it ended: none of its numbers is reported."""


@dataclass(frozen=True)
class Record:
    """One run folder as training left it. `config` has the defaults of keys younger than the run."""

    path: Path
    config: dict[str, Any]
    result: dict[str, Any] | None  # result.json, None unless the run is finished
    provenance: dict[str, Any]
    outcome: dict[str, Any] | None  # outcome.json of a run that was pruned or failed
    small_tables: dict[str, pa.Table] = field(default_factory=dict, compare=False, repr=False)  # predictions, by split
    parents: str | None = None  # what the runs of its system begin with, each with that of its own seed
    name_parts: int = 1  # of its place that the name of the data set takes: more where two would share a name

    @property
    def status(self) -> Status:
        if self.result is not None:
            return "finished"
        return self.outcome["state"] if self.outcome is not None else "unfinished"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The keys of the config that decide its numbers, dotted, but the seeds, the fold and the few-shot sample."""
        found = deciding_settings(self.config)
        return found if self.parents is None else {**found, "model.name": self.parents}

    @property
    def task(self) -> str:
        return component.canonical("task", str(self.config["task"]["name"]))

    @property
    def scored_by(self) -> str:
        """The metric of its scores; the task where the run recorded none."""
        return str(((self.result or {}).get("metric") or {}).get("name") or self.task)

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def fold(self) -> int | None:
        """The part of the data that it was tested on, in cross-validation."""
        fold = self.config["data"]["fold"]
        return None if fold is None else int(fold)

    @property
    def sample(self) -> int | None:
        """The seed of its few-shot sample; None where it was trained on all data."""
        data = self.config["data"]
        return int(data["shots_seed"]) if data.get("shots") is not None else None

    @property
    def reported_split(self) -> str:
        """The split whose scores are reported: `validation` where the run names no test data."""
        return "test" if self.config["data"]["test"] or self.fold is not None else "validation"

    @property
    def watched_split(self) -> str:
        """What the evaluations in training were of: `validation`, or the `sample` of it."""
        return "sample" if "sample" in (self.provenance.get("data") or {}) else "validation"

    @cached_property
    def data_set(self) -> str:
        """What tables call the data (`data_set_name`)."""
        return data_set_name(self.config["data"], self.name_parts)

    @cached_property
    def sweep(self) -> Path | None:
        """The folder of the sweep this run is a trial of (`<sweep>/trials/<number>/seed<seed>`)."""
        trial = self.path.absolute().parent
        is_trial = trial.name.isdecimal() and trial.parent.name == "trials"
        return trial.parent.parent if is_trial and (trial.parent.parent / "sweep.yaml").is_file() else None

    @property
    def chosen_by(self) -> str:
        """The score that chose the checkpoint."""
        return str((self.result or {}).get("monitor") or self.config["trainer"]["monitor"] or self.monitor)

    @property
    def monitor(self) -> str:
        """The score that chose the checkpoint; where that was one to minimise, the task's first score."""
        scores = self.scores("validation") or self.scores("test")
        monitor = (self.result or {}).get("monitor")
        if monitor in scores and not self.score_named(monitor).smaller_is_better:
            return str(monitor)
        return self.known_scores[0].name if self.known_scores else next(iter(scores), "")

    @cached_property
    def known_scores(self) -> Sequence[Score]:
        """What its metric says of its scores, or what the run recorded of them; empty where neither is known."""
        if self.metric is not None:
            return self.metric.scores
        return from_record(((self.result or {}).get("metric") or {}).get("scores") or [])

    def score_named(self, name: str) -> Score:
        """Name in a paper, direction and range of a score; of an unknown metric, by the direction of its name."""
        with suppress(UserError):  # a score of another version
            return score_named(self.known_scores, name)
        return Score(name, name.replace("_", " "), smaller_is_better=smaller_is_better(name, None))

    def scores(self, split: str) -> dict[str, float]:
        """The scores of `validation` or `test` in the result, empty where there are none."""
        return ((self.result or {}).get("metrics") or {}).get(split) or {}

    def fingerprint(self, split: str) -> tuple[str, int] | None:
        """sha256 and number of examples of a split: equal for equal examples. None where the run has no such split."""
        data = (self.provenance.get("data") or {}).get(split)
        if data is None:
            return None
        drawn = data.get("drawn")  # which rows of the file, where it is not all
        digest = hashlib.sha256(f"{data['sha256']} {drawn}".encode()).hexdigest() if drawn else data["sha256"]
        return digest, data["examples"]

    @cached_property
    def metric(self) -> BaseMetric | None:
        """The metric of its predictions; None where there are none, or where this version lacks the metric."""
        for split in self.splits:
            with suppress(pa.ArrowException, OSError, KeyError, ValueError, UserError):
                schema = pq.read_schema(self.path / "predictions" / f"{split}.parquet")
                return metric_of(json.loads(schema.metadata[KEY]), own_files=False)
        return None

    @property
    def evaluated_examples(self) -> tuple[str, str] | None:
        """Split and sha256 of the examples that the reported scores are of; None where the run recorded none."""
        split = self.reported_split
        data = (self.provenance.get("data") or {}).get(split)
        if self.fold is not None and data is not None:  # all folds together are the file
            return split, data["sha256"]
        fingerprint = self.fingerprint(split)
        return None if fingerprint is None else (split, fingerprint[0])

    @cached_property
    def files(self) -> dict[str, str]:
        """Relative path -> sha256 of each predictions file, as the result tells them; empty for an older run."""
        return (self.result or {}).get("files") or {}

    @property
    def splits(self) -> list[str]:
        """The predictions files there are, without suffix: `test`, `validation`, `validation-00000217`, ..."""
        return sorted(path.stem for path in (self.path / "predictions").glob("*.parquet"))

    def predictions(self, split: str) -> pa.Table:
        """The predictions of a split, checked against their hash where the run recorded one.

        Raises UserError when the file is missing, is not the one the run wrote, or cannot be read.
        """
        table = self.small_tables.get(split)
        if table is None:
            table = self._read_predictions(split)
            if table.nbytes <= SMALL_BYTES:
                self.small_tables[split] = table
        return table

    def _read_predictions(self, split: str) -> pa.Table:
        name = f"predictions/{split}.parquet"
        path = self.path / name
        if not path.is_file():
            held = f"it has those of {', '.join(self.splits)}" if self.splits else "it has none"
            raise UserError(
                f"The run {self.path} has no predictions of '{split}' ({held}); "
                "`research evaluate` writes those of a finished run."
            )
        content = path.read_bytes()
        if name in self.files and hashlib.sha256(content).hexdigest() != self.files[name]:
            raise ChangedRun(
                f"{path} is not the file the run wrote: its sha256 differs from the one in result.json. "
                "Restore it, or take the run out of the report."
            )
        try:
            return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)  # of small files the fastest
        except pa.ArrowInvalid as error:
            raise ChangedRun(f"{path} is not an intact Parquet file: {error}.") from None

    @cached_property
    def evaluations(self) -> list[str]:
        """The split of each evaluation after training (`research evaluate`), as `evaluations.jsonl` has them."""
        path = self.path / "evaluations.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            return [str(row["split"]) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: it is not one JSON object with `split` a line.") from None

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: `step` and named scalars."""
        return Run(self.path).metrics()


def score_of(records: Sequence[Record], name: str) -> Score:
    """What the first of the records that knows its metric says of a score."""
    return next((record for record in records if record.known_scores), records[0]).score_named(name)


def read_records(paths: Sequence[str | Path]) -> list[Record]:
    """The records of run folders, or of folders that hold them at any depth, each once, in the order of the paths.

    Raises UserError where a path does not exist or holds no run, and for a file that is not what it should be.
    """
    found: dict[Path, Record] = {}
    for given in map(Path, paths):
        if not given.is_dir():
            raise UserError(f"There is no folder {given}; give run folders, or folders that hold them.")
        folders = list(run_folders(given))
        if not folders:
            raise UserError(f"{given} holds no run folder (one with a config.yaml that training wrote).")
        for folder in folders:
            if folder.resolve() not in found:
                found[folder.resolve()] = read_record(folder)
    if not found:
        raise UserError("No runs were given; name run folders, or folders that hold them.")
    return with_distinct_names(list(found.values()))


def with_distinct_names(records: Sequence[Record]) -> list[Record]:
    """The records, with names of data sets that differ where the evaluated examples do.

    Two test files in one folder would share the folder's name; they are called `folder/file`. Names that no part of the
    path tells apart, and names given by `data.title`, stay as they are.
    """
    named = list(records)
    for name in {record.data_set for record in records}:
        places = [i for i, record in enumerate(records) if record.data_set == name]
        examples = {records[i].evaluated_examples for i in places} - {None}
        splits = [split for split, _ in filter(None, examples)]
        for parts in range(2, MOST_NAME_PARTS) if len(set(splits)) < len(splits) else ():
            longer = [replace(records[i], name_parts=parts) for i in places]
            named_examples = {(each.data_set, each.evaluated_examples) for each in longer if each.evaluated_examples}
            if len(named_examples) == len({data_set for data_set, _ in named_examples}):
                for i, each in zip(places, longer, strict=True):
                    named[i] = each
                break
    return named


def run_folders(folder: Path) -> Iterator[Path]:
    """Run folders in and below a folder, sorted; what lies inside a run is not searched, a real path only once."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder above would never end
            folders.clear()
            continue
        seen.add(real)
        if "config.yaml" in files:
            folders.clear()
            yield Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def read_record(folder: Path) -> Record:
    """The record of one run folder."""
    result, provenance, outcome = (read_json(folder / f"{name}.json") for name in ("result", "provenance", "outcome"))
    return Record(folder, read_config(folder), result, provenance or {}, outcome)


def status_counts(records: Iterable[Record]) -> dict[str, int]:
    """How many records are finished, unfinished, pruned and failed; only what occurs."""
    states = [record.status for record in records]
    return {state: states.count(state) for state in ("finished", "unfinished", "pruned", "failed") if state in states}
