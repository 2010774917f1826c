"""The command `research redact`: replaces personal data in lines of text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from research.common.errors import UserError
from research.common.process import prepare_process
from research.common.text import counted

HELP = "replace personal data in text: e-mail, phone, IBAN, cards, addresses; names by a ner run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", default="-", metavar="FILE", help="lines of text or of JSON; default: standard input"
    )
    parser.add_argument("--output", default="-", metavar="FILE", help="default: standard output")
    parser.add_argument("--names", metavar="RUN", help="run of the task ner that finds names")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="with --names: which entities; default: all")
    parser.add_argument("--same-length", action="store_true", help="a block for each character, so that offsets hold")
    parser.add_argument("--places", metavar="FILE", help="write where it was, a JSON line each")


def run(options: argparse.Namespace) -> int:
    """Replace personal data in lines of text."""
    from research.deploy.redact import finder, redact_file
    from research.deploy.served_runs import refuse_unfinished

    predictor = None
    if options.names:
        refuse_unfinished({options.names: Path(options.names)})
        prepare_process()
        from research.deploy.service import predictor_at

        predictor = predictor_at(Path(options.names), None)
    elif options.kinds:
        raise UserError("--kinds names entities of a run; name it by --names.")
    count = redact_file(
        options.input, options.output, finder(predictor, options.kinds), options.places, options.same_length
    )
    print(f"{counted(count, 'place')} redacted", file=sys.stderr)
    return 0
