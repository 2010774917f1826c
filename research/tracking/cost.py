"""What a run costs, over all its attempts: work that a kill undid is counted, for it was paid for.

`cost.json` in the run folder has one entry an attempt, rewritten while the attempt is running.
"""

from __future__ import annotations

import json
import logging
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from research.common.errors import UserError
from research.common.files import set_aside, write_json
from research.tracking.run import Run

log = logging.getLogger("research")
NOTE_SECONDS = 30.0
RAPL = Path("/sys/class/powercap")


class Meter:
    """Measures this attempt and adds it to those before."""

    def __init__(self, run: Run, ranks: int, tokens_done: int) -> None:
        self.run, self.path = run, run.path / "cost.json"
        self.before: list[dict[str, Any]] = read(run)
        self.ranks, self.tokens_before, self.began = ranks, tokens_done, time.monotonic()
        self.energy, self.written = EnergyCounter(), self.began

    def note(self, tokens_done: int) -> None:
        """Write what this attempt has cost so far, unless that was done half a minute ago."""
        if time.monotonic() - self.written > NOTE_SECONDS:
            self.record(tokens_done)

    def record(self, tokens_done: int) -> list[dict[str, Any]]:
        """Write what this attempt has cost so far. Returns all attempts."""
        attempts = [
            *self.before,
            {
                "wall_seconds": time.monotonic() - self.began,
                "ranks": self.ranks,
                "tokens": tokens_done - self.tokens_before,
                "energy_joules": self.energy.joules(),
            },
        ]
        try:
            write_json(self.path, attempts)
        except UserError:
            self.run.lock.refuse_if_taken_over()  # the attempt that has the folder now removes what others were writing
            raise
        self.written = time.monotonic()
        return attempts


def read(run: Run) -> list[dict[str, Any]]:
    """The attempts of a run so far. A damaged cost.json is set aside: training does not need it."""
    path = run.path / "cost.json"
    if not path.is_file():
        return []
    try:
        attempts = json.loads(path.read_text(encoding="utf-8"))
        total(attempts, 0.0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        kept = set_aside(path)
        log.warning("%s is damaged (%s) and kept as %s: earlier attempts' cost is lost.", path, error, kept.name)
        return []
    return attempts  # type: ignore[no-any-return]


def total(attempts: list[dict[str, Any]], flops_per_token: float) -> dict[str, Any]:
    """The sum over attempts. `energy_joules` is that of rank zero's node; None where a part of it is not known."""
    energy = [attempt["energy_joules"] for attempt in attempts]
    return {
        "attempts": len(attempts),
        "wall_seconds": sum(attempt["wall_seconds"] for attempt in attempts),
        "device_hours": sum(attempt["wall_seconds"] * attempt["ranks"] for attempt in attempts) / 3600,
        "devices": max((attempt["ranks"] for attempt in attempts), default=0),
        "tokens": sum(attempt["tokens"] for attempt in attempts),
        "flops": flops_per_token * sum(attempt["tokens"] for attempt in attempts),
        "energy_joules": None if None in energy else sum(energy),
    }


class EnergyCounter:
    """Energy used by this node's processors (RAPL) and GPUs (NVML) since it was made."""

    def __init__(self) -> None:
        self.packages = sorted(RAPL.glob("intel-rapl:?")) if RAPL.is_dir() else []
        self.first, self.gpus = _processor_microjoules(self.packages), _gpu_joules()

    def joules(self) -> float | None:
        """None where neither tells, or the GPUs do not, which use the most; of the GPUs alone where only they tell.

        A processor's counter that has restarted since is taken to have done so once.
        """
        now, gpus = _processor_microjoules(self.packages), _gpu_joules()
        if gpus is None or self.gpus is None or not (now or torch.cuda.is_available()):
            return None
        used = gpus - self.gpus
        for package, value in now.items():
            turns = int((package / "max_energy_range_uj").read_text()) if value < self.first[package] else 0
            used += (value + turns - self.first[package]) / 1e6
        return used


def _processor_microjoules(packages: list[Path]) -> dict[Path, int]:
    found = {}
    for package in packages:
        with suppress(OSError):  # most systems let root alone read it
            found[package] = int((package / "energy_uj").read_text())
    return found


def _gpu_joules() -> float | None:
    """None for GPUs that do not tell."""
    if not torch.cuda.is_available():
        return 0.0
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return float(sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)) / 1e3
    except Exception:  # whatever is wrong with the driver, the run continues
        return None


def peak_memory_mib() -> int:
    """The most that this process has held: of the GPU's memory, else of the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
