"""The command `research index`: write an index of a corpus, a vector of each document by a finished run."""

from __future__ import annotations

import argparse

from research.cli.arguments import add_trust
from research.common.process import prepare_process

HELP = "write an index of a corpus: a vector of each document by a finished run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder, of task matching")
    parser.add_argument("--input", required=True, metavar="FILE", help="corpus: JSONL, CSV, TSV, Parquet")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the index")
    parser.add_argument("--column", help="of the documents; default: document, or else text")
    parser.add_argument("--kind", choices=("exact", "hnsw"), default="exact", help="hnsw: approximate, by faiss")
    parser.add_argument("--size", type=int, help="first numbers of each vector, one of the run's task.dimensions")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Write the index of a corpus."""
    from research.inference.finished_run import refuse_prediction
    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    refuse_prediction(run, options.input)
    prepare_process()
    from research.retrieval.commands import index_corpus

    made = index_corpus(
        run, options.input, options.output, options.kind, options.column, options.size, options.trust_remote_code
    )
    print(f"{options.output}: {made.about.documents} documents of {made.about.width} numbers, {made.about.kind}")
    return 0
