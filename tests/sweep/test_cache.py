"""Trials of one worker share opened data, but not what depends on their seed, batch size or augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from research.config.load import load_config
from research.sweep.cache import TrialCache
from research.training.build import build
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns


@pytest.mark.slow
def test_a_trial_has_its_own_augmentation_and_unlabelled_texts(small_runs: SmallRuns) -> None:
    file = write_jsonl(
        small_runs.folder / "unlabelled.jsonl", [{"text": f"the good film {i} in Oslo"} for i in range(9)]
    )
    data: dict[str, Any] = {"max_length": 48, **small_runs.data["sentiment"]}
    semi: dict[str, Any] = {"data": {**data, "unlabelled": str(file)}, "methods": {"mean_teacher": {}}}
    augmented: dict[str, Any] = {"augment": {"swap": {"share": 1.0, "rate": 0.5}}, "data": data}
    cache = TrialCache()
    for sections, overrides in (
        (augmented, ["seed=0"]), (augmented, ["seed=1"]), (augmented, ["augment.swap.rate=0.1"]),
        (semi, ["methods.mean_teacher.weight=0"]), (semi, ["optim.batch_size=2"]), (semi, ["optim.batch_size=3"]),
    ):  # fmt: skip
        (_, path, *given), _ = small_runs.arguments("sentiment", (), sections)
        config = load_config(path, [*given, *overrides])
        mine, alone = cache.build(config).data, build(config).data
        assert mine.plan.global_batch(1).tolist() == alone.plan.global_batch(1).tolist()
        assert sorted(mine.splits) == sorted(alone.splits)
        pairs = zip(
            *(each.training_store(1).columns["input_ids"].rows(np.arange(12)) for each in (mine, alone)), strict=True
        )
        assert all(a.tolist() == b.tolist() for a, b in pairs)
