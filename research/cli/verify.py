"""The command `research verify`: are the files of an exported folder those that were written?."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "are the files of an exported folder those that were written?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="exported folder")
    parser.add_argument("--key", metavar="FILE", help="public key (PEM) of the signature")


def run(options: argparse.Namespace) -> int:
    """Check an exported folder; exit code 1 where a file is not the one that was written."""
    from research.deploy.manifest import verify

    wrong = verify(Path(options.folder), Path(options.key) if options.key else None)
    for sentence in wrong:
        print(sentence)
    if not wrong:
        print(f"{options.folder} is as it was exported")
    return 1 if wrong else 0
