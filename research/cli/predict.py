"""The command `research predict`: label new text with a finished run."""

from __future__ import annotations

import argparse

from research.cli.arguments import add_trust
from research.common.process import prepare_process

HELP = "label new text with a finished run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="how to read it: data.columns.text=body")
    parser.add_argument("--input", help="file with the task's columns (JSONL, CSV, ...); -: standard input")
    parser.add_argument("--text", action="append", default=[], help="a text to label; give it as often as you like")
    parser.add_argument("--output", default="-", help="file to write: .jsonl, .csv, .parquet; default: JSON lines here")
    parser.add_argument("--escape-formulas", action="store_true", help="in CSV, a ' before what a spreadsheet computes")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Label new text with a finished run."""
    from research.inference.finished_run import refuse_prediction
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
