"""Mirrors a run to Weights & Biases, and to the loggers that are asked for.

metrics.jsonl, result.json and provenance.json are the truth: nothing here ever stops training or holds it up for
long. What W&B could not take (no network, a wrong key, a full disk) `research sync` sends later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from research.common.files import write_json
from research.common.text import one_line
from research.config.schema import Config
from research.config.tree import to_dict
from research.tracking.mirrors import Mirrors
from research.tracking.run import Run
from research.tracking.wandb_files import FAILURES, OPEN, end_session, environment, logs_of, read_log, run_id, within

log = logging.getLogger("research")
FLUSH_SECONDS = 1.0  # what a `kill -9` may lose; W&B's own default is 15
INIT_SECONDS, FINISH_SECONDS = 30.0, 120.0
TABLE_ROWS = 1000


class Tracker:
    """One run on W&B, for rank zero: the same W&B run each time the run folder is resumed."""

    def __init__(self, run: Run, config: Config, content: dict[str, Any] | None = None) -> None:
        """`content`: the config that W&B receives, where that is not `config` itself."""
        self.run, self.options = run, config.wandb
        self.first_step, self.last_step = 0, -1  # of the rows that this attempt has given to W&B
        self.went_offline = False  # asked for W&B's server, and recorded here alone
        self._wandb: Any = None
        content = to_dict(config) if content is None else content
        self._mirrors = Mirrors(run, config.loggers, content)
        if self.options.mode != "disabled":
            with self._harmless("could not start"):
                self._wandb = self._start(content)

    @property
    def loggers(self) -> list[Any]:
        """Lightning's loggers, for a Trainer to use beside us.

        Those of `loggers` are not among them: the Trainer would let their errors (a full disk) end the training.
        """
        from lightning.pytorch.loggers import WandbLogger

        return [WandbLogger(experiment=self._wandb, save_dir=self.run.path)] if self._wandb is not None else []

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row; several of one step are merged, the last value of a key wins."""
        if self._wandb is not None:
            with self._harmless("stopped recording"):
                # A resumed W&B run takes no row for a step it has; the evaluation of that step must not be lost.
                self.last_step = max(step, self.first_step)
                self._wandb.log({**scalars, "trainer/global_step": step}, step=self.last_step)
        self._mirrors.log(step, scalars)

    def finish(
        self, summary: Mapping[str, Any], provenance: Mapping[str, Any], predictions: Path | None, exit_code: int = 0
    ) -> None:
        """Add the final record and close; waits at most FINISH_SECONDS for the network, then ends wandb's service."""
        wandb_run = self._wandb

        def close() -> None:
            with self._harmless("has no predictions table"):
                if predictions is not None:
                    table = {f"predictions/{predictions.stem}": read_table(predictions)}
                    wandb_run.log(table, step=max(self.first_step, self.last_step))
            with self._harmless("has no final record"):
                self._record(wandb_run, summary, provenance)
            wandb_run.finish(exit_code=exit_code)

        if wandb_run is not None:
            with self._harmless("was not closed in order"), environment(self.run.path, offline=wandb_run.offline):
                self._close(wandb_run, close)
        self._mirrors.finish(summary, exit_code)
        self._wandb = None

    def _start(self, config: dict[str, Any]) -> Any:
        end_session()  # one that other code of this process has begun may be offline
        if self.options.mode == "online":
            try:
                with environment(self.run.path, offline=False):
                    return self._init(config, "online")
            except FAILURES as error:
                said = f"W&B does not answer as it should ({one_line(error)}); this run is recorded offline"
                log.warning("%s. Send it when it is finished: research sync %s", said, self.run.path)
                end_session()
                self.went_offline = True
        with environment(self.run.path, offline=True):
            return self._init(config, "offline")

    def _init(self, config: dict[str, Any], mode: str) -> Any:
        import wandb

        if mode == "online" and wandb.run is None and not wandb.login(prompt=False, verify=True):
            raise RuntimeError("no API key: run `wandb login` once, or set WANDB_API_KEY")
        recorded = logs_of(self.run.path) if mode == "offline" else []
        wandb_run: Any = wandb.init(
            project=self.options.project,
            entity=self.options.entity,
            group=self.options.group,
            name=self.options.name or "/".join(self.run.path.absolute().parts[-2:]),
            tags=self.options.tags,
            job_type="train",
            id=run_id(self.run.path),
            config=config,
            dir=str(self.run.path),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",  # several trials of one process are several runs
            settings=wandb.Settings(
                init_timeout=INIT_SECONDS,
                finish_timeout=0.8 * FINISH_SECONDS,  # its own end is more orderly than ours
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
                console="off",
                silent=True,
                disable_git=True,  # provenance.json has the code and the packages
                x_save_requirements=False,
            ),
        )
        OPEN.add(wandb_run.id)
        self.first_step = max([wandb_run.starting_step, *(part.step + 1 for part in recorded)])
        wandb_run.define_metric("trainer/global_step")
        wandb_run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return wandb_run

    def _record(self, wandb_run: Any, summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Final scores into the summary, provenance into the config and, complete, into a file."""
        wandb_run.summary.update(flatten(summary))
        wandb_run.config.update({"provenance": without_bulk(provenance)}, allow_val_change=True)
        write_json(Path(wandb_run.dir) / "provenance.json", provenance)
        wandb_run.save(f"{wandb_run.dir}/provenance.json", base_path=wandb_run.dir, policy="now")

    def _close(self, wandb_run: Any, close: Callable[[], None]) -> None:
        file, offline = Path(wandb_run.dir).parent / f"run-{wandb_run.id}.wandb", wandb_run.offline
        try:
            within(FINISH_SECONDS, close)
        finally:
            OPEN.discard(wandb_run.id)
            end_session()
        found = read_log(file) if offline else None
        if found and (found.exit_code is None or found.step < self.last_step):
            ends = f"ends at step {found.step} of {self.last_step} (is the disk full?)"
            log.warning("W&B's record of this run %s; `research sync %s` completes it.", ends, self.run.path)

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Turns any error into one warning, after which nothing more is sent."""
        try:
            yield
        except FAILURES as error:
            said = one_line(error)
            log.warning("W&B %s (%s); the run folder has everything, and `research sync %s` sends it.", what, said,
                        self.run.path)  # fmt: skip
            self._wandb = None


def read_table(parquet: Path) -> Any:
    """The first rows of a predictions file as a W&B table; what is not a plain value is written as text."""
    import pyarrow.parquet as pq
    import wandb

    file = pq.ParquetFile(parquet)
    names, batch = file.schema_arrow.names, next(file.iter_batches(TABLE_ROWS), None)
    rows = batch.to_pylist() if batch is not None else []

    def plain(value: Any) -> Any:
        simple = value is None or isinstance(value, str | bool | int | float)
        return value if simple else json.dumps(value, ensure_ascii=False, default=str)

    data: list[Any] = [[plain(row[name]) for name in names] for row in rows]
    return wandb.Table(columns=names, data=data, allow_mixed_types=True)


def without_bulk(content: Any) -> Any:
    """The provenance without its long parts, which W&B would show as a thousand columns."""
    if isinstance(content, list):
        return [without_bulk(each) for each in content]
    if not isinstance(content, Mapping):
        return content
    return {key: without_bulk(value) for key, value in content.items() if key not in ("packages", "uncommitted_diff")}


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"metrics": {"test": {"f1": 0.9}}, "steps": 10} -> {"test/f1": 0.9, "steps": 10}: the names of the history."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        inner = prefix if key == "metrics" and not prefix else f"{prefix}{key}/"
        flat |= flatten(value, inner) if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
