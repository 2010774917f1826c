"""The command `research`. Arguments and YAML are checked first; torch is imported after."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from research import __version__
from research.cluster.failure import fail
from research.cluster.signals import STOPPED, leave_stopped, leaving_at_once
from research.errors import UserError

if TYPE_CHECKING:
    from research.cluster.group import Group
    from research.config import TrainerConfig

RESUMABLE = ("train", "sweep")  # stopped at any moment, the same command goes on
NOTHING = "\0"  # no argument begins with it


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="research", description="Fine-tune transformers, with numbers that can stand in a paper."
    )
    top.add_argument("--version", action="version", version=f"research {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, text in (
        ("train", "fit, validate and test an experiment; on a folder it began, resume it"),
        ("show", "print the resolved config, data, parameters and steps of an experiment or a sweep; train nothing"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("experiment", help="its YAML file")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as in optim.lr=3e-5")

    command = commands.add_parser("evaluate", help="score a finished run again")
    command.add_argument("run", help="run folder")
    command.add_argument("--split", default="test", choices=("train", "validation", "test"))

    command = commands.add_parser("predict", help="label new text with a finished run")
    command.add_argument("run", help="run folder")
    command.add_argument("--input", required=True, help="file with the task's columns (JSONL, CSV, TSV, Parquet, ...)")
    command.add_argument("--output", required=True, help="file to write: .jsonl, .csv or .parquet")

    command = commands.add_parser("sweep", help="be one worker of a search: start as many as you like")
    command.add_argument("sweep", help="the sweep's YAML file or folder; `status SWEEP` prints how a search stands")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as in budget.trials=50")
    command.add_argument("--resume-anyway", action="store_true", help="go on with trials of a space that has grown")

    command = commands.add_parser("sync", help="send offline W&B runs, again and again until they have arrived whole")
    command.add_argument("runs", nargs="+", metavar="run", help="run folder")
    command.add_argument("--timeout-seconds", type=float, default=600.0, help="for one attempt at one run")
    command.add_argument("--attempts", type=int, default=3)
    command.add_argument("--workers", type=int, default=4, help="runs sent at the same time")
    command.add_argument("--live", action="store_true", help="send while the run is still writing")

    command = commands.add_parser("report", help="tables, figures, tests, checklist and page from recorded runs")
    command.add_argument("runs", nargs="*", metavar="run", help="run folders, or folders that hold them")
    command.add_argument("--output", metavar="DIR", help="folder to write")
    command.add_argument("--by", nargs="+", metavar="KEY", help="config keys that name the systems")
    command.add_argument("--metric", help="score of the tables; default: the one that chose the checkpoints")
    command.add_argument("--wandb", action="store_true", help="save the report as a draft at Weights & Biases too")
    command.add_argument("--check", metavar="DIR", help="does a report still follow from its runs?")

    command = commands.add_parser("compare", help="is A better than B: difference, interval, tests, power")
    command.add_argument("runs", nargs="+", metavar="run", help="runs of A: run folders, or folders that hold them")
    command.add_argument("--against", nargs="+", required=True, metavar="RUN", help="runs of B, one system or several")
    command.add_argument("--metric", help="default: the score that chose the checkpoints")
    command.add_argument("--split", choices=("validation", "test"), help="default: test where there is one")
    command.add_argument("--correct", choices=("holm", "bh", "none"), default="holm", help="for several comparisons")
    command.add_argument("--resamples", type=int, default=10_000)

    text = "fetch, check and tokenise what experiments need, where there is a network"
    command = commands.add_parser("prepare", help=text, description=text)
    command.add_argument("experiments", nargs="+", metavar="experiment", help="YAML files; key=value overrides all")

    text = "check an experiment and queue it with sbatch"
    usage = "research submit [--script SCRIPT] [sbatch options] EXPERIMENT [key=value ...]"
    command = commands.add_parser("submit", help=text, usage=usage, prefix_chars=NOTHING)  # options are sbatch's
    command.add_argument("arguments", nargs="*")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake that a person can mend is one sentence on standard error and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with leaving_at_once() if options.command in RESUMABLE else nullcontext():
        try:
            return run(options, arguments)
        except Exception as error:
            return fail(error)
        except KeyboardInterrupt:
            print("research: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
            return 130


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    """Dispatch a parsed command."""
    if options.command == "train":
        return train(options, arguments)
    if options.command == "show":
        return show(options)
    if options.command == "sweep":
        return sweep(options, arguments)
    if options.command == "prepare":
        settle_environment()
        from research.prepare import prepare

        return prepare(options.experiments)
    if options.command == "submit":
        from research.cluster.submit import submit

        return submit(options.arguments)
    if options.command == "sync":
        return sync(options)
    if options.command == "report":
        return report(options)
    if options.command == "compare":
        return compare(options)

    from research.run import Run

    opened = Run.read(options.run)
    settle_environment()
    from research import finished
    from research.console import class_table, console, score_table

    if options.command == "evaluate":
        scores = finished.evaluate(opened, options.split)
        console.print(score_table({options.split: scores}))
        classes = class_table(scores)
        if classes is not None:
            console.print(classes)
    else:
        rows = finished.predict(opened, options.input, options.output)
        print(f"{rows} rows written to {options.output}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Print what an experiment or a sweep is; train nothing."""
    from research.sweep.sweepfile import is_sweep

    if is_sweep(options.experiment):
        from research.sweep.space import read_sweep

        searched = read_sweep(options.experiment, options.overrides)
        settle_environment()
        from research.sweep.show import show as show_sweep

        show_sweep(searched)
        return 0
    from research.config import load_config

    config = load_config(options.experiment, options.overrides)
    settle_environment()
    from research.train import show

    show(config)
    return 0


def train(options: argparse.Namespace, arguments: list[str]) -> int:
    """Train as one of the ranks there are, or start as many as the experiment asks for."""
    from research.config import load_config

    config = load_config(options.experiment, options.overrides)
    return in_ranks(config.trainer, arguments, "research.train", lambda module, group: module.train(config, group))


def sweep(options: argparse.Namespace, arguments: list[str]) -> int:
    """Be a worker of a search, of as many ranks as its experiment asks for, or print how the search stands."""
    if options.sweep == "status":
        return sweep_status(options.overrides)
    from research.sweep.space import read_sweep
    from research.sweep.sweepfile import base_config

    searched, anyway = read_sweep(options.sweep, options.overrides), options.resume_anyway
    trainer = base_config(searched).trainer
    return in_ranks(
        trainer, arguments, "research.sweep.worker", lambda module, group: module.work(searched, group, anyway)
    )


def sweep_status(arguments: list[str]) -> int:
    """Print the trials of a search and when its end is to be expected."""
    if not arguments:
        raise UserError("research sweep status needs the sweep: its YAML file or its folder.")
    from research.sweep.sweepfile import load_sweep

    searched = load_sweep(arguments[0], arguments[1:])
    from research.sweep.results import report
    from research.sweep.study import read_search

    report(read_search(searched))
    return 0


def in_ranks(trainer: TrainerConfig, arguments: list[str], name: str, work: Callable[[Any, Group], int]) -> int:
    """Do the work of a module as one of the ranks there are, or start as many as the experiment asks for."""
    from importlib import import_module

    from research.cluster.launch import launch
    from research.cluster.ranks import settle

    settle_environment()
    world = settle(trainer)
    if world.launcher is None and world.size > 1:
        return launch(world.size, [sys.executable, "-P", "-m", "research.cli", *arguments])
    from research.cluster.group import PART_SECONDS, meet

    group = meet(world, trainer.accelerator)  # before the other imports: they take seconds
    code = work(import_module(name), group)
    if code == 0:
        group.part()
        if world.size > 1:  # threads of the process group may abort Python's own end
            sys.stdout.flush()
            os._exit(0)
    elif code == STOPPED and world.size > 1:
        group.part(PART_SECONDS)
        leave_stopped(world.rank)
    return code


def sync(options: argparse.Namespace) -> int:
    """Send offline W&B runs; exit code 1 unless all have arrived."""
    from pathlib import Path

    from research.sync import has_arrived, sync

    outcomes = sync(
        [Path(run) for run in options.runs],
        timeout_seconds=options.timeout_seconds,
        attempts=options.attempts,
        workers=options.workers,
        live=options.live,
    )
    for run, outcome in outcomes.items():
        print(f"{run}: {outcome}")
    return 0 if all(map(has_arrived, outcomes.values())) else 1


def report(options: argparse.Namespace) -> int:
    """Make a report, or check one; exit code 1 where its numbers no longer follow from its runs."""
    from pathlib import Path

    if options.check:
        if options.runs or options.output:
            raise UserError("--check takes the folder of a report alone; its manifest names the runs.")
        from research.report.build import check

        return check(Path(options.check))
    if not options.runs or not options.output:
        raise UserError("Name runs and a folder to write: research report RUNS... --output paper/")
    from research.report.build import build

    build(options.runs, Path(options.output), by=options.by, metric=options.metric, wandb=options.wandb)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print what two sets of runs allow to say of each other."""
    if options.resamples < 100:
        raise UserError(f"--resamples {options.resamples} is too few for a test; take at least 100.")
    from research.report.compare import compare, text
    from research.report.records import read

    asked = {"metric": options.metric, "split": options.split, "resamples": options.resamples}
    found = compare(read(options.runs), read(options.against), correction=options.correct, **asked)
    print(text(found, options.correct))
    return 0


def settle_environment() -> None:
    """What libraries read when they are imported, and how memory is kept."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a rank that ends is told once, by itself
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let each step reuse what the one before freed: handed back to the kernel, every page is faulted in anew."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, bytes
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the most that every glibc takes


if __name__ == "__main__":
    sys.exit(main())
