"""The runs of the tasks of a joint run: `tasks/<task>` in its folder, with the encoder at its best for that task.

Each is an ordinary run folder of the task with `model.head=linear`, which everything that reads runs takes: evaluate,
predict, export, serve, compare. Its model has the rows of its own head alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.common.files import write_atomically, write_json
from research.config.load import from_dict
from research.config.schema import Config
from research.config.tree import to_dict
from research.tasks.multi_data import outputs_of
from research.tracking import predictions
from research.tracking.run import Run
from research.training.attempt import Attempt
from research.training.finish import export, hashes_of, task_record, training_record
from research.training.run import data_facts

if TYPE_CHECKING:
    from research.tasks.multi import Module

FOLDER = "tasks"


def write_part(module: Module, attempt: Attempt, name: str, found: Mapping[str, dict[int, Any]]) -> None:
    """Write the run of a task, with the weights as they are; `found`: predictions of all tasks, by split."""
    data, part = module.data, module.data.parts[name]
    run = Run(attempt.run.path / FOLDER / name)
    export(attempt, run.path, outputs_of(part), data.outputs[name])
    if not attempt.writes:
        return
    (run.path / "result.json").unlink(missing_ok=True)  # of a shorter run, until this one is whole
    run.predictions.mkdir(exist_ok=True)
    scores: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
    for split, joint in found.items():
        first, count = data.bounds(split)[name]
        columns = part.table(part.splits[split], {i: joint[first + i] for i in range(count)})
        table = predictions.make_table(part.splits[split], columns, part.metric_name, part.score_settings())
        predictions.write(table, run.predictions / f"{split}.parquet")
        scores[split] = predictions.score(table, own_files=True)
        if split == "validation":
            part.use_validation_scores(scores[split])
    part.use_validation_scores({})  # those of the whole run's best checkpoint decide next
    config = config_of_part(module.config, part.config, run.path)
    run.write_config(config)
    write_metrics(attempt.run, run, name)
    *earlier, last = attempt.run.provenance["attempts"]
    record = {**attempt.run.provenance, "attempts": [*earlier, {**last, "ended": "finished"}]}
    write_json(run.path / "provenance.json", {**record, "data": data_facts(part), "part_of": str(attempt.run.path)})
    result = {
        **task_record(config, part, run.predictions),
        "metrics": scores,
        "monitor": module.mains()[name]["main"],
        **module.part(name).notes(),
        "best_step": module.progress.best_steps.get(name, module.step),
        **training_record(attempt),
        "files": hashes_of(run),
    }
    write_json(run.path / "result.json", result)


def config_of_part(config: Config, part: Config, folder: Path) -> Config:
    """The experiment of a task, as it was trained together with others."""
    joint, own = to_dict(config), to_dict(part)
    trained = {key: joint[key] for key in ("adapter", "methods", "wandb")}
    model, trainer = {**own["model"], "head": "linear"}, {**joint["trainer"], "monitor": own["trainer"]["monitor"]}
    return from_dict({**own, **trained, "model": model, "trainer": trainer, "run_dir": str(folder)})


def write_metrics(joint: Run, run: Run, task: str) -> None:
    """The rows of training, and the task's own scores of each evaluation, of validation or a sample of it."""
    rows = []
    for row in joint.metrics():
        own = {}
        for key, value in row.items():
            split, _, score = key.partition("/")
            if split not in ("validation", "sample"):
                own[key] = value
            elif score.startswith(f"{task}."):
                own[f"{split}/{score.removeprefix(f'{task}.')}"] = value
        rows += [own] if len(own) > 1 else []
    with write_atomically(run.path / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
