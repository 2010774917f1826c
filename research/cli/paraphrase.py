"""The command `research paraphrase`: paraphrases of training texts by two translation runs, for augment.paraphrase."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.arguments import add_trust
from research.common.process import prepare_process

HELP = "paraphrases of training texts by two translation runs, for augment.paraphrase"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("forward", help="run folder of a translation into another language")
    parser.add_argument("backward", help="run folder of the translation back")
    parser.add_argument("--input", required=True, help="file of the texts (JSONL, CSV, ...)")
    parser.add_argument("--column", default="text", help="of the texts; default: text")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON lines to write")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Translate texts and translate them back."""
    from research.tracking.run import Run

    runs = Run.read(options.forward), Run.read(options.backward)
    prepare_process()
    from research.common.text import counted
    from research.inference.paraphrase import paraphrase

    output = Path(options.output)
    count = paraphrase(*runs, options.input, options.column, output, options.trust_remote_code)
    print(f"{counted(count, 'paraphrase')} written to {output}")
    return 0
