"""Choose the rows of a pool that are worth labelling next, by what a finished run says of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from research.batching.pack import pack
from research.batching.plan import micro_batches
from research.common.errors import UserError
from research.common.files import write_atomically
from research.data.overview import normal
from research.data.source import Split
from research.inference.acquisition import NEED_VECTORS, Floats, chosen
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.models.pooling import pooled
from research.models.windows import mean_over_windows
from research.tracking.run import Run
from research.training.build import build

log = logging.getLogger("research")


def select(run: Run, pool: str, budget: int, strategy: str, output: Path, seed: int = 0) -> int:
    """Write `budget` rows of the pool to label next, the first ones first. Returns how many there are.

    Rows whose text is in the training data are left out. Raises UserError for a pool that overlaps the test data, for a
    task that does not give each text one class, and for fewer rows than the budget.
    """
    config, learned = finished_config(run), finished_result(run)["learned"]
    data = task_data(run, config)
    if data.class_column is None or data.gold != ("label",):
        raise without_classes(config.task.name)
    data.open(learned)
    data.open_input(pool, learned)
    rows, names = data.splits["input"], data.inputs
    keys = keys_of(rows, names)
    for split in ("test", "validation"):
        if split in data.splits and (shared := set(keys) & set(keys_of(data.splits[split], names))):
            where = rows.where(next(i for i, each in enumerate(keys) if each in shared))
            raise UserError(
                f"{len(shared)} texts of {pool} are in the {split} data, such as {where}: what is scored on must not "
                "be trained on; take them out of the pool."
            )
    known = set(keys_of(data.splits["train"], names))
    free = np.array([i for i, each in enumerate(keys) if each not in known], np.int64)
    if len(free) < len(keys):
        log.warning("%d rows of %s are in the training data already and are left out.", len(keys) - len(free), pool)
    if len(free) < budget:
        raise UserError(f"--budget {budget}: {pool} has {len(free)} rows that are not in the training data.")
    module = build(config, data).eval()
    needs = strategy in NEED_VECTORS
    probabilities, vectors = answers(module, "input", needs)
    labelled = answers(module, "train", True)[1] if strategy == "coreset" else None
    of_free = vectors[free] if vectors is not None else None
    rng = np.random.default_rng([seed, 0xAC])
    picked = free[chosen(strategy, budget, rng, probabilities[free], of_free, labelled)]
    with write_atomically(output) as path:
        lines = [{k: v for k, v in rows.rows[int(i)].items() if k != "__line__"} for i in picked]
        path.write_text("".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines), "utf-8")
    return len(picked)


def without_classes(task: str) -> UserError:
    return UserError(
        f"task '{task}' gives no probabilities of one class for each text to choose by; tasks such as sentiment and "
        "relation do."
    )


def keys_of(split: Split, names: list[str]) -> list[tuple[str, ...]]:
    """The texts of each row, normalised."""
    columns = [split.rows[name][:] for name in names if name in split.rows.column_names]
    return [tuple(normal(text or "") for text in texts) for texts in zip(*columns, strict=True)]


@torch.inference_mode()
def answers(module: Any, split: str, with_vectors: bool) -> tuple[Floats, Floats | None]:
    """Probabilities of a split's rows, (P, C), and the mean vectors of their tokens, (P, W), where asked for."""
    store = module.data.stores[split]
    found: dict[int, dict[str, Any]] = {}
    vectors: dict[int, Floats] = {}
    for part in micro_batches(
        np.arange(len(store)), store.stream_tokens, module.budget_tokens, not module.backbone.packed
    ):
        micro = pack(store, part, module.backbone.packed)
        found.update(module.decode(micro, module.outputs(micro)))
        if with_vectors:
            each = pooled(module.backbone.hidden_states(micro.first), micro.first, "mean")
            vectors.update(zip(part.tolist(), mean_over_windows(each, micro.examples).numpy(), strict=True))
    if any("probabilities" not in row for row in found.values()):
        raise without_classes(module.config.task.name)
    probabilities = np.stack([found[i]["probabilities"] for i in range(len(store))]).astype(np.float64)
    stacked = np.stack([vectors[i] for i in range(len(store))]).astype(np.float64) if with_vectors else None
    return probabilities, stacked
