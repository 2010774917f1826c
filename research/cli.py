"""The command `research`. Arguments and YAML are checked first; torch is imported after."""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from research import __version__
from research.cluster import signals
from research.cluster.failure import fail
from research.cluster.signals import STOPPED, exit_immediately, exit_stopped
from research.common.errors import UserError
from research.common.threads import choose_waiting_policy

if TYPE_CHECKING:
    from research.cluster.group import RankGroup
    from research.config.schema import TrainerConfig

TRUST = "run Python code that the run's model folder brings along; read it first"
NOTHING = "\0"  # no argument begins with it


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="research", description="Fine-tune transformers, with publication-ready numbers."
    )
    top.add_argument("--version", action="version", version=f"research {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], text: str, **settings: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=text, description=text, **settings)
        added.set_defaults(run=run)
        return added

    add_experiments(command)
    add_runs(command)
    add_retrieval(command)
    return top


def add_experiments(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that take an experiment or a sweep."""
    added = command(train, "fit, validate and test an experiment; on a folder it began, resume it")
    added.add_argument("experiment", help="its YAML file")
    added.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides, as in optim.lr=3e-5; more experiments"
    )
    added.add_argument(
        "--task", type=int, metavar="N", help="of all experiments, folds and seeds the N-th alone, from 0"
    )

    added = command(
        show, "print the resolved config, data, parameters and steps of an experiment or a sweep; train nothing"
    )
    added.add_argument("experiment", help="its YAML file")
    added.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as in optim.lr=3e-5")

    added = command(sweep, "be one worker of a search: start as many as you like")
    added.add_argument("sweep", help="the sweep's YAML file or folder; `status SWEEP` prints how a search stands")
    added.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as in budget.trials=50")
    added.add_argument("--resume-anyway", action="store_true", help="go on with trials of a space that has grown")

    added = command(prepare, "fetch, check and tokenise what experiments need, where there is a network")
    added.add_argument("experiments", nargs="+", metavar="experiment", help="YAML files; key=value overrides all")

    usage = "research submit [--script SCRIPT] [sbatch options] EXPERIMENT... [key=value ...]"
    text = "check experiments and queue them with sbatch"
    added = command(submit, text, usage=usage, prefix_chars=NOTHING)  # options are sbatch's
    added.add_argument("arguments", nargs="*")


def add_runs(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that take recorded runs."""
    added = command(evaluate, "score a finished run again")
    added.add_argument("run_dir", metavar="run", help="run folder")
    added.add_argument("--split", default="test", choices=("train", "validation", "test"))
    added.add_argument("--logits", action="store_true", help="of train: keep them in the run, for methods.distil")
    added.add_argument("--trust-remote-code", action="store_true", help=TRUST)

    added = command(predict, "label new text with a finished run")
    added.add_argument("run_dir", metavar="run", help="run folder")
    added.add_argument("overrides", nargs="*", metavar="key=value", help="how to read it: data.columns.text=body")
    added.add_argument("--input", help="file with the task's columns (JSONL, CSV, ...); -: standard input")
    added.add_argument("--text", action="append", default=[], help="a text to label; give it as often as you like")
    added.add_argument("--output", default="-", help="file to write: .jsonl, .csv, .parquet; default: JSON lines here")
    added.add_argument("--escape-formulas", action="store_true", help="in CSV, a ' before what a spreadsheet computes")
    added.add_argument("--trust-remote-code", action="store_true", help=TRUST)

    added = command(export, "write a finished run as a folder to deploy, which gives the run's answers")
    added.add_argument("run_dir", metavar="run", help="run folder")
    added.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    added.add_argument("--format", default="safetensors", choices=("safetensors", "onnx", "torch"))
    added.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "int8"), help="int8: onnx alone")
    added.add_argument("--tolerance", type=float, default=0.01, help="of its score that int8 may lose; default: 0.01")
    added.add_argument("--sign", metavar="KEY", help="sign the list of files with a private key (PEM), by openssl")
    added.add_argument("--licence", help="for the model card, as in apache-2.0; it is not guessed")

    added = command(verify, "are the files of an exported folder those that were written?")
    added.add_argument("folder", help="exported folder")
    added.add_argument("--key", metavar="FILE", help="public key (PEM) of the signature")

    added = command(serve, "an HTTP service of finished runs, with keys, limits and metrics")
    added.add_argument("runs", nargs="*", metavar="run", help="run folder, or name=folder; its name in URLs")
    added.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (default: 127.0.0.1)")
    added.add_argument("--port", type=int, default=8000)
    added.add_argument("--keys", metavar="FILE", help="keys of clients; default: ~/.config/research/serve-keys.json")
    added.add_argument("--no-keys", action="store_true", help="let everyone in who reaches the port")
    added.add_argument("--add-key", metavar="NAME", help="make a key, print it, and end")
    added.add_argument("--key-rate", type=float, metavar="N", help="with --add-key: requests it may make a second")
    added.add_argument("--precision", choices=("fp32", "bf16"), help="of activations; default: as trained")
    added.add_argument("--threads", type=int, default=1, help="of computing (default: 1; one process a core)")
    added.add_argument("--max-body-bytes", type=int, default=1_000_000)
    added.add_argument("--max-texts", type=int, default=256, help="of one request")
    added.add_argument("--max-waiting-tokens", type=int, default=65_536, help="above them: 503 with Retry-After")
    added.add_argument("--timeout-seconds", type=float, default=10.0, help="from a request to its answer, or 504")

    added = command(prune, "remove checkpoints that finished runs no longer need, after showing them")
    added.add_argument("runs", nargs="+", metavar="run", help="run folders, or folders that hold them")
    added.add_argument("--keep", choices=("none", "best"), default="best", help="checkpoint to keep; default: best")
    added.add_argument("--yes", action="store_true", help="do not ask")

    added = command(report, "tables, figures, tests, checklist and page from recorded runs")
    added.add_argument("runs", nargs="*", metavar="run", help="run folders, or folders that hold them")
    added.add_argument("--output", metavar="DIR", help="folder to write")
    added.add_argument("--by", nargs="+", metavar="KEY", help="config keys that name the systems")
    added.add_argument("--metric", help="score of the tables; default: the one that chose the checkpoints")
    added.add_argument("--wandb", action="store_true", help="save the report as a draft at Weights & Biases too")
    added.add_argument("--check", metavar="DIR", help="does a report still follow from its runs?")

    added = command(compare, "is A better than B: difference, interval, tests, power")
    added.add_argument("runs", nargs="+", metavar="run", help="runs of A: run folders, or folders that hold them")
    added.add_argument("--against", nargs="+", required=True, metavar="RUN", help="runs of B, one system or several")
    added.add_argument("--metric", help="default: the score that chose the checkpoints")
    added.add_argument("--split", choices=("validation", "test"), help="default: test where there is one")
    added.add_argument("--correct", choices=("holm", "bh", "none"), default="holm", help="for several comparisons")
    added.add_argument("--resamples", type=int, default=10_000)

    added = command(ensemble, "the mean of several runs' probabilities, from their predictions; weights by validation")
    added.add_argument("runs", nargs="+", metavar="run", help="run folders, or folders that hold them")
    added.add_argument("--uniform", action="store_true", help="all members alike, none left out")
    added.add_argument("--metric", help="default: the score that chose the checkpoints")
    added.add_argument("--output", metavar="DIR", help="folder for the ensemble's predictions")

    added = command(soup, "one model from the mean of several runs' weights, chosen on validation")
    added.add_argument("runs", nargs="+", metavar="run", help="run folders, of one pretrained model")
    added.add_argument("--kind", choices=("greedy", "uniform"), default="greedy")
    added.add_argument("--output", required=True, metavar="DIR", help="new folder for model and predictions")
    added.add_argument("--trust-remote-code", action="store_true", help=TRUST)

    added = command(sync, "send offline W&B runs, again and again until they are complete there")
    added.add_argument("runs", nargs="+", metavar="run", help="run folder")
    added.add_argument("--timeout-seconds", type=float, default=600.0, help="for one attempt at one run")
    added.add_argument("--attempts", type=int, default=3)
    added.add_argument("--workers", type=int, default=4, help="runs sent at the same time")
    added.add_argument("--live", action="store_true", help="send while the run is still writing")


def add_retrieval(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that search with a run of task matching."""
    added = command(index, "write an index of a corpus: a vector of each document by a finished run")
    added.add_argument("run_dir", metavar="run", help="run folder, of task matching")
    added.add_argument("--input", required=True, metavar="FILE", help="corpus: JSONL, CSV, TSV, Parquet")
    added.add_argument("--output", required=True, metavar="DIR", help="folder of the index")
    added.add_argument("--column", help="of the documents; default: document, or else text")
    added.add_argument("--kind", choices=("exact", "hnsw"), default="exact", help="hnsw: approximate, by faiss")
    added.add_argument("--trust-remote-code", action="store_true", help=TRUST)

    added = command(search, "the best documents of an index for each query, as JSON lines")
    added.add_argument("run_dir", metavar="run", help="the run whose model made the index")
    added.add_argument("queries", nargs="*", metavar="query", help="text to search for")
    added.add_argument("--index", required=True, metavar="DIR", help="what research index wrote")
    added.add_argument("--input", metavar="FILE", help="file of queries, column query")
    added.add_argument("--top", type=int, default=10, metavar="K", help="documents of each query (default: 10)")
    added.add_argument("--output", default="-", help="file to write: .jsonl, .csv, .parquet; default: JSON lines here")
    added.add_argument("--trust-remote-code", action="store_true", help=TRUST)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options; `key=value` and queries may stand after options too, where argparse takes no more of them."""
    top = parser()
    options, rest = top.parse_known_args(arguments, argparse.Namespace(command_line=arguments))
    if "queries" in options and not any(each.startswith("-") for each in rest):
        options.queries, rest = [*options.queries, *rest], []
    if rest and not ("overrides" in options and all("=" in each and each[0] != "-" for each in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake that a person can mend is one sentence on standard error and exit code 2."""
    if arguments is None:
        code = main(sys.argv[1:])
        signals.ignore()
        return code
    try:
        os.getcwd()
    except OSError as error:
        print(f"research: the working directory cannot be used ({error.strerror}); cd elsewhere.", file=sys.stderr)
        return 2
    try:
        return run_command(list(arguments))
    except KeyboardInterrupt:
        signals.ignore()
        print("research: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


def run_command(arguments: list[str]) -> int:
    """Parse the arguments and run what they name; an error is reported in a sentence."""
    options = parsed(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    is_resumable = options.run in (train, sweep)  # stopped at any moment, the same command goes on
    with exit_immediately() if is_resumable else nullcontext():
        try:
            return int(options.run(options))
        except Exception as error:
            return fail(error)


def train(options: argparse.Namespace) -> int:
    """Train as one of the ranks there are, or start as many as the experiment asks for."""
    from research.config.several import load_all
    from research.training.preflight import refuse_wrong_arguments

    experiments = load_all([options.experiment, *options.overrides])
    if options.task is not None:
        every = [config for configs in experiments for config in configs]
        if not 0 <= options.task < len(every):
            raise UserError(f"--task {options.task}: these experiments, folds and seeds are 0 to {len(every) - 1}.")
        experiments = [[every[options.task]]]
    for configs in experiments:
        for config in configs:
            refuse_wrong_arguments(config)

    def train_each(module: Any, group: RankGroup) -> int:
        for configs in experiments:
            for config in configs:
                code: int = module.train(config, group)
                if code != 0:
                    return code
            if len(configs) > 1 and group.world.rank == 0:
                from research.common.console import console
                from research.report.several_runs import summary_of
                from research.tracking.run import Run

                console.print(summary_of([Run.read(str(config.run_dir)) for config in configs]), markup=False)
        return 0

    return in_ranks(options, experiments[0][0].trainer, "research.training.run", train_each)


def show(options: argparse.Namespace) -> int:
    """Print what an experiment or a sweep is; train nothing."""
    from research.sweep import sweepfile
    from research.training.preflight import refuse_wrong_experiment

    if sweepfile.is_sweep(options.experiment):
        from research.sweep.space import read_sweep

        searched = read_sweep(options.experiment, options.overrides)
        refuse_wrong_experiment(sweepfile.searched_config(searched))
        prepare_process()
        from research.sweep.show import show as show_sweep

        show_sweep(searched)
        return 0
    from research.config.load import load_config

    config = load_config(options.experiment, options.overrides)
    refuse_wrong_experiment(config)
    prepare_process()
    from research.training.run import show

    show(config)
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Be a worker of a search, of as many ranks as its experiment asks for, or print how the search stands."""
    if options.sweep == "status":
        return sweep_status(options.overrides)
    from research.sweep.space import read_sweep
    from research.sweep.study import refuse_another_search
    from research.sweep.sweepfile import searched_config
    from research.training.preflight import refuse_wrong_experiment

    search, anyway = read_sweep(options.sweep, options.overrides), options.resume_anyway
    config = searched_config(search)
    refuse_wrong_experiment(config)
    refuse_another_search(search, config, anyway)
    return in_ranks(
        options, config.trainer, "research.sweep.worker", lambda module, group: module.work(search, group, anyway)
    )


def sweep_status(arguments: list[str]) -> int:
    """Print the trials of a search and when its end is to be expected."""
    if not arguments:
        raise UserError("research sweep status needs the sweep: its YAML file or its folder.")
    from research.sweep.sweepfile import load_sweep

    searched = load_sweep(arguments[0], arguments[1:])
    from research.sweep.study import read_search
    from research.sweep.trials_table import report

    report(read_search(searched))
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Fetch, check and tokenise what experiments need."""
    from research.config.load import load_config
    from research.training.preflight import refuse_wrong_experiment

    paths = [argument for argument in options.experiments if argument.endswith((".yaml", ".yml"))]
    for path in paths:
        refuse_wrong_experiment(load_config(path, [each for each in options.experiments if each not in paths]))
    prepare_process()
    from research.inference.prepare import prepare

    return prepare(options.experiments)


def submit(options: argparse.Namespace) -> int:
    """Check an experiment and queue it."""
    from research.cluster.submit import submit
    from research.training.preflight import refuse_wrong_experiment

    return submit(options.arguments, refuse_wrong_experiment)


def evaluate(options: argparse.Namespace) -> int:
    """Score a finished run again, and print its scores."""
    from research.inference.finished import refuse_evaluation
    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    refuse_evaluation(run, options.split)
    prepare_process()
    from research.common.console import print_scores
    from research.inference.evaluate import evaluate
    from research.metrics import score_labels
    from research.training.finish import worth

    scores = evaluate(run, options.split, options.trust_remote_code, options.logits)
    lowest, warning = worth(run, options.split)
    print_scores({options.split: scores}, score_labels((run.result or {}).get("metric")), lowest)
    if warning is not None:
        print(warning, file=sys.stderr)
    return 0


def predict(options: argparse.Namespace) -> int:
    """Label new text with a finished run."""
    from research.inference.finished import refuse_prediction
    from research.inference.inputs import refuse_two_sources
    from research.tracking.run import Run

    refuse_two_sources(options.input, options.text)
    run = Run.read(options.run_dir)
    refuse_prediction(run, options.input)
    prepare_process()
    from research.common.text import counted
    from research.inference.predict import predict

    rows = predict(
        run,
        options.input,
        options.output,
        texts=options.text,
        overrides=options.overrides,
        escape_formulas=options.escape_formulas,
        trust_remote_code=options.trust_remote_code,
    )
    if options.output != "-":
        print(f"{counted(rows, 'row')} written to {options.output}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Export a finished run, and print how far the export differs from it."""
    from pathlib import Path

    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    prepare_process()
    from research.deploy.export import export

    key = Path(options.sign) if options.sign else None
    found = export(
        run, Path(options.output), options.format, options.precision, options.tolerance, key, options.licence
    )
    print(f"{options.output}: {options.format}, {options.precision}; logits differ by {found.logits:.1e} at most")
    if found.examples:
        print(f"{found.labels_changed} of {found.examples} predictions changed")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check an exported folder; exit code 1 where a file is not the one that was written."""
    from pathlib import Path

    from research.deploy.manifest import verify

    wrong = verify(Path(options.folder), Path(options.key) if options.key else None)
    for sentence in wrong:
        print(sentence)
    if not wrong:
        print(f"{options.folder} is as it was exported")
    return 1 if wrong else 0


def serve(options: argparse.Namespace) -> int:
    """Serve finished runs over HTTP until a signal ends it."""
    from pathlib import Path

    from research.deploy.keys import add_key, default_path

    keys = Path(options.keys) if options.keys else default_path()
    if options.add_key:
        print(add_key(keys, options.add_key, options.key_rate))
        return 0
    if not options.runs:
        raise UserError("name the runs to serve: research serve runs/sst2/seed0")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when torch is imported
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # one for each new shape would stay
    prepare_process()
    from research.deploy.server import serve
    from research.deploy.service import Limits

    return serve(
        options.runs,
        host=options.host,
        port=options.port,
        keys_file=None if options.no_keys else keys,
        precision=options.precision,
        limits=Limits(options.max_body_bytes, options.max_texts, options.max_waiting_tokens, options.timeout_seconds),
    )


def index(options: argparse.Namespace) -> int:
    """Write the index of a corpus."""
    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    prepare_process()
    from research.retrieval.commands import index_corpus

    made = index_corpus(run, options.input, options.output, options.kind, options.column, options.trust_remote_code)
    print(f"{options.output}: {made.about.documents} documents, {made.about.kind}")
    return 0


def search(options: argparse.Namespace) -> int:
    """Search an index, and print a row for each query."""
    from research.tracking.run import Run

    if options.top < 1:
        raise UserError(f"--top {options.top} must be at least 1")
    run = Run.read(options.run_dir)
    prepare_process()
    from research.retrieval.commands import search_index

    count = search_index(
        run, options.index, options.queries, options.input, options.top, options.output, options.trust_remote_code
    )
    if options.output != "-":
        print(f"the documents of {count} queries written to {options.output}")
    return 0


def prune(options: argparse.Namespace) -> int:
    """Remove checkpoints that finished runs no longer need."""
    from research.inference.prune import prune

    return prune(options.runs, options.keep, options.yes)


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

    gc.set_threshold(100_000, 20, 50)  # records are many objects that stay: looking through them was 8 % of the time
    build(options.runs, Path(options.output), by=options.by, metric=options.metric, publish=options.wandb)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print what two sets of runs allow to say of each other."""
    if options.resamples < 100:
        raise UserError(f"--resamples {options.resamples} is too few for a test; take at least 100.")
    from research.report.compare import compare_runs, comparison_text
    from research.report.records import read_records

    asked = {"metric": options.metric, "split": options.split, "resamples": options.resamples}
    found = compare_runs(read_records(options.runs), read_records(options.against), correction=options.correct, **asked)
    print(comparison_text(found))
    return 0


def ensemble(options: argparse.Namespace) -> int:
    """Average the probabilities of runs; print what it gains."""
    from pathlib import Path

    from research.report.ensemble import ensemble_of, ensemble_text, write_ensemble
    from research.report.records import read_records

    found = ensemble_of(read_records(options.runs), options.metric, options.uniform)
    if options.output:
        write_ensemble(found, Path(options.output))
    print(ensemble_text(found))
    return 0


def soup(options: argparse.Namespace) -> int:
    """Average the weights of runs; print what it gains."""
    from pathlib import Path

    from research.inference.soup import make_soup, soup_text
    from research.tracking.run import Run

    output = Path(options.output)
    found = make_soup([Run.read(Path(run)) for run in options.runs], output, options.kind, options.trust_remote_code)
    print(soup_text(found, len(options.runs), output))
    return 0


def sync(options: argparse.Namespace) -> int:
    """Send offline W&B runs; exit code 1 unless all have arrived."""
    from pathlib import Path

    from research.tracking.sync import has_arrived, sync

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


def in_ranks(
    options: argparse.Namespace, trainer: TrainerConfig, name: str, work: Callable[[Any, RankGroup], int]
) -> int:
    """Do the work of a module as one of the ranks there are, or start as many as the experiment asks for."""
    from importlib import import_module

    from research.cluster.launch import launch
    from research.cluster.ranks import ranks_of

    prepare_process()
    world = ranks_of(trainer)
    if world.launcher is None:  # several ranks would take one another for strangers
        choose_waiting_policy()
    if world.launcher is None and world.size > 1:
        return launch(world.size, [sys.executable, "-P", "-m", "research.cli", *options.command_line])
    from research.cluster.group import LEAVE_SECONDS, rendezvous

    group = rendezvous(world, trainer.accelerator)  # before the other imports: they take seconds
    code = work(import_module(name), group)
    if code == 0:
        group.leave()
        if world.size > 1:  # threads of the process group may abort Python's own end
            sys.stdout.flush()
            os._exit(0)
    elif code == STOPPED and world.size > 1:
        group.leave(LEAVE_SECONDS)
        exit_stopped(world.rank)
    return code


def prepare_process() -> None:
    """What libraries read when they are imported, and how memory is kept."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():  # a log file
        for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
            os.environ.setdefault(name, "1")
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
