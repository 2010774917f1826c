"""Every method and every adapter on every task: a step's gradients, or a refusal that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from research.common.errors import UserError
from research.config import component
from tests.adapters.test_every_adapter import KEYS
from tests.methods.conftest import ready
from tests.methods.strengths import ON
from tests.methods.test_every_method import CHANGES_GRADIENTS, gradients
from tests.tasks.test_conformance import ONES, UNTRAINED, experiment_of
from tests.tasks.test_translation import make_model

ALIKE = ("summarization", "generation", "generative_qa")  # all but their data is of translation
TASKS = [task for task in ONES if task not in (*UNTRAINED, *ALIKE)]
OF_STEPS = {"fgm", "freelb", "mixup", "pgd", "r3f", "r_drop", "simcse", "smart", "supcon"}  # the loss is the task's own
WRITES = {"mixup", "simcse", "supcon"}
REFUSED_METHODS = {
    "matching": OF_STEPS, "recommendation": OF_STEPS, "setfit": OF_STEPS,
    "translation": WRITES, "dialogue": WRITES, "lm": WRITES, "span_corruption": {*WRITES, "l2_sp", "mixout"},
    "multi_label": {"mixup", "r3f", "r_drop", "smart", "supcon"},
    "regression": {"mixup", "r3f", "r_drop", "smart", "supcon"},
    "nli_zero_shot": {"mixup"},
    **{task: {"mixup", "supcon"}
       for task in ("extractive_qa", "intent_slots", "mlm", "multiple_choice", "ner", "nsp", "rerank")},
}  # fmt: skip
REFUSED_ADAPTERS = {
    "matching": {"head"}, "recommendation": {"head"}, "setfit": {"head"}, "lm": {"head", "prefix"},
    "translation": {"bitfit", "head", "prefix"}, "dialogue": {"bitfit", "head", "prefix"},  # of T5
    "span_corruption": {*component.names("adapter")} - {"full"},  # of a model from scratch
}  # fmt: skip
METHODS = sorted(ON.keys() - {"distil", "ewc"})  # which need an earlier run: tests/methods


def step(path: Path, *overrides: str, **section: Any) -> dict[str, Tensor] | str:
    """The gradients of the first step, or why there is none."""
    written = [f"{name}={json.dumps(value)}" for name, value in section.items()]
    try:
        return gradients(ready(path, ["model.dropout=0.1", *overrides, *written]))
    except UserError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_each_method(task: str, tmp_path: Path) -> None:
    path = experiment_of(task, tmp_path)
    plain, refused = step(path), set()
    assert not isinstance(plain, str)
    for name in METHODS:
        found = step(path, methods={name: ON[name]})
        if isinstance(found, str):
            assert f"methods.{name} " in found, found
            refused.add(name)
            continue
        assert all(g.isfinite().all() for g in found.values()), name
        differs = any(not g.equal(plain[key]) for key, g in found.items() if key in plain)
        assert differs == (name in CHANGES_GRADIENTS) or name == "l2_sp", name  # which pulls by nothing at the start
    assert refused == REFUSED_METHODS.get(task, set())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_each_adapter(task: str, tmp_path: Path) -> None:
    path = experiment_of(task, tmp_path)
    refused = set()
    for name in component.names("adapter"):
        found = step(path, adapter={"name": name, **KEYS.get(name, {})})
        if isinstance(found, str):
            assert name in found, found
            refused.add(name)
            continue
        assert all(g.isfinite().all() for g in found.values()) and any(g.any() for g in found.values()), name
    assert refused == REFUSED_ADAPTERS.get(task, set())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bart", "t5", "gpt2"])
def test_moved_tokens_of_models_that_write_are_the_same_packed_and_padded(kind: str, tmp_path: Path) -> None:
    """The tokens of the source; an encoder-decoder reads them by its encoder's embedding."""
    path = experiment_of("translation", tmp_path)
    keys = (f"model.name={make_model(tmp_path / kind, kind)}", "model.dropout=0.0", "trainer.precision=fp32",
            "task.max_target_tokens=16")  # fmt: skip
    plain = step(path, *keys)
    assert isinstance(plain, dict)
    for name in ("fgm", "r3f"):
        packed, padded = (
            step(path, *keys, f"trainer.packing={packing}", methods={name: ON[name]}) for packing in ("true", "false")
        )
        assert isinstance(packed, dict) and isinstance(padded, dict)
        largest = max(float(g.abs().max()) for g in packed.values())
        for key, g in packed.items():
            assert float((padded[key] - g).abs().max()) <= 2e-5 * max(largest, 1.0), (name, key)
        assert any(not g.equal(plain[key]) for key, g in packed.items()), name
