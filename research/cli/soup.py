"""The command `research soup`: one model from the mean of several runs' weights, chosen on validation."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.arguments import add_trust

HELP = "one model from the mean of several runs' weights, chosen on validation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="run", help="run folders, of one pretrained model")
    parser.add_argument("--kind", choices=("greedy", "uniform"), default="greedy")
    parser.add_argument("--output", required=True, metavar="DIR", help="new folder for model and predictions")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Average the weights of runs; print what it gains."""
    from research.inference.soup import make_soup, soup_text
    from research.tracking.run import Run

    output = Path(options.output)
    found = make_soup([Run.read(Path(run)) for run in options.runs], output, options.kind, options.trust_remote_code)
    print(soup_text(found, len(options.runs), output))
    return 0
