"""Self-training: each round learns the unlabelled texts with the labels that the round before gave them.

Round 0 learns the labelled texts alone; each later one trains from the pretrained model with `methods.pseudo_labels` on
the predictions of the round before. Each round is an ordinary run; a finished one is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from research.common.errors import UserError
from research.common.files import write_json
from research.config.load import load_config
from research.config.schema import Config
from research.inference.finished_run import finished_result
from research.inference.predict import predict
from research.tracking.run import Run
from research.training.chain import finished

METHOD = "pseudo_labels"
PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Round:
    run: Run
    pseudo_labels: int  # texts that it learned with the labels of the round before
    unlabelled: int


def self_train(experiment: Path, overrides: Sequence[str], output: Path, rounds: int) -> list[Round]:
    """All rounds. Raises UserError without unlabelled texts or the method, and Stopped where a signal ends a round."""
    texts = unlabelled_texts(experiment, overrides)
    found: list[Round] = []
    for number in range(rounds + 1):
        folder = output / f"round{number}"
        before = output / f"round{number - 1}" / PREDICTIONS
        config = round_config(experiment, [*overrides, f"run_dir={folder / 'run'}"], before if number else None)
        threshold = config.methods[METHOD].threshold if number else 0.0
        run = finished(config, f"round {number} of {rounds}")
        confidence = confidences(before) if number else []
        found.append(Round(run, sum(each >= threshold for each in confidence), len(confidence)))
        if number < rounds and not (folder / PREDICTIONS).is_file():
            predict(run, texts, str(folder / PREDICTIONS))
    write_json(
        output / "self_training.json",
        [{"run": str(each.run.path), "pseudo_labels": each.pseudo_labels, "unlabelled": each.unlabelled,
          "metrics": finished_result(each.run)["metrics"]} for each in found],
    )  # fmt: skip
    return found


def round_config(experiment: Path, overrides: Sequence[str], predictions: Path | None) -> Config:
    """The experiment of a round; the first is without the method and the unlabelled texts."""
    if predictions is None:
        return load_config(experiment, [*overrides, "data.unlabelled=null", f"methods.{METHOD}=false"])
    return load_config(experiment, [*overrides, f"methods.{METHOD}.file={predictions}"])


def unlabelled_texts(experiment: Path, overrides: Sequence[str]) -> str:
    """Their file."""
    config = load_config(experiment, overrides)
    if METHOD not in config.methods or config.data.unlabelled is None:
        raise UserError(f"{experiment}: self-training needs data.unlabelled and methods.{METHOD}: {{threshold: 0.95}}.")
    if not Path(config.data.unlabelled).is_file():
        raise UserError(f"data.unlabelled={config.data.unlabelled} is no file, which self-training predicts; name one.")
    return config.data.unlabelled


def confidences(predictions: Path) -> list[float]:
    """The probability of each predicted label."""
    rows = pq.read_table(predictions, columns=["probabilities"]).column("probabilities").to_pylist()
    return [max(row) for row in rows]


def table_of(rounds: Sequence[Round]) -> str:
    """The scores of each round, in Markdown."""
    main = str(finished_result(rounds[0].run)["monitor"])
    lines = [f"| round | pseudo-labels | validation {main} | test {main} |", "|---|---|---|---|"]
    for number, each in enumerate(rounds):
        metrics = finished_result(each.run)["metrics"]
        shown = [f"{metrics[split][main]:.4f}" if metrics.get(split) else "–" for split in ("validation", "test")]
        learned = f"{each.pseudo_labels} of {each.unlabelled}" if number else "–"
        lines.append(f"| {number} | {learned} | {' | '.join(shown)} |")
    return "\n".join(lines)
