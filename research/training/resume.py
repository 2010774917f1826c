"""Resuming: put a checkpoint's weights and progress into a module, if it is of the same experiment."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import xxhash
from huggingface_hub import try_to_load_from_cache

from research.common.console import console
from research.common.errors import UserError
from research.config import component
from research.models.parameters import fingerprint, frozen_parameters
from research.training import checkpoint
from research.training.attempt import Attempt
from research.training.module import TaskModule
from research.training.progress import Progress
from research.training.state import load_weights


def resume(module: TaskModule, saved: checkpoint.Checkpoint) -> None:
    """Put weights and progress into the module; the optimiser's moments follow when Lightning has made it."""
    refuse_other_identity(saved, identity_of(module))
    module.progress = Progress(**saved.state["progress"])
    load_weights(module, saved)


def identity_of(module: TaskModule) -> dict[str, Any]:
    """What a checkpoint must share with a run to be resumed by it."""
    return {
        "task": component.canonical("task", module.config.task.name),
        "model": type(module.backbone.model).__name__,
        "data": {name: split.fingerprint for name, split in module.data.splits.items()},
        "encoded examples": encoded_examples(module),
        "files of augment": module.data.epochs.files() if module.data.epochs else {},
        "labels": module.data.labels,
        "tokenizer": hashlib.sha256(module.data.tokenizer_as_loaded.encode()).hexdigest(),
        "pretrained": pretrained_fingerprint(module),
        "frozen": frozen_fingerprint(module),
    }


def encoded_examples(module: TaskModule) -> dict[str, str]:
    """The digest of each split as it was encoded."""
    return {name: store.digest for name, store in module.data.stores.items()}


def pretrained_fingerprint(module: TaskModule) -> str | None:
    """Of config and weights that training began with: the files of a folder, or the revision of a hub model."""
    folder = Path(module.config.model.name)
    if not folder.is_dir():
        return hub_commit(module.config.model.name, module.config.model.revision)
    digest = xxhash.xxh3_64()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with open(path, "rb") as file:
            digest.update(f"{path.name} {checkpoint.checksum(file)}\n".encode())
    return digest.hexdigest()


def hub_commit(name: str, revision: str | None) -> str | None:
    """The commit of the hub that a cached model is of, None where the cache does not say."""
    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def frozen_fingerprint(module: TaskModule) -> str | None:
    """Of the weights that training leaves alone, which no checkpoint holds; None where all are trained."""
    frozen = frozen_parameters(module.backbone.model)
    return fingerprint(dict(frozen)) if frozen else None


def refuse_other_identity(saved: checkpoint.Checkpoint, identity: dict[str, Any]) -> None:
    """Raise UserError when a checkpoint belongs to another task, model or data."""
    theirs = dict(saved.state["identity"])
    theirs["task"] = component.canonical("task", theirs["task"])  # an earlier version recorded the name as it was given
    known = [key for key in identity if key in theirs]  # an earlier version recorded less
    wrong = [f"{key}: {theirs[key]} -> {identity[key]}" for key in known if theirs[key] != identity[key]]
    if wrong:
        raise UserError(
            f"The checkpoint {saved.path} cannot be resumed here, it is of another experiment: {'; '.join(wrong)} "
            "(there -> here). Restore the data, model or code it was made with, or choose another run_dir."
        )


def announce_resume(attempt: Attempt, ranks: int) -> None:
    """Say where a resumed run continues, and whether its layout changed."""
    saved = attempt.resumed_from
    if saved is None:
        if checkpoint.files(attempt.run.checkpoints):
            console.print(f"No checkpoint in {attempt.run.checkpoints} can be resumed: starting over.")
        return
    act = "Continuing the finished run" if attempt.run.is_continued else "Resuming"
    console.print(f"{act} {attempt.run.path} at step {saved.step}.")
    if saved.state["ranks"] != ranks:
        console.print(f"It ran on {saved.state['ranks']} ranks before and on {ranks} now; the steps stay the same.")
