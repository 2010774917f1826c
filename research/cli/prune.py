"""The command `research prune`: remove checkpoints that finished runs no longer need, after showing them."""

from __future__ import annotations

import argparse

HELP = "remove checkpoints that finished runs no longer need, after showing them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="run", help="run folders, or folders that hold them")
    parser.add_argument("--keep", choices=("none", "best"), default="best", help="checkpoint to keep; default: best")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Remove checkpoints that finished runs no longer need."""
    from research.inference.prune import prune

    return prune(options.runs, options.keep, options.yes)
