"""Where a run came from: code, packages, hardware, command, data and weights."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from research.cluster import slurm
from research.cluster.signals import Interrupted
from research.common.errors import UserError
from research.common.files import write_json
from research.tracking.run import Run

PACKAGE = Path(__file__).parent.parent
LARGEST_DIFF_BYTES = 1_000_000
# Files that hold passwords and keys: their changes are not kept.
SECRET_FILES = (".env*", "*.env", "*.pem", "*.key", "id_rsa*", "id_ed25519*", ".netrc", ".pgpass", ".npmrc", ".pypirc",
                "*secret*", "*credential*", "*.kdbx", "*.p12")  # fmt: skip
ENDED_WITHOUT_RECORD = "lost: killed, or by a power cut or a node failure"


def attempt(command: list[str], ranks: int, resumed_from: int | None, components: Mapping[str, Any]) -> dict[str, Any]:
    """One start of a run. A resumed run has several, perhaps with other code or on other machines."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "resumed_from_step": resumed_from,
        "command": command,
        "ranks": ranks,
        "code": code(PACKAGE),
        "components": dict(components),
        "host": socket.gethostname(),
        "slurm": slurm.job(),
        "hardware": hardware(),
        "ended": None,
    }


@contextmanager
def recorded(
    run: Run,
    data: Mapping[str, Any],
    model_name: str,
    facts: Mapping[str, Any],
    resumed_from: int | None,
    ranks: int,
    components: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Adds this attempt to a run's record; when the block ends, however it may, how the attempt `ended`.

    `data`: what is known of each split; `facts`: what else of the model belongs into the record; `components`: the
    user's own files, as `components.keep` returns them.
    """
    before, this = run.provenance, attempt(sys.argv, ranks, resumed_from, components)
    earlier = [{**each, "ended": each.get("ended") or ENDED_WITHOUT_RECORD} for each in before.get("attempts", [])]
    content = {
        "attempts": [*earlier, this],
        "data": data,
        "weights": before.get("weights") or weights_sha256(model_name),
        **({"parent": parent} if (parent := before.get("parent") or parent_of(model_name)) else {}),
        **facts,
        "packages": packages(),
    }
    write_json(run.path / "provenance.json", content)
    try:
        yield this
    except BaseException as error:
        words = " ".join(str(error).split())[:500] or type(error).__name__
        this["ended"] = "stopped" if isinstance(error, Interrupted) else f"failed: {words}"
        raise
    finally:
        with suppress(UserError):  # what ended it matters more
            run.lock.refuse_if_taken_over()
            write_json(run.path / "provenance.json", content)


def code(folder: Path) -> dict[str, Any]:
    """Commit and uncommitted changes of this package's repository, as far as there is one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    diff = git("diff", "HEAD", "--", ".", *(f":(exclude,glob,icase)**/{name}" for name in SECRET_FILES)) or ""
    remote = without_secrets((git("remote", "get-url", "origin") or "").strip())
    return {
        "commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "remote": remote or None,
        "uncommitted_diff": diff if len(diff) <= LARGEST_DIFF_BYTES else f"{len(diff)} characters, not kept",
        "source_sha256": source_sha256(folder),
    }


def without_secrets(remote: str) -> str:
    """The address of a git remote without user, password and query, which may hold a token."""
    return re.sub(r"[?#].*$", "", re.sub(r"//[^/]*@", "//", remote))


def source_sha256(folder: Path) -> str:
    """One hash over the package's Python files: equal code, equal hash, with or without git."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def packages() -> dict[str, str]:
    """Name and version of every installed package."""
    return dict(sorted((d.metadata["Name"], d.version) for d in distributions() if d.metadata["Name"]))


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators of this machine."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_mib": memory,
        "gpus": gpus,
        "python": sys.version.split()[0],
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def parent_of(model_name: str) -> dict[str, str] | None:
    """The run whose model another run begins with, and the sha256 of its result; None for other models."""
    folder = Path(model_name).parent
    result = folder / "result.json"
    if Path(model_name).name != "model" or not (folder / "config.yaml").is_file() or not result.is_file():
        return None
    return {"run": str(folder), "result_sha256": hashlib.sha256(result.read_bytes()).hexdigest()}


def weights_sha256(model_name: str) -> dict[str, str]:
    """sha256 of each weights file of a local model folder; a hub model is named by its revision instead."""
    from research.data.source import file_sha256

    folder = Path(model_name)
    files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("pytorch_model*.bin"))]
    return {path.name: file_sha256(path) for path in files}
