"""The command `research`. Each command is a file of this folder, `add_arguments` and `run`; arguments and YAML are
checked first, torch is imported after."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from research.cli.arguments import parsed
from research.cluster import signals
from research.cluster.failure import fail
from research.cluster.signals import exit_immediately


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on standard error and exit code 2."""
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
        print("research: interrupted; run the same command to resume from the last checkpoint.", file=sys.stderr)
        return 130


def run_command(arguments: list[str]) -> int:
    """Parse the arguments and run what they name; an error is reported in a sentence."""
    options = parsed(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    is_resumable = getattr(options.command, "IS_RESUMABLE", False)
    with exit_immediately() if is_resumable else nullcontext():
        try:
            return int(options.command.run(options))
        except Exception as error:
            return fail(error)
