"""`research soup`: one model from the mean of the weights of several runs, chosen on validation data alone.

Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time. Uniform: the mean of all. Greedy: from the best run on, each next one by its validation score is added
where the mean of the weights so far does not become worse on validation.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from safetensors.torch import load_file, save_file
from torch import Tensor

from research.common.console import console
from research.common.errors import UserError
from research.common.files import replace_folder, write_json
from research.config import component
from research.inference.evaluate import scored
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.metrics.score import from_record, score_named
from research.tracking import predictions
from research.tracking.run import Run
from research.training.build import build

WEIGHTS = "model.safetensors"
Kind = Literal["uniform", "greedy"]


@dataclass(frozen=True)
class Soup:
    """The mean of some runs' weights, scored."""

    members: list[str]  # that are in it
    monitor: str
    scores: dict[str, dict[str, float]]  # split -> scores of the soup
    best_member: float  # its validation score


def make_soup(runs: Sequence[Run], output: Path, kind: Kind, trust_remote_code: bool = False) -> Soup:
    """Average, score and write `model/`, `predictions/` and `soup.json` to a new folder.

    The test data are scored once, with the weights that validation chose. Raises UserError for runs that are not
    finished, or of other architectures, labels, data or pretrained weights, or with an adapter that is not merged.
    """
    if len(runs) < 2:
        raise UserError("A soup takes two finished runs or more.")
    if output.exists():
        raise UserError(f"{output} is there already; name a new folder.")
    results = [finished_result(run) for run in runs]
    refuse_other_origins(runs, results)
    if len({json.dumps([run.config.init_seed]) for run in runs}) > 1:
        console.print("The runs' new heads began with other seeds (seed_init): their mean may be a poor head.")
    monitor = results[0]["monitor"]
    score_of = score_named([*from_record(results[0]["metric"]["scores"])], monitor)
    sign = -1.0 if score_of.smaller_is_better else 1.0
    order = sorted(range(len(runs)), key=lambda i: -sign * results[i]["metrics"]["validation"][monitor])
    weights = [load_file(run.model / WEIGHTS) for run in runs]
    refuse_other_weights(runs, weights)
    score = scorer(runs[order[0]], trust_remote_code)
    kept = list(order)
    if kind == "greedy":
        kept, best = order[:1], sign * score("validation", weights[order[0]])[1][monitor]
        for i in order[1:]:
            trial = sign * score("validation", mean([weights[j] for j in (*kept, i)]))[1][monitor]
            if trial >= best:
                kept, best = [*kept, i], trial
    state = mean([weights[i] for i in kept])
    tables: dict[str, pa.Table] = {}
    scores: dict[str, dict[str, float]] = {}
    for split in ("validation", "test") if results[0]["metrics"].get("test") else ("validation",):
        tables[split], scores[split] = score(split, state)
    best_member = results[order[0]]["metrics"]["validation"][monitor]
    found = Soup([str(runs[i].path) for i in kept], monitor, scores, best_member)
    replace_folder(output, lambda folder: _fill(folder, runs[order[0]], state, tables, found, kind))
    return found


def mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of each tensor, computed in float64."""
    return {
        name: (sum((state[name].double() for state in states[1:]), first.double()) / len(states)).to(first.dtype)
        for name, first in states[0].items()
    }


def refuse_other_origins(runs: Sequence[Run], results: Sequence[dict[str, Any]]) -> None:
    """Raise UserError unless all runs are of one task, validation data, labels and pretrained model."""
    for run, result in zip(runs, results, strict=True):
        adapter = run.config.adapter.name
        if not component.load("adapter", adapter).Adapter.merges:
            raise UserError(
                f"The run {run.path} has the adapter {adapter}, whose weights are not in model/; take runs without it."
            )
        if not result["metrics"].get("validation"):
            raise UserError(f"The run {run.path} has no validation scores to choose by.")
        theirs = origin_of(runs[0], results[0])
        for what, own in origin_of(run, result).items():
            first = theirs[what]
            if first != own:
                raise UserError(
                    f"{runs[0].path} and {run.path} differ in their {what} ({first} and {own}), so that the mean of "
                    "their weights would mean nothing; take runs of one experiment."
                )


def origin_of(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """What the members of a soup must share."""
    return {
        "task": result["task"],
        "labels": ", ".join(result["learned"].get("labels", [])),
        "learned values": result["learned"],
        "validation data": run.provenance["data"]["validation"]["sha256"][:12],
        "pretrained model": run.stored_config["model"]["name"],
    }


def refuse_other_weights(runs: Sequence[Run], weights: Sequence[dict[str, Tensor]]) -> None:
    """Raise UserError unless all have tensors of the same names and shapes, head included."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in weights]
    for run, own in zip(runs, shapes, strict=True):
        if own != shapes[0]:
            name = sorted(dict(own.items() ^ shapes[0].items()))[0]
            raise UserError(
                f"{runs[0].path} and {run.path} have other architectures or heads: {name} is "
                f"{shapes[0].get(name, 'missing')} and {own.get(name, 'missing')}."
            )


def scorer(run: Run, trust_remote_code: bool) -> Callable[[str, dict[str, Tensor]], tuple[pa.Table, dict[str, float]]]:
    """A function of a split and weights, which gives predictions and scores."""
    modules: dict[str, Any] = {}

    def score(split: str, state: dict[str, Tensor]) -> tuple[pa.Table, dict[str, float]]:
        if split not in modules:
            config = finished_config(run, trust_remote_code)
            data = task_data(run, config)
            data.tested = split
            data.open(finished_result(run)["learned"], only=split)
            if split == "validation":
                data.use_validation_scores({})
            modules[split] = build(config, data)
        module = modules[split]
        module.backbone.model.load_state_dict(state, strict=False)
        return scored(module)

    return score


def _fill(
    folder: Path, run: Run, state: dict[str, Tensor], tables: dict[str, pa.Table], found: Soup, kind: Kind
) -> None:
    shutil.copytree(run.model, folder / "model")
    save_file(state, folder / "model" / WEIGHTS, metadata={"format": "pt"})
    (folder / "predictions").mkdir()
    for split, table in tables.items():
        predictions.write(table, folder / "predictions" / f"{split}.parquet")
    content = {"kind": kind, "members": found.members, "monitor": found.monitor, "scores": found.scores}
    write_json(folder / "soup.json", content)


def soup_text(found: Soup, runs: int, output: Path) -> str:
    """What came out, for the console."""
    own = found.scores["validation"][found.monitor]
    lines = [f"{len(found.members)} of {runs} runs are in the soup:", *(f"  {name}" for name in found.members)]
    lines.append(
        f"validation {found.monitor} {own:.4f}; best run {found.best_member:.4f} ({own - found.best_member:+.4f})"
    )
    if "test" in found.scores:
        lines.append(f"test {found.monitor} {found.scores['test'][found.monitor]:.4f}")
    return "\n".join([*lines, f"Model: {output / 'model'}"])
