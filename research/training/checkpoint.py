"""Checkpoints: one safetensors file each, whose name carries its checksum.

`step-00000500-3fa9c1d2e4b5a697.safetensors` holds weights, optimiser moments and, in its header, the training
state. The file is intact exactly when its content hashes to its name; a reader takes the newest intact one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash
from safetensors import SafetensorError, safe_open

from research.common.errors import UserError, as_os_error
from research.common.files import follow_umask
from research.training.progress import Progress

if TYPE_CHECKING:  # torch takes seconds, and listing checkpoints needs none
    from torch import Tensor

    from research.cluster.group import RankGroup

log = logging.getLogger("research")
NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.safetensors")  # step, checksum
TEMPORARY_NAME = re.compile(r"step-\d{8,}")  # `.<name>.<process id>.tmp` while it is written


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, known to be intact."""

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        with safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def step_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def files(folder: Path) -> list[Path]:
    """Checkpoint files, newest step first; files of other names are none of ours."""
    found = [path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def checksum(file: BufferedReader) -> str:
    """XXH3, against damage, not malice: a fifth of the time that SHA-256 would keep a core from the next steps."""
    return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()


def is_intact(path: Path) -> bool:
    with open(path, "rb") as file:
        return checksum(file) == path.stem.split("-")[2]


def load(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        return Checkpoint(path, step_of(path), json.loads(file.metadata()["state"]))


def newest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint of a folder; each damaged one is named and passed over."""
    for path in files(folder):
        if is_intact(path):
            return load(path)
        log.warning("The checkpoint %s is damaged (its content does not hash to its name): it is passed over.", path)
    return None


def resumable(
    folder: Path, known: Mapping[str, int] | None = None, serves: Callable[[Checkpoint], bool] = lambda saved: True
) -> Checkpoint | None:
    """The newest intact checkpoint that `serves` and whose best evaluations, the run's and its parts', can still be
    returned to at the end of training.

    That of a step that is `known` to be the best needs no other: its own evaluation, which comes first, is better.
    """
    for path in files(folder):
        if not is_intact(path):
            log.warning("The checkpoint %s is damaged (its checksum differs from its name): it is passed over.", path)
            continue
        saved = load(path)
        if not serves(saved):
            continue
        bests = Progress(**saved.state["progress"]).best_steps if "progress" in saved.state else {}
        needed = [best for part, best in bests.items() if saved.step not in (best, (known or {}).get(part))]
        missing = [best for best in needed if at_step(folder, best) is None]
        if not missing:
            return saved
        log.warning("The best checkpoint (step %s) is missing from %s or damaged: training goes back before it, "
                    "instead of on from step %s.", missing[0], folder, saved.step)  # fmt: skip
    return None


def at_step(folder: Path, step: int) -> Checkpoint | None:
    """The intact checkpoint of this step, if there is one."""
    return next((load(path) for path in files(folder) if step_of(path) == step and is_intact(path)), None)


def agreed(group: RankGroup, choose: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """The checkpoint that rank 0 chooses, on every rank: another might see a newer one, or none."""

    def chosen() -> str | None:
        found = choose()
        return str(found.path) if found else None

    path = group.agree(chosen)
    return load(Path(path)) if path else None


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write a checkpoint completely or not at all."""
    from safetensors.torch import save_file

    temporary = folder / f".step-{step:08d}.{os.getpid()}.tmp"
    try:
        save_file(tensors, temporary, metadata={"state": json.dumps(state)})
        with open(temporary, "rb") as file:
            digest = checksum(file)
            os.fsync(file.fileno())
        follow_umask(temporary)
        path = folder / f"step-{step:08d}-{digest}.safetensors"
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        cause = as_os_error(error) or OSError(str(error))
        raise UserError(f"The checkpoint of step {step} could not be written to {folder}: {error}.") from cause
    finally:
        temporary.unlink(missing_ok=True)
    return path


class Writer:
    """Writes checkpoints in the background, one at a time; the tensors are copied before `submit` returns."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def submit(self, write: Callable[[dict[str, Tensor]], None], tensors: dict[str, Tensor]) -> None:
        """Copy the tensors and write them behind the next steps. Raises what the write before raised."""
        from research.models.sharding import copied

        self.wait()
        copies = {name: copied(tensor) for name, tensor in tensors.items()}
        self.pending = self.thread.submit(write, copies)

    def wait(self) -> None:
        """Return when everything submitted is on disk. Raises what the write raised."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()
