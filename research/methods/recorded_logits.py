"""The logits of a run on its training data: one file in its folder, written once, with where it comes from.

`logits/train.safetensors` of a run holds `counts` (E,) the targets of each example, `widths` (M,) the classes of each
target, and for each distribution of a target its logits, end to end: `logits.0`, `logits.1`, ... Its metadata name the
labels, the data and the trained model.

Shapes: E examples, M targets in the order of their examples, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from research.common.errors import UserError
from research.common.files import write_atomically
from research.data.source import file_sha256

if TYPE_CHECKING:
    from research.batching.plan import Indices
    from research.methods.hooks import Trained

FILE = Path("logits") / "train.safetensors"
KEY = "research"


@dataclass
class RecordedLogits:
    """The recorded logits of a run."""

    path: Path
    facts: dict[str, Any]  # labels, rows, drawn, examples, encoded_xxh3, follows_tokens, result_sha256
    counts: Indices  # (E,)
    widths: Indices  # (M,)
    logits: list[NDArray[np.float32]]  # of each distribution, flat
    digest: str  # sha256 of the file

    def __post_init__(self) -> None:
        self.last = np.cumsum(self.counts)  # (E,) the target after the last of each example
        self.ends = np.cumsum(self.widths)  # (M,)

    @classmethod
    def read(cls, run: str) -> RecordedLogits:
        """Raises UserError for a folder without recorded logits, a damaged file, and one of an earlier training."""
        path = Path(run) / FILE
        result = Path(run) / "result.json"
        if not result.is_file():
            raise UserError(f"methods.distil.teacher={run} is no finished run: it has no result.json.")
        if not path.is_file():
            raise UserError(
                f"methods.distil.teacher={run} has no recorded logits of its training data; write them once by "
                f"`research evaluate {run} --split train --logits`."
            )
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()[KEY])
                names = sorted((name for name in file.keys() if name.startswith("logits.")), key=lambda n: int(n[7:]))  # noqa: SIM118  not a dict
                logits = [file.get_tensor(name) for name in names]
                counts, widths = file.get_tensor("counts"), file.get_tensor("widths")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); remove it and record the logits again.") from None
        if facts["result_sha256"] != file_sha256(result):
            raise UserError(f"{path} is of an earlier training of {run}; remove it and record the logits again.")
        return cls(path, facts, counts, widths, logits, file_sha256(path))

    def refuse_other(self, module: Trained) -> None:
        """Raise UserError unless the module is trained on the labels, the rows and the targets of the logits."""
        mine, theirs = facts_of(module.data, "train", module.targets_are_tokens), self.facts
        named = {
            "labels": ("labels", f"{', '.join(theirs['labels'])}; here they are {', '.join(mine['labels'])}"),
            "rows": ("training data", "of another file, or an edited one"),
            "drawn": ("training data", "; here ".join(d["drawn"].strip("; ") or "all rows" for d in (theirs, mine))),
            "examples": ("training data", f"{theirs['examples']} examples; here {mine['examples']}"),
            "encoded_xxh3": ("windows", "cut otherwise; tokenizer and data.max_length must be the teacher's"),
        }
        for name, (what, said) in named.items():
            if theirs[name] != mine[name]:
                raise UserError(
                    f"methods.distil cannot follow {self.path.parent.parent}, a run of other labels or data: its "
                    f"{what} are {said}."
                )

    def of(self, examples: Indices) -> list[Tensor]:
        """The logits (M, C) of the targets of these examples, in their order; each example counts once.

        Minus infinity where a target has no such class.
        """
        each = list(dict.fromkeys(examples.tolist()))
        lasts, counts = self.last[each], self.counts[each]
        rows = np.concatenate([np.arange(0), *map(np.arange, lasts - counts, lasts)])
        widths, ends = self.widths[rows, None], self.ends[rows, None]  # (M, 1)
        columns = np.arange(int(widths.max(initial=0)))
        there = columns < widths  # (M, C)
        grids = [np.full(there.shape, -np.inf, np.float32) for _ in self.logits]
        for grid, flat in zip(grids, self.logits, strict=True):
            grid[there] = flat[(ends - widths + columns)[there]]
        return [torch.from_numpy(grid) for grid in grids]


def facts_of(data: Any, split: str, follows_tokens: bool) -> dict[str, Any]:
    """What logits belong to: the labels, the rows, and for targets among a window's tokens how it is cut."""
    opened = data.splits[split]
    return {
        "labels": list(data.labels),
        "rows": opened.fingerprint,
        "drawn": opened.drawn,
        "examples": len(opened.rows),
        "encoded_xxh3": data.stores[split].digest if follows_tokens else None,
    }


def write(run: Path, facts: Mapping[str, Any], examples: Mapping[int, list[Tensor]]) -> Path:
    """Write the logits of each example, one tensor (M, C) for each distribution, and return the file's path."""
    rows = [[logits.float().cpu() for logits in examples[i]] for i in range(len(examples))]
    widths = [_widths(each[0]) for each in rows]
    tensors: dict[str, NDArray[Any]] = {
        "counts": np.array([len(each) for each in widths], np.int64),
        "widths": np.array([width for each in widths for width in each], np.int64),
    }
    for d in range(len(rows[0])):
        flat = (row[:width] for each, own in zip(rows, widths, strict=True) for row, width in _of(each[d], own))
        tensors[f"logits.{d}"] = _joined(flat)
    path = run / FILE
    path.parent.mkdir(exist_ok=True)
    metadata = {KEY: json.dumps({**facts, "result_sha256": file_sha256(run / "result.json")})}
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata)
    return path


def _widths(logits: Tensor) -> list[int]:
    """The classes of each target; those that it lacks are minus infinity, at the end."""
    return [int(n) for n in (logits > -torch.inf).sum(1)]


def _of(logits: Tensor, widths: list[int]) -> Iterable[tuple[NDArray[np.float32], int]]:
    return zip(logits.numpy(), widths, strict=True)


def _joined(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *parts])
