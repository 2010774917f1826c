"""The command `research export`: write a finished run as a folder to deploy, which gives the run's answers."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.common.process import prepare_process

HELP = "write a finished run as a folder to deploy, which gives the run's answers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--format", default="safetensors", choices=("safetensors", "onnx", "openvino", "torch"))
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16", "int8", "int8_static"),
        help="bf16: safetensors, openvino; int8: onnx",
    )
    parser.add_argument("--tolerance", type=float, default=0.01, help="of its score that may be lost; default: 0.01")
    parser.add_argument(
        "--vocabulary", action="append", default=[], metavar="FILE",
        help="keep the tokens of these texts alone: a file as the task reads it, or .txt, a text a line",
    )  # fmt: skip
    parser.add_argument("--sign", metavar="KEY", help="sign the list of files with a private key (PEM), by openssl")
    parser.add_argument("--licence", help="for the model card, as in apache-2.0; it is not guessed")


def run(options: argparse.Namespace) -> int:
    """Export a finished run, and print how far the export differs from it."""
    from research.inference.finished_run import refuse_several
    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    refuse_several(run)
    prepare_process()
    from research.deploy.export import export

    key = Path(options.sign) if options.sign else None
    found = export(
        run, Path(options.output), options.format, options.precision, options.tolerance, key, options.licence,
        [Path(file) for file in options.vocabulary],
    )  # fmt: skip
    print(f"{options.output}: {options.format}, {options.precision}; logits differ by {found.logits:.1e} at most")
    if found.examples:
        print(f"{found.labels_changed} of {found.examples} predictions changed")
    if found.not_covered:
        print(f"{found.not_covered} of {found.examples} texts hold tokens that the vocabulary has not")
    return 0
