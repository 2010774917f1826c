"""The command `research search`: the best documents of an index for each query."""

from __future__ import annotations

import argparse

from research.cli.arguments import add_trust
from research.common.errors import UserError
from research.common.process import prepare_process

HELP = "the best documents of an index for each query, as JSON lines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="the run whose model made the index")
    parser.add_argument("queries", nargs="*", metavar="query", help="text to search for")
    parser.add_argument("--index", required=True, metavar="DIR", help="what research index wrote")
    parser.add_argument("--input", metavar="FILE", help="file of queries, column query")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="documents of each query (default: 10)")
    parser.add_argument("--output", default="-", help="file to write: .jsonl, .csv, .parquet; default: JSON lines here")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Search an index, and print a row for each query."""
    from research.inference.finished_run import refuse_prediction
    from research.tracking.run import Run

    if options.top < 1:
        raise UserError(f"--top {options.top} must be at least 1")
    run = Run.read(options.run_dir)
    refuse_prediction(run, options.input)
    prepare_process()
    from research.retrieval.commands import search_index

    count = search_index(
        run, options.index, options.queries, options.input, options.top, options.output, options.trust_remote_code
    )
    if options.output != "-":
        print(f"the documents of {count} queries written to {options.output}")
    return 0
