"""Finish a run: test and export the best model, write `result.json`, or `outcome.json` and why there is none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from research.adapters.unmerged import save_unmerged
from research.cluster.group import RankGroup
from research.common.console import console, print_scores
from research.common.errors import UserError
from research.common.files import replace_folder, short_path, write_json
from research.common.matmul_rate import mfu
from research.config import component
from research.config.schema import Config
from research.data.source import file_sha256
from research.metrics import score_labels
from research.metrics.baselines import Baselines, constant_answer
from research.metrics.score import recorded
from research.models import sharding
from research.models.generate import native_attention
from research.models.head import named_outputs, with_outputs
from research.models.load import restore_limits
from research.tracking import cost, predictions
from research.tracking.run import Run
from research.training import checkpoint
from research.training.attempt import Attempt
from research.training.datamodule import TaskData
from research.training.kept_checkpoints import remove
from research.training.state import load_weights


def finish(trainer: L.Trainer, attempt: Attempt, group: RankGroup) -> None:
    """Return to the best checkpoint, test it, export it, and write the result; nothing more where a signal comes."""
    module = attempt.module
    module.data.validated = "validation"
    finish_parts(trainer, attempt, group)
    if attempt.stopped:
        return
    return_to(module.progress.best_step, attempt, group)
    score_best(trainer, attempt, group)
    if attempt.stopped:
        return
    module.data.use_validation_scores(module.progress.best_scores)
    if "test" in module.data.stores:
        trainer.test(module, datamodule=module.data, verbose=False)
    if attempt.stopped:
        return
    run = attempt.run
    export(attempt, run.path)
    if not attempt.writes:
        return
    if run.is_continued and run.best_predictions.is_file():
        os.replace(run.best_predictions, run.predictions / "validation.parquet")
    result = result_of(attempt)
    write_json(run.path / "result.json", result)
    if run.is_continued:
        run.write_config(module.config)  # after the result: where a kill comes between, the same command ends once more
    p = module.progress
    needed = {result["best_step"], *p.best_steps.values(), *p.continue_steps.values()}
    remove(run.checkpoints, module.config.trainer.keep_checkpoints, needed)
    report(result, run)


def finish_parts(trainer: L.Trainer, attempt: Attempt, group: RankGroup) -> None:
    """Return to the best checkpoint of each part of the run, evaluate it, and write the part as a run of its own."""
    module, best_steps = attempt.module, attempt.module.progress.best_steps
    attempt.ends_part = True
    steps = {part: best_steps.get(part, module.step) for part in module.monitored_parts}
    for step in sorted(set(steps.values())):
        return_to(step, attempt, group)
        found = {}
        for split, evaluate in (("validation", trainer.validate), ("test", trainer.test)):
            if split in module.data.stores:
                evaluate(module, datamodule=module.data, verbose=False)
                found[split] = module.gathered_predictions()[0]
            if attempt.stopped:
                return
        for part in (part for part, best in steps.items() if best == step):
            module.write_part(attempt, part, found)
    attempt.ends_part = False


def return_to(best_step: int | None, attempt: Attempt, group: RankGroup) -> None:
    """Put the weights of the best step into the module, which may have others. Raises UserError where they are lost."""
    module, folder = attempt.module, attempt.run.checkpoints
    if best_step is None or best_step == attempt.weights_of:
        return
    best = checkpoint.agreed(group, lambda: checkpoint.at_step(folder, best_step))
    if best is None:
        raise UserError(
            f"The best checkpoint (step {best_step}) is missing from {folder} or damaged; "
            "run the same command to go back before it."
        )
    with attempt.stop_flag.raised_after():
        load_weights(module, best)
    attempt.returned_to = best_step


def score_best(trainer: L.Trainer, attempt: Attempt, group: RankGroup) -> None:
    """Evaluate the best weights on all validation data where training evaluated a sample, or where
    `predictions/validation.parquet` is not the file of that evaluation."""
    module, path = attempt.module, attempt.run.best_predictions
    recorded, sampled = module.progress.best_predictions, "sample" in module.data.stores

    def is_damaged() -> bool:
        return recorded is not None and not (path.is_file() and file_sha256(path) == recorded)

    if sampled:
        attempt.sample_scores = module.progress.best_scores
    elif not group.agree(is_damaged):
        return
    elif attempt.writes:
        console.print(f"{path} is missing or damaged: the best checkpoint is evaluated again.")
    attempt.scores_best = True
    trainer.validate(module, datamodule=module.data, verbose=False)


def export(attempt: Attempt, path: Path, labels: Sequence[str] = (), outputs: slice | None = None) -> None:
    """Write the scored weights, tokenizer and config as `from_pretrained` reads them, and what an adapter alone is,
    into the run folder `path`.

    `outputs`: of the head, those for `labels` alone. All ranks take part where they share one model out; rank zero
    writes.
    """
    module = attempt.module
    model, adapter, tokenizer = module.backbone.model, module.adapter, module.data.tokenizer
    with module.evaluating(), module.rows.up_to_date() if module.rows is not None else nullcontext():
        sharded = sharding.is_sharded(model)
        state = sharding.gathered(model, attempt.writes) if sharded else model.state_dict()
        if not attempt.writes:
            return
        attempt.run.lock.refuse_if_taken_over()
        own = adapter.plain_state(model, state)
        plain = own if outputs is None else with_outputs(model, own, outputs)

        def fill(folder: Path) -> None:
            with native_attention(module.backbone), named_outputs(model, labels):
                model.save_pretrained(folder, state_dict=plain if sharded or plain is not state else None)
            if not adapter.merges:
                save_unmerged(folder, module.config.adapter.name, state, plain)
            restore_limits(tokenizer, module.data.tokenizer_as_loaded)
            tokenizer.save_pretrained(folder)

        replace_folder(path / "model", fill)
        if adapter.has_own_file and outputs is None:
            source = module.config.model
            replace_folder(path / "adapter", partial(adapter.export, model, state, source.name, source.revision))


def result_of(attempt: Attempt) -> dict[str, Any]:
    """What `result.json` holds: the final scores, how they were come by and what they cost."""
    module, p = attempt.module, attempt.module.progress
    parts = {part: step for part, step in p.best_steps.items() if part}
    return {
        **task_record(module.config, module.data, attempt.run.predictions),
        "metrics": {"validation": p.best_scores, "test": attempt.test_scores},
        **({"sample": sample_record(attempt)} if attempt.sample_scores else {}),
        "monitor": module.monitored,
        **module.notes(),
        "best_step": p.best_step if p.best_step is not None else module.step,
        **({"best_steps_of_parts": parts} if parts else {}),
        **training_record(attempt),
        "files": hashes_of(attempt.run),
    }


def sample_record(attempt: Attempt) -> dict[str, Any]:
    """What `result.json` says of the sample of validation that chose the best checkpoint."""
    return {"examples": len(attempt.module.data.splits["sample"].rows), "metrics": attempt.sample_scores}


def task_record(config: Config, data: TaskData, predictions_folder: Path) -> dict[str, Any]:
    """What `result.json` says of a task and its data."""
    metric = data.scorer
    return {
        "task": component.canonical("task", config.task.name),
        "seed": config.seed,
        "baselines": baselines_of(data, predictions_folder),
        "learned": data.learned(),
        "metric": {"name": data.metric_name, "signature": metric.signature, "scores": recorded(metric.scores)},
    }


def training_record(attempt: Attempt) -> dict[str, Any]:
    """What `result.json` says of the training: its length, speed and cost."""
    module, run, p = attempt.module, attempt.run, attempt.module.progress
    seconds = max(p.train_seconds, 1e-9)
    return {
        "steps": module.step,
        "continue_steps": p.continue_steps,
        "stopped_early": attempt.stopped_early,
        "examples": p.examples,
        "tokens": p.tokens,
        "train_seconds": p.train_seconds,
        "examples_per_second": p.examples / seconds,
        "tokens_per_second": p.tokens / seconds,
        "cost": attempt.cost(),
        "mfu": mfu(
            module.flops_per_token * p.tokens,
            seconds * module.trainer.world_size,
            module.device,
            module.config.trainer.precision,
        ),
        "peak_memory_mib": cost.peak_memory_mib(),
        "parameters": run.provenance.get("parameters"),
        "trained_parameters": run.provenance.get("trained_parameters"),
        "batching": module.backbone.packing_note,
    }


def hashes_of(run: Run) -> dict[str, str]:
    """The sha256 of each file of a run's predictions, model and adapter."""
    return {
        f"{folder.name}/{path.relative_to(folder)}": file_sha256(path)
        for folder in (run.predictions, run.model, run.path / "adapter")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def baselines_of(data: TaskData, folder: Path) -> dict[str, Baselines]:
    """By split, what answers score that know nothing of the texts; `folder` holds the predictions."""
    train, found = data.gold_table(data.splits["train"]), {}
    for split in ("validation", "test"):
        if (path := folder / f"{split}.parquet").is_file():
            table = predictions.read(path)
            found[split] = predictions.metric(table, own_files=True).baselines(table, train)
    return found


def report(result: dict[str, Any], run: Run) -> None:
    """The short tables a run ends with."""
    metrics = {split: scores for split, scores in result["metrics"].items() if scores}
    lowest, warning = worth(run, [*metrics][-1]) if metrics else ({}, None)
    if metrics:
        if len(metrics) > 1:
            lowest = {f"{name}, {[*metrics][-1]}": scores for name, scores in lowest.items()}
        print_scores(result["metrics"], score_labels(result["metric"]), lowest)
    else:
        console.print(
            "Nothing was scored: the experiment names neither validation nor test data, so the last weights are kept. "
            "`data.validation: 0.1` sets a tenth of the training data aside for it."
        )
    if warning is not None:
        console.print(warning)
    if not result["steps"]:
        console.print("Nothing was trained: the run has 0 steps.")
    else:
        console.print(
            f"{result['examples']:,} examples in {result['train_seconds']:.1f} s "
            f"({result['examples_per_second']:.0f} examples/s, {result['tokens_per_second']:.0f} tokens/s)"
        )
    console.print(f"Run folder: {short_path(run.path)}")


def worth(run: Run, split: str) -> tuple[Baselines, str | None]:
    """The scores of answers that know nothing of the text, and a warning where the model gives one answer to all."""
    path = run.predictions / f"{split}.parquet"
    if not path.is_file():
        return {}, None
    table = predictions.read(path)
    answer = constant_answer(table.column("prediction"))
    lowest = ((run.result or {}).get("baselines") or {}).get(split)
    if lowest is None:  # of an earlier version, or a split that training did not score
        lowest = predictions.metric(table, own_files=True).baselines(table)
    if answer is None:
        return lowest, None
    return lowest, f"Every {split} example got the answer '{answer}': the scores say nothing of what was learned."


def record_outcome(attempt: Attempt, state: str, reason: str) -> None:
    """Write what a run came to that ends without a result: pruned or failed, why, and what it cost."""
    content = {"state": state, "reason": reason, "step": attempt.module.step, "cost": attempt.cost()}
    write_json(attempt.run.path / "outcome.json", content)
