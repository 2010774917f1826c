"""The arguments of the commands; each command is a file of this folder and adds its own."""

from __future__ import annotations

import argparse
from importlib import import_module

from research import __version__

COMMANDS = (  # in the order of the help: on experiments, on recorded runs, on corpora
    "train", "show", "sweep", "continual", "simulate-active", "self-train", "prepare", "submit",
    "evaluate", "predict", "export", "verify", "serve", "redact", "prune", "report", "compare", "ensemble", "soup",
    "relations", "paraphrase", "sync", "index", "search", "mine", "select",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="research", description="Fine-tune transformers, with publication-ready numbers."
    )
    top.add_argument("--version", action="version", version=f"research {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = import_module(f"research.cli.{name.replace('-', '_')}")
        settings = getattr(command, "PARSER", {})
        added = commands.add_parser(name, help=command.HELP, description=command.HELP, **settings)
        added.set_defaults(command=command)
        command.add_arguments(added)
    return top


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options; `key=value` and queries may stand after options too, where argparse takes no more of them."""
    top = parser()
    options, rest = top.parse_known_args(arguments, argparse.Namespace(command_line=arguments))
    if "queries" in options and not any(each.startswith("-") for each in rest):
        options.queries, rest = [*options.queries, *rest], []
    if rest and not ("overrides" in options and all("=" in each and each[0] != "-" for each in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option to run code of a model folder."""
    help = "run Python code that the run's model folder brings along; read it first"
    parser.add_argument("--trust-remote-code", action="store_true", help=help)
