"""One path from a config to a finished run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import lightning as L
import torch
from omegaconf import OmegaConf

from research.cluster.devices import layout_note, slow_precision_note, unused_gpus_note
from research.cluster.group import RankGroup
from research.cluster.ranks import World
from research.cluster.signals import STOPPED, Interrupted, StopFlag
from research.common.console import console
from research.common.errors import UserError, is_outside_fault
from research.common.files import write_json
from research.common.text import one_line
from research.config import component
from research.config.schema import Config
from research.config.tree import to_dict
from research.data.overview import sentences
from research.models.parameters import counts
from research.tracking import own_code, provenance
from research.tracking.run import Run
from research.tracking.wandb import Tracker
from research.training import checkpoint
from research.training.attempt import Attempt
from research.training.build import build
from research.training.callbacks.checkpointing import Checkpointing
from research.training.callbacks.divergence import Divergence
from research.training.callbacks.early_stopping import OnEvaluation, Stopping
from research.training.callbacks.evaluation import Evaluation
from research.training.callbacks.metrics_log import MetricsLog
from research.training.callbacks.session import Session
from research.training.datamodule import TaskData
from research.training.features import note as features_note
from research.training.features import reason_against, reuse_features
from research.training.finish import finish, record_outcome, report
from research.training.module import TaskModule
from research.training.precision import with_precision
from research.training.resume import announce_resume, encoded_examples, resume
from research.training.schedule import steady_steps
from research.training.start import pretrained_name
from research.training.trainer import make_trainer

NOTHING_SCORED = (
    "Nothing is scored: there is neither validation nor test data. Name files for them, or take shares of the training "
    "data by data.validation=0.1 data.test=0.2."
)


def train(
    config: Config,
    group: RankGroup | None = None,
    make_module: Callable[..., TaskModule] | None = None,
    on_evaluation: OnEvaluation | None = None,
    stop_flag: StopFlag | None = None,
) -> int:
    """Fit, validate, test the best checkpoint, record everything. Returns the exit code.

    A process that trains several runs makes their modules itself, receives each evaluation, and holds the signals
    in a `stop_flag` of its own.
    """
    group = group or RankGroup()
    config = with_precision(config, group)
    writes = group.world.rank == 0
    run = Run.open(config) if writes else Run(str(config.run_dir))
    try:
        run.lock.refuse_another_folder(group.agree(lambda: run.lock.holder))
        if group.agree(lambda: run.result is not None and not run.is_continued):
            if writes and run.result is not None:
                console.print(f"This run is finished: {run.path}")
                report(run.result, run)
            return 0
        with StopFlag() if stop_flag is None else nullcontext(stop_flag) as flag:
            return _train(config, run, group, make_module or build, on_evaluation, flag)
    except Interrupted:
        if writes:
            console.print("Stopped. Run the same command to resume from the last checkpoint.")
        return STOPPED
    finally:
        run.close()


def _train(
    config: Config,
    run: Run,
    group: RankGroup,
    make_module: Callable[..., TaskModule],
    on_evaluation: OnEvaluation | None,
    stop_flag: StopFlag,
) -> int:
    module = make_module(config, group=group)
    data, world = module.data, group.world
    writes = world.rank == 0
    newest = checkpoint.agreed(
        group, lambda: checkpoint.resumable(run.checkpoints, continue_steps(run), partial(is_of_run, module))
    )
    if newest is not None:
        with stop_flag.raised_after():
            resume(module, newest)
    if writes:
        run.rewind(module.step)
    tracker = Tracker(run, config) if writes else None
    attempt = Attempt(run, module, writes, stop_flag, tracker, newest)
    loggers = tracker.loggers if tracker else []
    trainer = make_trainer(config, callbacks(attempt, on_evaluation), loggers, len(module.evaluations) + 1, world)
    record: AbstractContextManager[dict[str, Any]] = nullcontext({})
    if writes:
        announce_resume(attempt, world.size)
        announce(module, trainer.strategy.root_device, world)
        if drawn := {name: split.rows["id"][:] for name, split in module.data.splits.items() if split.drawn}:
            write_json(run.path / "splits.json", drawn)
        facts = {**counts(module.backbone.model), "batching": module.backbone.packing_note}
        if data.epochs is not None:
            facts["augment_files"] = data.epochs.files()
        kept = own_code.keep(run.path, own_code.users_files(config, data.metric_name))
        for sentence in own_code.changes(run.provenance, kept) if newest else ():
            console.print(sentence)
        resumed_from, model_name = newest.step if newest else None, pretrained_name(config)
        record = provenance.recorded(run, data_facts(data), model_name, facts, resumed_from, world.size, kept)
    exit_code = 1
    try:
        precision = trainer.precision_plugin.forward_context
        if group.agree(lambda: stop_flag.signal is not None):  # a worker was stopped before this run
            raise Interrupted
        reuse_features(module, group, trainer.strategy.root_device, precision)
        with record as this:
            exit_code, this["ended"] = _fit(trainer, attempt, group)
        return exit_code
    except Exception as error:
        if writes and not is_outside_fault(error):
            record_outcome(attempt, "failed", str(error) if isinstance(error, UserError) else one_line(error))
        raise
    finally:
        if attempt.bar is not None:
            attempt.bar.stop()
        if tracker is not None:
            table = run.predictions / ("test.parquet" if "test" in data.stores else "validation.parquet")
            ended = (run.result if exit_code == 0 else None) or run.outcome or {}
            tracker.finish(ended, run.provenance, table if table.is_file() else None, exit_code)


def continue_steps(run: Run) -> dict[str, int]:
    """Where a finished run that is made longer continues, as `Progress.continue_steps`: of its checkpoints those alone
    may be left."""
    if not run.is_continued or run.result is None:
        return {}
    parts: dict[str, int] = run.result.get("best_steps_of_parts") or {}
    steps: dict[str, int] = run.result.get("continue_steps", {"": run.result["best_step"], **parts})
    return steps


def is_of_run(module: TaskModule, saved: checkpoint.Checkpoint) -> bool:
    """Is this a checkpoint that the module's run would have, also where it was written by a shorter one? One of other
    data is, too: `resume` refuses it, where passing it over would start the run over."""
    total = saved.state.get("total_steps", module.total_steps)
    if saved.state["identity"].get("encoded examples") != encoded_examples(module):
        return True
    return total == module.total_steps or saved.step <= steady_steps(module.config.optim, total)


def data_facts(data: TaskData) -> dict[str, Any]:
    """What provenance says of each split."""
    return {
        name: {
            "origin": split.origin,
            "sha256": split.fingerprint,
            "encoded_xxh3": data.stores[name].digest,
            "drawn": split.drawn or None,
            "examples": len(split.rows),
            "tokens": int(data.stores[name].tokens.sum()),
            "overview": data.overview[name].record() if name in data.overview else None,
        }
        for name, split in data.splits.items()
    }


def callbacks(attempt: Attempt, on_evaluation: OnEvaluation | None) -> list[L.Callback]:
    """In the order they act in at a step: log, save, then evaluate; the user's own last."""
    return [
        Session(attempt),
        Divergence(attempt),
        MetricsLog(attempt),
        Checkpointing(attempt),
        Evaluation(attempt),
        Stopping(attempt, on_evaluation),
        *(component.load("callback", keys.name).Callback(keys) for keys in attempt.module.config.callbacks.values()),
    ]


def _fit(trainer: L.Trainer, attempt: Attempt, group: RankGroup) -> tuple[int, str]:
    """All steps that are still to do, then the end of the run. Returns the exit code and how this attempt ended."""
    run, module, data = attempt.run, attempt.module, attempt.module.data
    module.trainer = trainer  # Lightning's own calls do so, and a run without a step or evaluation makes none
    data.validated = "sample" if "sample" in data.stores else "validation"
    if attempt.owes_evaluation:
        trainer.validate(module, datamodule=data, verbose=False)
    if module.step < module.total_steps and not attempt.ended:
        trainer.fit(module, datamodule=data)
    attempt.writer.wait()  # another signal must not lose the last checkpoint
    attempt.stop_flag.steps_run = False
    if attempt.pruned is not None:
        if attempt.writes:
            console.print(f"Pruned at step {module.step} of {module.total_steps}: {attempt.pruned}.")
            record_outcome(attempt, "pruned", attempt.pruned)
        return 0, f"pruned at step {module.step}"
    if not attempt.stopped:
        finish(trainer, attempt, group)
    if not attempt.stopped:
        return 0, "finished"
    if attempt.writes:
        console.print(
            f"Stopped at step {module.step} of {module.total_steps}, saved in {run.checkpoints}. "
            "Run the same command to resume."
        )
    received = attempt.stop_flag.signal
    sender = signal.Signals(received).name if received else "a signal to another rank"
    return STOPPED, f"stopped by {sender} at step {module.step}"


def announce(module: TaskModule, device: torch.device, world: World) -> None:
    """Say what is about to happen, and what of the layout may surprise."""
    config, stores = module.config, module.data.stores
    train, budget = stores["train"].tokens, module.budget_tokens
    sizes = ", ".join(f"{len(store):,} {name}" for name, store in stores.items())
    steps = f"{module.total_steps} steps of {config.optim.batch_size}"
    console.print(layout_note(device, config.trainer.precision, world))
    unused = unused_gpus_note(device, config.trainer.accelerator, world.local_size)
    for note in filter(None, (unused, slow_precision_note(device, config.trainer.precision))):
        console.print(note)
    console.print(f"{config.task.name}: {sizes} examples; {steps}; {module.backbone.packing_note}")
    for line in (*sentences(module.data.overview), *additions(module)):
        console.print(line, markup=False)
    if not {"validation", "test"} & set(stores):
        console.print(NOTHING_SCORED)
    if int(train.max()) > budget:
        console.print(
            f"The longest example has {train.max()} tokens, above trainer.tokens_per_microbatch={budget}: "
            "it gets a micro-batch of its own."
        )
    if config.optim.batch_size > len(train):
        console.print(f"optim.batch_size is more than the {len(train)} training examples: each step is all of them.")


def additions(module: TaskModule) -> list[str]:
    """Lines on the adapter, the weights it trains, augmentation and methods; none for plain training."""
    lines = [f"adapter {module.adapter_note}; parameters: {parameter_note(module)}"] if module.adapter_note else []
    if module.data.epochs is not None:
        lines.append(f"augment: {', '.join(module.data.epochs.operations)}; other texts in each epoch")
    for name, method in module.methods.items():
        lines.append(f"method {name}: {method.passes:g} passes a step")
    return lines


def parameter_note(module: TaskModule) -> str:
    """How many weights the model has, and how many are trained."""
    total, trained = counts(module.backbone.model).values()
    return f"{total:,}" if trained == total else f"{total:,}, of which {trained:,} are trained ({trained / total:.2%})"


def show(config: Config) -> None:
    """Print the resolved config, the data, the parameters and the steps; train nothing."""
    config = with_precision(config)
    print(OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
    module = build(config)
    data, backbone = module.data, module.backbone
    for name, split in data.splits.items():
        tokens = data.stores[name].tokens
        size = f"{tokens.sum():,} tokens (mean {tokens.mean():.1f}, longest {tokens.max()})"
        print(f"{name}: {len(tokens):,} examples, {size}, {split.origin}")
    for line in sentences(data.overview):
        print(line)
    if not {"validation", "test"} & set(data.stores):
        print(NOTHING_SCORED)
    if data.labels:
        print(f"labels: {', '.join(data.labels)}")
    print(f"parameters: {parameter_note(module)} ({type(backbone.model).__name__})")
    for line in additions(module):
        print(line)
    if backbone.frozen is not None:
        print(features_note(module, reason_against(module)))
    print(f"batching: {backbone.packing_note}; at most {module.budget_tokens} tokens in a micro-batch")
    print(f"steps: {module.total_steps} ({data.plan.steps_per_epoch} per epoch of {config.optim.batch_size} examples)")
    print(f"run folder: {config.run_dir}")
