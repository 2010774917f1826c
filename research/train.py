"""One path from a config to a finished run."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from transformers import PreTrainedModel

from research import provenance
from research.cluster.environment import Settled
from research.cluster.group import Group
from research.cluster.ranks import World
from research.cluster.signals import STOPPED, Interrupted, StopFlag
from research.config import Config, to_dict
from research.console import console
from research.data.task_data import TaskData
from research.errors import UserError, is_outside_fault
from research.model import checkpoint
from research.model.encoder import Encoder, load_config, load_model, load_tokenizer
from research.model.optim import total_steps
from research.recorder import OnEvaluation, Recorder, announce_resume
from research.result import finish, record_outcome, report
from research.run import Run
from research.tasks.base import TaskModule
from research.tracking import Tracker
from research.wandb_local import one_line

PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(
    config: Config,
    group: Group | None = None,
    make_module: Callable[..., TaskModule] | None = None,
    on_evaluation: OnEvaluation | None = None,
    stop_flag: StopFlag | None = None,
) -> int:
    """Fit, validate, test the best checkpoint, record everything. Returns the exit code.

    A process that trains several runs makes their modules itself, is told each evaluation, and holds the signals
    in a `stop_flag` of its own.
    """
    group = group or Group()
    writes = group.world.rank == 0
    run = Run.open(config) if writes else Run(str(config.run_dir))
    try:
        run.refuse_another_folder(group.agree(lambda: run.holder))
        if group.agree(lambda: run.result is not None):
            if writes and run.result is not None:
                console.print(f"This run is finished: {run.path}")
                report(run.result, run)
            return 0
        with StopFlag() if stop_flag is None else nullcontext(stop_flag) as flag:
            return _train(config, run, group, make_module or build, on_evaluation, flag)
    except Interrupted:
        if writes:
            console.print("Stopped. The same command goes on from the last checkpoint.")
        return STOPPED
    finally:
        run.close()


def _train(
    config: Config,
    run: Run,
    group: Group,
    make_module: Callable[..., TaskModule],
    on_evaluation: OnEvaluation | None,
    stop_flag: StopFlag,
) -> int:
    module = make_module(config, group=group)
    data, world = module.data, group.world
    writes = world.rank == 0
    tracker = Tracker(run, config) if writes else None
    newest = checkpoint.agreed(group, lambda: checkpoint.newest(run.checkpoints))
    recorder = Recorder(run, module, writes, tracker, stop_flag, newest, on_evaluation)
    trainer = make_trainer(config, [recorder], tracker.loggers if tracker else [], len(module.evaluations) + 1, world)
    this_attempt: AbstractContextManager[dict[str, Any]] = nullcontext({})
    if writes:
        announce_resume(recorder, world.size)
        announce(module)
        this_attempt = provenance.recorded(run, module, newest.step if newest else None, world.size)
    exit_code = 1
    try:
        with this_attempt as attempt:
            exit_code, attempt["ended"] = _fit(trainer, module, recorder, group)
        return exit_code
    except Exception as error:
        if writes and not is_outside_fault(error):
            record_outcome(run, recorder, "failed", str(error) if isinstance(error, UserError) else one_line(error))
        raise
    finally:
        if recorder.bar is not None:
            recorder.bar.stop()
        if tracker is not None:
            table = run.predictions / ("test.parquet" if "test" in data.stores else "validation.parquet")
            ended = run.result or run.outcome or {}
            tracker.finish(ended, run.provenance, table if table.is_file() else None, exit_code)


def _fit(trainer: L.Trainer, module: TaskModule, recorder: Recorder, group: Group) -> tuple[int, str]:
    """All steps that are still to do, then the end of the run. Returns the exit code and how this attempt ended."""
    run, data = recorder.run, module.data
    if recorder.owes_evaluation:
        trainer.validate(module, datamodule=data, verbose=False)
    if module.step < module.total_steps and not (recorder.stopped or recorder.stopped_early or recorder.pruned):
        trainer.fit(module, datamodule=data)
    recorder.writer.wait()  # another signal must not lose the last checkpoint
    recorder.stop_flag.steps_run = False
    if recorder.pruned is not None:
        if recorder.writes:
            console.print(f"Pruned at step {module.step} of {module.total_steps}: {recorder.pruned}.", markup=False)
            record_outcome(run, recorder, "pruned", recorder.pruned)
        return 0, f"pruned at step {module.step}"
    if not recorder.stopped:
        finish(trainer, module, recorder, group)
    if not recorder.stopped:
        return 0, "finished"
    if recorder.writes:
        console.print(
            f"Stopped at step {module.step} of {module.total_steps}, saved in {run.checkpoints}. "
            "The same command goes on from there."
        )
    received = recorder.stop_flag.signal
    sender = signal.Signals(received).name if received else "a signal to another rank"
    return STOPPED, f"stopped by {sender} at step {module.step}"


def announce(module: TaskModule) -> None:
    """Say what is about to happen, and what of the layout may surprise."""
    config, stores = module.config, module.data.stores
    train, budget = stores["train"].tokens, module.budget_tokens
    sizes = ", ".join(f"{len(store):,} {name}" for name, store in stores.items())
    steps = f"{module.total_steps} steps of {config.optim.batch_size}"
    console.print(f"{config.task}: {sizes} examples; {steps}; {module.encoder.packing_note}")
    if int(train.max()) > budget:
        console.print(
            f"The longest example has {train.max()} tokens, above trainer.tokens_per_microbatch={budget}: "
            "it gets a micro-batch of its own."
        )
    if config.optim.batch_size > len(train):
        console.print(f"optim.batch_size is more than the {len(train)} training examples: each step is the whole set.")


def build(
    config: Config,
    data: TaskData | None = None,
    group: Group | None = None,
    load: Callable[..., PreTrainedModel] = load_model,
) -> TaskModule:
    """The task's module on its data: the same weights and the same head for the same seed."""
    task = import_module(f"research.tasks.{config.task}")
    if config.trainer.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("trainer.precision=fp16 needs a GPU; set bf16 or fp32 here.")
    if data is None:
        data = open_data(config, group)
    refuse_unknown_monitor(config, data)
    own = load_config(config, data.head)
    L.seed_everything(config.init_seed, verbose=False)
    model = load(config, own, task.Module.auto_class)
    embeddings: Any = model.get_input_embeddings()
    if len(data.tokenizer) > embeddings.num_embeddings:
        raise UserError(
            f"The tokenizer of {config.model.name} has {len(data.tokenizer)} tokens, its model only "
            f"{embeddings.num_embeddings}: they do not belong together."
        )
    encoder = Encoder(model, config.trainer.packing)
    steps = total_steps(config.optim, data.plan.steps_per_epoch) if "train" in data.stores else 0
    module: TaskModule = task.Module(config, encoder, data, steps)
    data.module = module
    return module


def open_data(config: Config, group: Group | None = None) -> TaskData:
    """The task's data, opened and tokenised, by one rank of each node first."""
    load_config(config)  # a model that cannot serve is told before the data is tokenised
    data: TaskData = import_module(f"research.tasks.{config.task}").Data(config, load_tokenizer(config))
    with (group or Group()).one_of_each_node_first():
        data.open()
    return data


def refuse_unknown_monitor(config: Config, data: TaskData) -> None:
    """Raise UserError unless the task reports the score that `trainer.monitor` names."""
    names, monitor = (*import_module(f"research.metrics.{data.scorer}").SCORES, "loss"), config.trainer.monitor
    if monitor is not None and monitor.split("/")[0] not in names:
        raise UserError(
            f"trainer.monitor={monitor} is not a score of task {config.task}; it reports {', '.join(names)}."
        )


def make_trainer(
    config: Config, callbacks: list[L.Callback], loggers: list[Any], segments: int = 1, world: World | None = None
) -> L.Trainer:
    """Lightning as the shell: devices and precision are its part; ranks and everything recorded are ours."""
    quiet()
    t, world = config.trainer, world or World()
    try:
        strategy: Any = t.strategy
        if strategy == "fsdp":
            strategy = ModelParallelStrategy(data_parallel_size=world.size, tensor_parallel_size=1)
        elif world.size > 1:
            # Some parameters get no gradient, such as a pooler whose output nothing reads: DDP would wait for it. And
            # unless it looks for them, it cuts its buckets anew after the first step and sums four ranks in another
            # order: a resumed run would differ in the last bit.
            strategy = DDPStrategy(find_unused_parameters=True)
        return L.Trainer(
            accelerator=t.accelerator,
            devices=world.local_size,
            num_nodes=world.nodes,
            plugins=[Settled(world)],
            default_root_dir=config.run_dir,
            strategy=strategy,
            precision=PRECISIONS[t.precision],
            max_epochs=segments,  # an epoch of Lightning is the stretch between two evaluations
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
            logger=loggers or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            inference_mode=False,
        )
    except (MisconfigurationException, ValueError) as error:
        asked = f"trainer.accelerator={t.accelerator}, devices={t.devices}, strategy={t.strategy}"
        raise UserError(f"This machine cannot run {asked}: {' '.join(str(error).split())}") from None


def quiet() -> None:
    """No advice of Lightning's and torch's on settings that are ours."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")


def show(config: Config) -> None:
    """Print the resolved config, the data, the parameters and the steps; train nothing."""
    print(OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
    module = build(config)
    data, encoder = module.data, module.encoder
    for name, split in data.splits.items():
        tokens = data.stores[name].tokens
        size = f"{tokens.sum():,} tokens (mean {tokens.mean():.1f}, longest {tokens.max()})"
        print(f"{name}: {len(tokens):,} examples, {size}, {split.origin}")
    if data.labels:
        print(f"labels: {', '.join(data.labels)}")
    print(f"parameters: {sum(p.numel() for p in encoder.parameters()):,} ({type(encoder.model).__name__})")
    print(f"batching: {encoder.packing_note}; at most {module.budget_tokens} tokens in a micro-batch")
    print(f"steps: {module.total_steps} ({data.plan.steps_per_epoch} per epoch of {config.optim.batch_size} examples)")
    print(f"run folder: {config.run_dir}")
