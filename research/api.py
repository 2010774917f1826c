"""The harness from Python: `import research; run = research.train("my.yaml", seed=1, **{"optim.lr": 3e-5})`.

Torch and the other libraries are imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from research.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from research.config.schema import Config
    from research.report.compare import ComparedRuns
    from research.training.datamodule import TaskData
    from research.training.module import TaskModule


class FinishedRun:
    """A finished run: its scores, its predictions, its metrics by step, and its model for new text."""

    def __init__(self, path: str | Path, trust_remote_code: bool = False) -> None:
        """Raises UserError for a folder without a finished run."""
        from research.tracking.run import Run

        self._run = Run.read(path)
        if self._run.result is None:
            raise UserError(f"The run {path} is not finished; train it to its end first.")
        self.path = self._run.path
        self.trust_remote_code = trust_remote_code  # run Python code that the run's model folder brings along
        self.result: dict[str, Any] = self._run.result

    def __repr__(self) -> str:
        shown = {split: {name: round(v, 4) for name, v in self.scores[split].items() if "/" not in name}
                 for split in self.scores}  # fmt: skip
        return f"FinishedRun({str(self.path)!r}, {shown})"

    @property
    def config(self) -> Config:
        return self._run.config

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the run came from: each attempt at it, its code, data and machines."""
        return self._run.provenance

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """By split, the scores of the best checkpoint: `run.scores["test"]["f1"]`, fractions between 0 and 1."""
        return {split: scores for split, scores in self.result["metrics"].items() if scores}

    @property
    def tasks(self) -> dict[str, FinishedRun]:
        """Of a run of several tasks, the run of each by name; of others none."""
        return {name: FinishedRun(path, self.trust_remote_code) for name, path in self._run.parts.items()}

    def predictions(self, split: str = "test") -> pd.DataFrame:
        """One row per example of a split: id, gold, prediction and the task's own columns."""
        import pyarrow.parquet as pq

        path = self._run.predictions / f"{split}.parquet"
        if not path.is_file():
            there = ", ".join(sorted(p.stem for p in self._run.predictions.glob("*.parquet"))) or "none"
            raise UserError(f"The run {self.path} has no predictions of '{split}'; it has {there}.")
        return pq.read_table(path).to_pandas()

    def metrics(self) -> pd.DataFrame:
        """One row per logged step, one column per metric."""
        import pandas as pd

        return pd.DataFrame(self._run.metrics())

    def evaluate(self, split: str = "test", *, file: str | Path | None = None) -> dict[str, float]:
        """Score a split again with the saved model, or the labelled rows of a file."""
        prepare_process()
        from research.inference.evaluate import evaluate, evaluate_file
        from research.inference.finished_run import refuse_prediction

        if file is None:
            return evaluate(self._run, split, self.trust_remote_code)
        refuse_prediction(self._run, str(file))
        return evaluate_file(self._run, str(file), trust_remote_code=self.trust_remote_code)[1]

    def predict(self, inputs: Any) -> pd.DataFrame:
        """Label new text: a list of texts, rows with the task's columns as `train` takes them, or the path of a file.

        The model is loaded each time.
        """
        prepare_process()
        import pyarrow.parquet as pq

        from research.data.in_memory import json_lines
        from research.inference.predict import predict

        with TemporaryDirectory() as folder:
            output, source, texts = Path(folder) / "predictions.parquet", None, []
            if isinstance(inputs, str | Path):
                source = str(inputs)
                if not Path(source).exists():
                    raise UserError(f"{source!r} is no file; give texts as a list: predict([{source!r}]).")
            elif not hasattr(inputs, "columns") and any(isinstance(each, str) for each in inputs):
                texts = list(inputs)
                if other := next((each for each in texts if not isinstance(each, str)), None):
                    raise UserError(
                        f"Texts and {other!r} do not go together; give texts alone, or a dict for each row."
                    )
            else:
                source = str(Path(folder) / "input.jsonl")
                Path(source).write_bytes(json_lines("input", inputs))
            predict(self._run, source, str(output), texts=texts, trust_remote_code=self.trust_remote_code)
            return pq.read_table(output).to_pandas()

    def index(self, documents: Any, folder: str | Path, *, kind: str = "exact", size: int | None = None) -> None:
        """Write an index of documents, for `search`: a file with the column `document`, or rows as `train` takes them.

        Of a run of task matching; `kind` is exact or hnsw, `size` one of the run's `task.dimensions`.
        """
        prepare_process()
        from research.data.in_memory import json_lines
        from research.retrieval.commands import index_corpus

        with TemporaryDirectory() as temporary:
            source = Path(temporary) / "corpus.jsonl"
            if not isinstance(documents, str | Path):
                rows = [{"document": each} if isinstance(each, str) else each for each in documents]
                source.write_bytes(json_lines("corpus", rows))
            corpus = str(documents if isinstance(documents, str | Path) else source)
            index_corpus(self._run, corpus, str(folder), kind, size=size, trust_remote_code=self.trust_remote_code)

    def search(self, folder: str | Path, queries: Sequence[str], top: int = 10) -> list[list[dict[str, Any]]]:
        """For each query the best documents of an index, the best first: `score`, `id`, `document` and more columns."""
        prepare_process()
        from research.retrieval.encoder import TextEncoder
        from research.retrieval.index import Index, search

        index = Index(Path(folder))
        index.refuse_another_model(self._run)
        return search(TextEncoder(self._run, self.trust_remote_code), index, list(queries), top)


def train(experiment: str | Path, **values: Any) -> FinishedRun:
    """Train an experiment, a YAML file, with other values of some keys; a run that was begun is resumed.

    Dotted keys are given as `**{"optim.lr": 3e-5}`, rows in memory as `data={"train": rows, "validation": 0.1}`: a list
    of dicts, a `datasets.Dataset`, a torch `Dataset` of dicts or a pandas `DataFrame`, here as in `build` and
    `open_data`. Raises UserError for every mistake that `research train` reports, and where the run was stopped before
    its end.
    """
    from research.training.preflight import refuse_wrong_arguments

    config = _configured(experiment, values, "train()")
    refuse_wrong_arguments(config)
    prepare_process()
    from research.training.chain import train_in_ranks

    code = train_in_ranks(config)
    if code != 0:
        raise UserError(f"The run {config.run_dir} was stopped (exit code {code}); call train again to resume it.")
    return FinishedRun(str(config.run_dir), config.model.trust_remote_code)


def _configured(experiment: str | Path, values: Mapping[str, Any], given_by: str) -> Config:
    from research.config.load import load_config
    from research.data.in_memory import with_stored_rows

    prepare_process()
    return load_config(experiment, values=with_stored_rows(values), given_by=given_by)


def build(experiment: str | Path, **values: Any) -> TaskModule:
    """The module and, as `module.data`, the datamodule of an experiment, for a `lightning.Trainer` of one's own.

    `trainer.fit(module, datamodule=module.data)` makes the steps of `research train` and logs `train/loss` and the
    scores, as `validation/accuracy`; there is no run folder. Devices and precision are the trainer's, and the embedding
    is a plain one, as with `trainer.sparse_embedding=false`.
    """
    config = _configured(experiment, values, "build()")
    config.trainer.sparse_embedding = False  # Lightning's checkpoints would lack what rows owe
    prepare_process()
    from research.training.build import build as build_module

    module = build_module(config)
    module.plain = True
    return module


def open_data(experiment: str | Path, **values: Any) -> TaskData:
    """The datamodule of an experiment, for a LightningModule of one's own: each batch of training is a `StepItem`, one
    optimiser step in padded micro-batches, and an epoch of the trainer is one of the step plan."""
    config = _configured(experiment, values, "open_data()")
    prepare_process()
    from research.training.build import open_data as open_task_data

    return open_task_data(config)


def load(run: str | Path, *, trust_remote_code: bool = False) -> FinishedRun:
    """A finished run from its folder.

    `trust_remote_code` lets it run Python code that its model folder brings along, and components of the user's own
    that its config names, as the commands' --trust-remote-code does: read the code first.
    """
    return FinishedRun(run, trust_remote_code)


def compare(runs: Any, against: Any, *, metric: str | None = None, split: str | None = None) -> ComparedRuns:
    """Is the system of `runs` better than those of `against`? Both are run folders, FinishedRuns, or lists of them."""
    from research.report.compare import compare_runs
    from research.report.records import read_records

    return compare_runs(read_records(_folders(runs)), read_records(_folders(against)), metric=metric, split=split)


def write_report(runs: Any, output: str | Path, *, by: Sequence[str] | None = None, metric: str | None = None) -> Path:
    """Write tables, figures, tests and the checklist of runs to a folder; returns it."""
    from research.report.build import build

    build([str(folder) for folder in _folders(runs)], Path(output), by=by, metric=metric)
    return Path(output)


def search(sweep: str | Path, *overrides: str) -> pd.DataFrame:
    """Be a worker of a search until it ends; returns its trials. Overrides are as on the command line."""
    import pandas as pd

    prepare_process()
    from research.sweep.space import read_sweep
    from research.sweep.worker import work

    asked = read_sweep(sweep, overrides)
    if work(asked) != 0:
        raise UserError(f"The search {asked.name} was stopped; call search again to resume it.")
    return pd.read_parquet(Path(str(asked.folder)) / "trials.parquet")


def _folders(runs: Any) -> list[Path]:
    given = [runs] if isinstance(runs, str | Path | FinishedRun) else list(runs)
    return [each.path if isinstance(each, FinishedRun) else Path(each) for each in given]


def prepare_process() -> None:
    """Set what libraries read when they are imported."""
    from research.common.process import prepare_process

    prepare_process()
