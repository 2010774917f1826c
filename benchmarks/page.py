"""The record of a benchmark as a page: medians of the pairs with their spread."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.cluster.devices import fast_precision

ROOT = Path(__file__).resolve().parent.parent
OURS = "harness"
PRECISION = fast_precision("cpu")  # of every system: that which this processor is fast in
AS_PRECISION = ["--bf16"] if PRECISION == "bf16" else []  # for the scripts of the Trainer
Figures = dict[str, float]


def ratios(rounds: Sequence[dict[str, Figures]], against: str, key: str = "examples_per_second") -> list[float]:
    """This harness over a peer, round by round."""
    return [pair[OURS][key] / pair[against][key] for pair in rounds]


def spread(values: Sequence[float]) -> str:
    """`median (least-most)`."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    from importlib.metadata import version

    import psutil
    import torch

    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "processor": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": PRECISION,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 1),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in ("torch", "transformers", "lightning", "accelerate", "datasets")},
        "commit": git.stdout.strip(),
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    m, results = record["machine"], record["results"]
    against, packages = record["against"], ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    lines = [
        f"# Speed, {record['date']}",
        "",
        f"`{record['command']}`",
        "",
        f"{m['processor']}, {m['cores']} cores, {m['threads']} threads, {m['memory_gib']} GiB, {m['precision']}, "
        f"load {m['load_average']} at the end; Python {m['python']}, {packages}; commit {m['commit']}.",
        "",
        "Examples per second of this harness over the Trainer's: median of the pairs (least-most).",
        "",
        *table(
            ["against the Trainer", *results],
            [[name, *(spread(ratios(r["rounds"], name)) for r in results.values())] for name in against],
        ),
        "",
        *table(["", *results], details(results, against)),
    ]
    return "\n".join(lines) + "\n"


def details(results: dict[str, Any], against: Sequence[str]) -> list[list[str]]:
    """The rows of the second table."""

    def row(name: str, cell: Any) -> list[str]:
        return [name, *(cell(result) for result in results.values())]

    def median(result: dict[str, Any], system: str, key: str) -> float:
        return float(statistics.median(pair[system][key] for pair in result["rounds"]))

    rows = [row("pairs", lambda r: str(len(r["rounds"])))]
    for system in (OURS, *against):
        rows += [
            row(f"{system}: examples/s", lambda r, s=system: f"{median(r, s, 'examples_per_second'):.1f}"),
            row(f"{system}: tokens/s", lambda r, s=system: f"{median(r, s, 'tokens_per_second'):.0f}"),
            row(f"{system}: peak memory, MiB", lambda r, s=system: f"{max(p[s]['peak_mib'] for p in r['rounds']):.0f}"),
        ]

    def share(r: Figures) -> float:
        return float(median(r, OURS, "tokens_per_second") * r["flops_per_token"] / r["matrix_rate"])

    return [
        *rows,
        row("matrix rate at the model's shapes, GFLOP/s", lambda r: f"{r['matrix_rate'] / 1e9:.0f}"),
        row("harness: share of it", lambda r: f"{share(r):.1%}"),
        *(
            row(f"{name}: seconds to first step", lambda r, n=name: spread(r["first_step"][n]))
            for name in ("harness, first time", "harness, again", "dynamic")
        ),
        *(
            row(f"{name}: evaluation, examples/s", lambda r, n=name: f"{r['evaluation_examples_per_second'][n]:.0f}")
            for name in (OURS, "dynamic")
        ),
        row("tokenising, examples/s", lambda r: f"{r['tokenising']['rows_per_second']:.0f}"),
        row("bare loop, CPU ms a step", lambda r: f"{1e3 * r['loop']['bare_seconds']:.1f}"),
        row("Lightning adds", lambda r: f"{r['loop']['lightning_adds_seconds'] / r['loop']['bare_seconds']:.1%}"),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
