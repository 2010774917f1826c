"""The command `research mine`: hard negatives, or candidates to rerank, for the queries of a file."""

from __future__ import annotations

import argparse

from research.cli.arguments import add_trust
from research.common.errors import UserError
from research.common.process import prepare_process

HELP = "hard negatives, or candidates to rerank, for the queries of a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder, of task matching")
    parser.add_argument("--input", required=True, metavar="FILE", help="rows of query and document")
    parser.add_argument("--output", required=True, metavar="FILE", help=".jsonl; its provenance is written beside it")
    parser.add_argument("--corpus", metavar="FILE", help="more documents to choose from")
    parser.add_argument("--negatives", type=int, default=4, metavar="N", help="of each row (default: 4)")
    parser.add_argument("--share", type=float, default=0.95, help="of the positive's cosine: more is no negative")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out so many of the best")
    parser.add_argument("--lists", type=int, metavar="K", help="write the best K of each query, for task rerank")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Write hard negatives, or lists of candidates."""
    from research.inference.finished_run import refuse_prediction
    from research.tracking.run import Run

    for name, least in (("negatives", 1), ("skip", 0), ("lists", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            raise UserError(f"--{name} {value} must be at least {least}")
    if not 0 < options.share <= 1:
        raise UserError(f"--share {options.share} must be in (0, 1]")
    trained = Run.read(options.run_dir)
    refuse_prediction(trained, options.input)
    prepare_process()
    from research.retrieval.mine import Asked, mine

    asked = Asked(options.negatives, options.share, options.skip)
    about = mine(
        trained, options.input, options.output, asked, options.lists, options.corpus, options.trust_remote_code
    )
    said = {name: about[name] for name in ("negatives", "filtered", "rows_with_fewer", "missed") if name in about}
    print(f"{options.output}: {about['rows']} rows; " + ", ".join(f"{name} {count}" for name, count in said.items()))
    return 0
