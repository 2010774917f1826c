"""The model card of an exported folder, in the form of the hub: what the run recorded, and what a person must add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from research.metrics import score_labels
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.statistics.summary import pools, summarise
from research.tracking.run import Run

PIPELINES = {
    "classification": "text-classification", "entities": "token-classification", "squad": "question-answering",
    "bleu": "translation", "rouge": "summarization",
}  # fmt: skip
UNKNOWN = "not said; ask who made the model and the data, and write it here"


def model_card(run: Run, base_model: str, format: str, precision: str, licence: str | None) -> str:
    """README.md: metadata, scores with the interval of the monitored one, data, limits. No licence is guessed."""
    result, config = run.result or {}, run.config
    recorded = result.get("metric")
    metric = (recorded or {}).get("name")
    metadata = ModelCardData(
        license=licence,
        base_model=base_model if not Path(base_model).exists() else Path(base_model).name,
        library_name="transformers",
        pipeline_tag=PIPELINES.get(str(metric)),
        metrics=sorted(score_labels(recorded))[:5],
        model_name=run.path.parent.name,
        eval_results=results_of(run, str(metric)),
    )
    data = run.provenance.get("data") or {}
    files = "\n".join(f"| {split} | {about.get('examples', '')} | `{about.get('sha256', '')}` |"
                      for split, about in data.items() if isinstance(about, dict))  # fmt: skip
    return f"""---
{metadata.to_yaml()}
---

# {run.path.parent.name}

{metadata.base_model} fine-tuned for the task `{config.task.name}` (seed {config.seed}, {result.get("steps")} steps),
exported as {format} in {precision}.

## Scores

{scores_table(result)}

{interval_sentence(run)}

## Data

| split | examples | sha256 |
|---|---|---|
{files}

## Limits

- Inputs are read up to {config.data.max_length} tokens at a time.
- The scores hold for text like the test data above; nothing else was measured.

## Labels

{labels_text(result.get("learned") or {})}

## Licence

{licence or UNKNOWN.capitalize()}.
"""


def results_of(run: Run, metric: str) -> list[EvalResult]:
    """The monitored score of each split, as the hub lists results."""
    result, data = run.result or {}, run.config.data
    name = str(result.get("monitor"))
    return [
        EvalResult(
            task_type=PIPELINES.get(metric, run.config.task.name),
            dataset_type=data.name or data.title or Path(str(data.train)).stem,
            dataset_name=data.title or data.name or Path(str(data.train)).stem,
            dataset_split=split,
            metric_type=name,
            metric_value=scores[name],
        )
        for split, scores in (result.get("metrics") or {}).items()
        if name in (scores or {})
    ]


def labels_text(learned: dict[str, Any]) -> str:
    """The labels in a line, or those that are described with what they mean."""
    labels, described = learned.get("labels") or [], learned.get("descriptions") or {}
    if not described:
        return (", ".join(map(str, labels)) or "None") + "."
    return "\n".join(
        f"- `{label}`: {described.get(label, '')}".rstrip(": ") for label in dict.fromkeys([*described, *labels])
    )


def scores_table(result: dict[str, Any]) -> str:
    """A table of the scores that a paper names, by split."""
    labels = score_labels(result.get("metric"))
    splits = {split: scores for split, scores in (result.get("metrics") or {}).items() if scores}
    names = [name for name in next(iter(splits.values()), {}) if "/" not in name and name != "loss"]
    rows = [
        f"| {labels.get(name, name)} | "
        + " | ".join(f"{scores.get(name, float('nan')):.4f}" for scores in splits.values())
        for name in names
    ]
    return "\n".join(
        [f"| score | {' | '.join(splits)} |", "|---|" + "---|" * len(splits), *(f"{row} |" for row in rows)]
    )


def interval_sentence(run: Run) -> str:
    """The monitored score with its interval over examples."""
    grid = group_runs(read_records([run.path]))
    summary = summarise(grid, pools(grid)[0])[-1]
    if summary.mean is None or summary.interval is None:
        return "There is no interval: the run has no predictions of a test set."
    name, interval = summary.group.score.label, summary.interval
    return (
        f"{name} on {summary.split}: {summary.mean:.4f}, {100 * interval.level:.0f} % interval "
        f"[{interval.low:.4f}, {interval.high:.4f}] over {interval.over}."
    )
