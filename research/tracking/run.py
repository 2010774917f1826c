"""The run folder: training writes it, everything else reads it and nothing else.

    config.yaml provenance.json metrics.jsonl result.json model/ checkpoints/ predictions/ wandb/

Each file is written under a temporary name and renamed, so a half-written one is never taken for an intact one. A
folder is a run's when it has a config.yaml and, from training, a lock file or provenance.json; any other that is not
empty is refused, and in a run's own folder only files of the names below are ever removed.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from research.common.errors import UserError
from research.common.files import read_json, remove_temporaries, set_aside, write_atomically
from research.config.length import KEYS as LENGTH
from research.config.length import length_of, why_not_longer
from research.config.load import from_dict
from research.config.schema import Config
from research.config.tree import differences, result_keys, to_dict
from research.tracking.lock import FolderLock

log = logging.getLogger("research")
MOST_BRACKETS = 10_000  # of a config.yaml; the YAML reader overflows its stack below as many nested ones
RECORDS = re.compile(r"(config\.yaml|metrics\.jsonl|(provenance|result|outcome|cost|splits)\.json)")  # own files
OWN_FILES = {"": RECORDS, "checkpoints": re.compile(r"step-\d{8,}"), "predictions": re.compile(r".+\.parquet"),
             "wandb": re.compile(r"run_id")}  # by folder  # fmt: skip


class Run:
    """One run folder, opened for training by rank zero or for reading by anyone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.model = self.path / "model"
        self.is_continued = False  # opened to be made longer: it has the result of the shorter run
        self.lock = FolderLock(self.path)
        self._metrics: IO[str] | None = None

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """An existing run. Raises UserError where there is none."""
        run = cls(path)
        if not (run.path / "config.yaml").is_file():
            raise UserError(f"{path} is not a run folder: it has no config.yaml.")
        return run

    @classmethod
    def open(cls, config: Config) -> Run:
        """Open the experiment's folder for training: a new one, or the same experiment's to resume.

        Raises UserError when it holds another experiment, is in use, or cannot be written.
        """
        run = cls(str(config.run_dir))
        run._refuse_own_inputs(config)
        try:
            run._refuse_foreign_folder()
            for folder in (run.path, run.checkpoints, run.predictions):
                folder.mkdir(parents=True, exist_ok=True)
            run.lock.take()
        except OSError as error:
            raise UserError(f"The run folder {run.path} cannot be written: {error.strerror or error}.") from None
        try:
            run.refuse_another_experiment(to_dict(config))
            for part, names in OWN_FILES.items():
                remove_temporaries(run.path / part, names)
            run._set_damaged_records_aside()
            if run.result is None:
                (run.path / "outcome.json").unlink(missing_ok=True)
                run.write_config(config)
            else:
                run.is_continued = length_of(to_dict(run.config)) != length_of(to_dict(config))
                before = run.predictions / "validation.parquet"
                if run.is_continued and before.is_file() and not run.best_predictions.is_file():
                    shutil.copy(before, run.best_predictions)
        except BaseException:
            run.close()
            raise
        return run

    def write_config(self, config: Config) -> None:
        """Write config.yaml; that of a finished run stays until the result of a longer one is there."""
        with write_atomically(self.path / "config.yaml") as temporary:
            OmegaConf.save(OmegaConf.create(to_dict(config)), temporary)

    @property
    def best_predictions(self) -> Path:
        """The predictions of the best evaluation; a finished run's stay until the longer one ends."""
        return self.predictions / ("validation-continued.parquet" if self.is_continued else "validation.parquet")

    @property
    def config(self) -> Config:
        """The resolved config. Raises UserError for a damaged file, and for code it names and this command does not."""
        path = self.path / "config.yaml"
        try:
            return from_dict(self.stored_config, str(path))
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:300]}") from None

    @property
    def stored_config(self) -> dict[str, Any]:
        """What config.yaml holds, as plain values. Raises UserError for a damaged file."""
        path = self.path / "config.yaml"
        try:
            text = path.read_text(encoding="utf-8")
            if text.count("[") + text.count("{") > MOST_BRACKETS:
                raise ValueError("it is nested too deeply")
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            if not isinstance(content, dict) or not content.get("task"):
                raise UserError(f"{path} is damaged: it names no task.")
            return content  # type: ignore[return-value]
        except (OmegaConfBaseException, YAMLError, OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:300]}") from None

    @property
    def result(self) -> dict[str, Any] | None:
        """The final record, None while the run is unfinished. Raises UserError for a damaged one."""
        return read_json(self.path / "result.json")

    @property
    def outcome(self) -> dict[str, Any] | None:
        """How a run without a result ended, pruned or failed; None while it is running."""
        return read_json(self.path / "outcome.json")

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the run came from; empty before its first attempt. Raises UserError for a damaged file."""
        return read_json(self.path / "provenance.json") or {}

    @property
    def parts(self) -> dict[str, Path]:
        """The runs of the tasks of a run of several, by name."""
        return {path.parent.name: path.parent for path in sorted((self.path / "tasks").glob("*/config.yaml"))}

    def _refuse_own_inputs(self, config: Config) -> None:
        """Raise UserError for an experiment that reads its model or data from the folder it writes."""
        own = self.path.resolve()
        named = {"model.name": config.model.name, "data.name": config.data.name}
        named |= {f"data.{split}": getattr(config.data, split) for split in ("train", "validation", "test")}
        for key, value in named.items():
            if value and Path(value).exists() and Path(value).resolve().is_relative_to(own):
                raise UserError(f"{key}={value} lies in run_dir={self.path}, which training writes; choose another.")

    def _refuse_foreign_folder(self) -> None:
        """Raise UserError for a folder that holds something and was not made by training."""
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        if "config.yaml" in names and names & {".lock", "provenance.json"}:
            return
        begun = {".lock", *(folder.name for folder in (self.checkpoints, self.predictions) if _is_empty(folder))}
        foreign = sorted(name for name in names - begun if not name.startswith((".config.yaml.", ".nfs")))
        if foreign:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise UserError(
                f"run_dir={self.path} is not empty and no run folder (it holds {shown}): training would write among "
                "those files. Choose a new folder."
            )

    def _set_damaged_records_aside(self) -> None:
        """Rename a damaged provenance.json, which this attempt writes again, and say so."""
        try:
            _ = self.provenance
        except UserError as error:
            kept = set_aside(self.path / "provenance.json")
            log.warning("%s It is kept as %s; what it said of earlier attempts is missing.", error, kept.name)

    def refuse_another_experiment(self, new: dict[str, Any]) -> None:
        """Raise UserError where the folder holds an experiment whose numbers another config decides."""
        if not (self.path / "config.yaml").is_file():
            return
        if not (self.path / "provenance.json").is_file() and _is_empty(self.checkpoints):
            return  # no attempt got as far as training: nothing is lost
        old = to_dict(self.config)
        if new["trainer"]["precision"] == "auto":  # of this run, what it began with
            new = {**new, "trainer": {**new["trainer"], "precision": old["trainer"]["precision"]}}
        changed = differences(result_keys(old), result_keys(new))
        if changed and all(line.startswith(LENGTH) for line in changed):
            reason = why_not_longer(old, new)
            if reason is None:
                return
            raise UserError(
                f"The run {self.path} cannot be continued ({'; '.join(changed)}): {reason}. Another run_dir=... "
                "begins a new one."
            )
        if changed:
            raise UserError(
                f"The run folder {self.path} holds another experiment; it differs in "
                f"{'; '.join(changed)} (there -> here). Choose another folder with run_dir=..., or remove that one."
            )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Append a row to metrics.jsonl."""
        self.lock.refuse_if_taken_over()
        path = self.path / "metrics.jsonl"
        try:
            if self._metrics is None:
                self._metrics = open(path, "a", encoding="utf-8")  # noqa: SIM115
            self._metrics.write(json.dumps({"step": step, **scalars}) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise UserError(f"{path} could not be written: {error.strerror or error}.") from error

    def metrics(self) -> list[dict[str, Any]]:
        """All intact rows of metrics.jsonl; damaged lines are counted in a warning, a last one cut short is not."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
        rows = [row for line in lines if (row := _metrics_row(line)) is not None]
        if len(rows) < len(lines):
            log.warning("%s has %s damaged lines: they are passed over.", path, len(lines) - len(rows))
        return rows

    def rewind(self, step: int) -> None:
        """Drop the rows that training from `step` on will write again: later steps, and the evaluation of this one."""
        kept = [
            row
            for row in self.metrics()
            if row["step"] < step or (row["step"] == step and any(key.startswith("train/") for key in row))
        ]
        with write_atomically(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def close(self) -> None:
        if self._metrics is not None:
            with suppress(OSError):  # what could not be written has been reported
                self._metrics.close()
        self._metrics = None
        self.lock.release()


def _metrics_row(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None unless it is an object with a step and numbers."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and type(row.get("step")) is int
    return row if is_row and all(isinstance(value, int | float) for value in row.values()) else None


def _is_empty(folder: Path) -> bool:
    """Whether a folder is empty; temporary files count for nothing."""
    return not folder.is_dir() or all(path.name.endswith(".tmp") for path in folder.iterdir())
