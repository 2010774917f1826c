"""Mirrors a run to Weights & Biases, and to TensorBoard if asked.

metrics.jsonl, result.json and provenance.json are the truth: nothing here ever stops training or holds it up for
long. What W&B could not take (no network, a wrong key, a full disk) `research sync` sends later.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import Config, to_dict
from research.run import Run, write_json, written_whole

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger("research")
FLUSH_SECONDS = 1.0  # what a `kill -9` may lose; W&B's own default is 15
INIT_SECONDS, FINISH_SECONDS = 30.0, 120.0
TABLE_ROWS = 1000
OPEN: set[str] = set()  # ids of the W&B runs of this process
FAILURES = (Exception, SystemExit)  # wandb calls sys.exit when its service process has died


class Tracker:
    """One run on W&B, for rank zero: the same W&B run each time the run folder is resumed."""

    def __init__(self, run: Run, config: Config) -> None:
        self.run, self.options = run, config.wandb
        self.last_step: int | None = None
        self._wandb: Any = None
        self._tensorboard: Any = None
        if self.options.mode != "disabled":
            with self._harmless("could not start"):
                self._wandb = self._start(to_dict(config))
        if self.options.tensorboard:
            with self._harmless("could not start", "TensorBoard"):
                from lightning.pytorch.loggers import TensorBoardLogger

                self._tensorboard = TensorBoardLogger(run.path, name="tensorboard", version="")

    @property
    def loggers(self) -> list[Logger]:
        """What a Lightning Trainer may use beside us.

        TensorBoard's logger is not among them: the Trainer would let its errors (a full disk) end the training.
        """
        from lightning.pytorch.loggers import WandbLogger

        return [WandbLogger(experiment=self._wandb, save_dir=self.run.path)] if self._wandb is not None else []

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row; several of one step are merged, the last value of a key wins."""
        if self._wandb is not None:
            with self._harmless("stopped recording"):
                # A resumed W&B run takes no row for a step it has; the evaluation of that step must not be lost.
                self.last_step = max(step, self._wandb.starting_step)
                self._wandb.log({**scalars, "trainer/global_step": step}, step=self.last_step)
        if self._tensorboard is not None:
            with self._harmless("stopped recording", "TensorBoard"):
                self._tensorboard.log_metrics(dict(scalars), step)

    def finish(
        self, summary: Mapping[str, Any], provenance: Mapping[str, Any], predictions: Path | None, exit_code: int = 0
    ) -> None:
        """Add the final record and close; waits at most FINISH_SECONDS for the network."""
        wandb_run = self._wandb
        if wandb_run is not None:
            with self._harmless("was not closed in order"), environment(self.run.path, offline=wandb_run.offline):
                with self._harmless("has no predictions table"):
                    if predictions is not None:
                        wandb_run.log({f"predictions/{predictions.stem}": read_table(predictions)}, step=self.last_step)
                with self._harmless("has no final record"):
                    self._record(wandb_run, summary, provenance)
                self._close(wandb_run, exit_code)
        if self._tensorboard is not None:
            with self._harmless("was not closed in order", "TensorBoard"):
                self._tensorboard.finalize("success")
        self._wandb = self._tensorboard = None

    def _start(self, config: dict[str, Any]) -> Any:
        if self.options.mode == "online":
            try:
                with environment(self.run.path, offline=False):
                    return self._init(config, "online")
            except FAILURES as error:
                log.warning(
                    "W&B does not answer as it should (%s); this run is recorded offline. Send it when it is finished: "
                    "research sync %s", one_line(error), self.run.path,
                )  # fmt: skip
        with environment(self.run.path, offline=True):
            return self._init(config, "offline")

    def _init(self, config: dict[str, Any], mode: str) -> Any:
        import wandb

        if mode == "online" and not wandb.login(prompt=False, verify=True):
            raise RuntimeError("no API key: run `wandb login` once, or set WANDB_API_KEY")
        folder, options = self.run.path, self.options
        wandb_run: Any = wandb.init(
            project=options.project,
            entity=options.entity,
            group=options.group,
            name=options.name or "/".join(folder.absolute().parts[-2:]),
            tags=options.tags,
            job_type="train",
            id=run_id(folder),
            config=config,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",  # several trials of one process are several runs
            settings=wandb.Settings(
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
                console="off",
                silent=True,
                disable_git=True,  # provenance.json has the code and the packages
                x_save_requirements=False,
            ),
        )
        OPEN.add(wandb_run.id)
        wandb_run.define_metric("trainer/global_step")
        wandb_run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return wandb_run

    def _record(self, wandb_run: Any, summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Final scores into the summary, provenance into the config and, whole, into a file."""
        wandb_run.summary.update(flatten(summary))
        short = {"provenance": {key: value for key, value in provenance.items() if key != "packages"}}
        wandb_run.config.update(short, allow_val_change=True)
        whole = Path(wandb_run.dir) / "provenance.json"
        write_json(whole, provenance)
        wandb_run.save(str(whole), base_path=wandb_run.dir, policy="now")

    def _close(self, wandb_run: Any, exit_code: int) -> None:
        import wandb

        file, offline = Path(wandb_run.dir).parent / f"run-{wandb_run.id}.wandb", wandb_run.offline
        try:
            wandb_run.finish(exit_code=exit_code)
        finally:
            OPEN.discard(wandb_run.id)
            if not OPEN:
                wandb.teardown()  # its service process keeps the folders, address and errors of this run
        found = read_log(file) if offline else None
        if found is not None and (found["exit_code"] is None or found["step"] != self.last_step):
            log.warning(
                "W&B's record of this run ends at step %s of %s (is the disk full?); metrics.jsonl has all, and "
                "`research sync %s` completes it.", found["step"], self.last_step, self.run.path,
            )  # fmt: skip

    @contextmanager
    def _harmless(self, what: str, name: str = "W&B") -> Iterator[None]:
        """Turns any error into one warning, after which that mirror is silent."""
        try:
            yield
        except FAILURES as error:
            remedy = f", and `research sync {self.run.path}` sends it" if name == "W&B" else ""
            log.warning("%s %s (%s); the run folder has everything%s.", name, what, one_line(error), remedy)
            setattr(self, "_wandb" if name == "W&B" else "_tensorboard", None)


@contextmanager
def environment(run_dir: Path, offline: bool) -> Iterator[None]:
    """What only environment variables tell wandb: every file inside the run folder, no look-ups, no chatter.

    Online its settings stay where `wandb login --host` put them.
    """
    folder = run_dir.absolute() / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        "WANDB_DIR": str(run_dir.absolute()),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",  # else even offline it looks up W&B's address
        "WANDB_SILENT": "true",
        **({"WANDB_CONFIG_DIR": str(folder / "config")} if offline else {}),
    }
    before = {key: os.environ[key] for key in own if key in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for key in own:
            os.environ.pop(key, None)
        os.environ.update(before)


def run_id(run_dir: Path) -> str:
    """The W&B id of a run folder, drawn when it is first asked for."""
    path = run_dir / "wandb" / "run_id"
    if not path.is_file():
        with written_whole(path) as temporary:
            temporary.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def read_log(file: Path) -> dict[str, Any] | None:
    """What W&B's own reader finds in a log: run_id, state, step, exit_code, config, summary. None: not readable."""
    from wandb.util import get_core_path

    command = [get_core_path(), "leet", "inspect", "--no-observability", "--summary", "--json"]
    try:
        done = subprocess.run(
            [*command, "--run-file", str(file), str(file.parent.parent)], capture_output=True, text=True, timeout=60
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return {"exit_code": None, "step": None, **found}


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


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"metrics": {"test": {"f1": 0.9}}, "steps": 10} -> {"test/f1": 0.9, "steps": 10}: the names of the history."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix if key == "metrics" and not prefix else f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
