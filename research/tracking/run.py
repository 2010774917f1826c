"""The run folder: training writes it, everything else reads it and nothing else.

    config.yaml provenance.json metrics.jsonl result.json model/ checkpoints/ predictions/ wandb/

Each file is written under a temporary name and renamed, so a half-written one is never taken for whole.
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from research.cluster import slurm
from research.common.errors import InUse, UserError
from research.common.files import written_whole
from research.config.schema import Config, differences, from_dict, result_keys, to_dict

log = logging.getLogger("research")
LOOKS, LOOK_SECONDS = 30, 0.5  # a file server may show a new file late


class Run:
    """One run folder, opened for training by rank zero or for reading by anyone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.model = self.path / "model"
        self.holder: str | None = None  # this process, as it stands in the lock file
        self._lock: IO[str] | None = None
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
        try:
            for folder in (run.path, run.checkpoints, run.predictions):
                folder.mkdir(parents=True, exist_ok=True)
            run._take_lock()
        except OSError as error:
            raise UserError(f"The run folder {run.path} cannot be written: {error.strerror or error}.") from None
        try:
            run._refuse_another_experiment(to_dict(config))
            for leftover in run.path.rglob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            if run.result is None:
                (run.path / "outcome.json").unlink(missing_ok=True)
                with written_whole(run.path / "config.yaml") as temporary:
                    OmegaConf.save(OmegaConf.create(to_dict(config)), temporary)
        except BaseException:
            run.close()
            raise
        return run

    @property
    def config(self) -> Config:
        content = OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"), resolve=False)
        return from_dict(content)  # type: ignore[arg-type]

    @property
    def result(self) -> dict[str, Any] | None:
        """The final record, None while the run is unfinished."""
        return self._read("result.json")

    @property
    def outcome(self) -> dict[str, Any] | None:
        """How a run without a result ended, pruned or failed; None while it goes on."""
        return self._read("outcome.json")

    @property
    def provenance(self) -> dict[str, Any]:
        return self._read("provenance.json") or {}

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _take_lock(self) -> None:
        path = self.path / ".lock"
        self._lock = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held while the run lives
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            if not slurm.is_superseded(holder):
                raise InUse(f"The run folder {self.path} is in use by {holder}; wait for it or stop it.") from None
            log.warning(
                "The run folder %s was held by %s. SLURM has lost that attempt; if it still runs, it ends by itself.",
                self.path, holder,
            )  # fmt: skip
            self._lock.close()
            path.unlink(missing_ok=True)  # its holder finds another name there, and leaves
            self._take_lock()
            return
        self.holder = f"{slurm.holder()}, since {time.strftime('%F %T')}"
        self._lock.truncate(0)
        self._lock.write(self.holder)
        self._lock.flush()

    def refuse_if_taken_over(self) -> None:
        """Raise InUse when another attempt has this folder: an orphan on a lost node must not write into it."""
        if self.holder is not None and (by := self._held_by()) != self.holder:
            by = by or "nobody: its lock file is gone"
            raise InUse(f"The run folder {self.path} is no longer this process's own but held by {by}.")

    def refuse_another_folder(self, holder: str | None) -> None:
        """Raise UserError unless this rank sees the folder that rank 0 holds."""
        for _ in range(LOOKS):
            if self._held_by() == holder:
                return
            time.sleep(LOOK_SECONDS)
        raise UserError(
            f"On {slurm.node_name()} the run folder {self.path} is not the one that rank 0 sees; set run_dir to a "
            "folder on a file system that all nodes share."
        )

    def _held_by(self) -> str | None:
        try:  # opened anew each time: over NFS nothing else is sure to be fresh
            return (self.path / ".lock").read_text(encoding="utf-8")
        except OSError:
            return None

    def _refuse_another_experiment(self, new: dict[str, Any]) -> None:
        if not (self.path / "config.yaml").is_file() or not self.provenance:
            return  # no attempt got as far as training: nothing is lost
        old = to_dict(self.config)
        changed = differences(result_keys(old), result_keys(new))
        if changed:
            raise UserError(
                f"The run folder {self.path} holds another experiment; it differs in "
                f"{'; '.join(changed)} (there -> here). Choose another folder with run_dir=..., or remove that one."
            )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Append a row to metrics.jsonl."""
        self.refuse_if_taken_over()
        path = self.path / "metrics.jsonl"
        try:
            if self._metrics is None:
                self._metrics = open(path, "a", encoding="utf-8")  # noqa: SIM115
            self._metrics.write(json.dumps({"step": step, **scalars}) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise UserError(f"{path} could not be written: {error.strerror or error}.") from error

    def metrics(self) -> list[dict[str, Any]]:
        """All whole rows of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rewind(self, step: int) -> None:
        """Drop the rows that training from `step` on will write again: later steps, and the evaluation of this one."""
        kept = [
            row
            for row in self.metrics()
            if row["step"] < step or (row["step"] == step and any(key.startswith("train/") for key in row))
        ]
        with written_whole(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def close(self) -> None:
        for file in (self._metrics, self._lock):
            if file is not None:
                with suppress(OSError):  # what could not be written has been told
                    file.close()
        self._metrics = self._lock = None
