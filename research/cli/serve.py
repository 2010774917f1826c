"""The command `research serve`: an HTTP service of finished runs, with keys, limits and metrics."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from research.common.errors import UserError
from research.common.process import prepare_process

HELP = "an HTTP service of finished runs, with keys, limits and metrics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="run", help="run folder, or name=folder; its name in URLs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--keys", metavar="FILE", help="keys of clients; default: ~/.config/research/serve-keys.json")
    parser.add_argument("--no-keys", action="store_true", help="let everyone in who reaches the port")
    parser.add_argument("--add-key", metavar="NAME", help="make a key, print it, and end")
    parser.add_argument("--key-rate", type=float, metavar="N", help="with --add-key: requests it may make a second")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of activations; default: as trained")
    parser.add_argument("--threads", type=int, default=1, help="of computing (default: 1; one process a core)")
    parser.add_argument("--max-body-bytes", type=int, default=1_000_000)
    parser.add_argument("--max-texts", type=int, default=256, help="of one request")
    parser.add_argument("--max-waiting-tokens", type=int, default=65_536, help="above them: 503 with Retry-After")
    parser.add_argument("--feedback", metavar="DIR", help="keep feedback to answers there, without texts")
    parser.add_argument("--timeout-seconds", type=float, default=10.0, help="from a request to its answer, or 504")


def run(options: argparse.Namespace) -> int:
    """Serve finished runs over HTTP until a signal ends it."""
    from research.deploy.keys import add_key, default_path, read_keys
    from research.deploy.served_runs import names_of, refuse_unfinished

    keys = Path(options.keys) if options.keys else default_path()
    if options.add_key:
        print(add_key(keys, options.add_key, options.key_rate))
        return 0
    if not options.runs:
        raise UserError("name the runs to serve: research serve runs/sst2/seed0")
    runs = names_of(options.runs)
    refuse_unfinished(runs)
    if not options.no_keys:
        read_keys(keys)  # a damaged file is reported before the models are loaded
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when torch is imported
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # one for each new shape would stay
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # texts come one by one
    prepare_process(trains=False)
    from research.deploy.server import serve
    from research.deploy.service import Limits

    return serve(
        runs,
        host=options.host,
        port=options.port,
        keys_file=None if options.no_keys else keys,
        precision=options.precision,
        limits=Limits(
            options.max_body_bytes,
            options.max_texts,
            options.max_waiting_tokens,
            options.timeout_seconds,
            Path(options.feedback) if options.feedback else None,
        ),
    )
