"""Tasks beside classification, NER and QA: stopped and resumed to the bit, and on two ranks what one rank gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForMaskedLM

from research.cli import main
from research.tracking.run import Run
from tests.conftest import make_tiny_model, write_jsonl
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding
from tests.tasks.test_conformance import KINDS, MODELS, SCRATCH, TASKS, VALUES, WORDS
from tests.tasks.test_translation import make_model

KEYS = {  # of the task, beside its defaults
    "hierarchical": [f"task.hierarchy={VALUES['hierarchy'][0]}"],
    "relation": ["task.typed=true", "data.max_length=48"],
    "setfit": ["task.iterations=2"],
    "generative_qa": ["task.max_new_tokens=8"],
}


def paired(i: int) -> dict[str, Any]:
    return {**TASKS["classification"][0](i), "text_pair": f"a good film {i % 5}"}


def documents(i: int) -> dict[str, Any]:
    """Three entities and six pairs; of test data one has a type that training never showed."""
    text, own = f"Anna in {WORDS[i % 6]} at Oslo {i}", 8 + len(WORDS[i % 6])
    kind = "GREAT_RIVER" if i >= 200 else ("WORK", "THING")[i % 2]
    entities = [[0, 4, "PERSON"], [8, own, kind], {"start": own + 4, "end": own + 8}]
    return {"text": text, "entities": entities, "relations": [[0, 1, "sees"], [2, i % 2, "holds"]]}


def case(name: str, folder: Path) -> tuple[str, list[str], dict[str, Any]]:
    """The task, its keys and sections; `pairs` is classification of pairs of texts, and `in_context` trains nothing.

    The rows of `relation` are documents with several pairs and types.
    """
    task = "classification" if name == "pairs" else name
    row = {"pairs": paired, "relation": documents}.get(name, TASKS[task][0])
    files = {
        split: str(write_jsonl(folder / f"{split}.jsonl", [row(i + 100 * k) for i in range(12)]))
        for k, split in enumerate(("train", "validation", "test"))
    }
    sections: dict[str, Any] = {"data": {**files, "max_length": 24, "max_overlap": 1.0}}
    if task in MODELS:
        sections["model"] = {"name": str(make_tiny_model(folder / "model", **MODELS[task])), "dropout": 0.0}
    if task == "prompt":  # new weights of the words' head would begin with other bits
        model = make_tiny_model(folder / "model")
        AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(model)).save_pretrained(model)
        sections["model"] = {"name": str(model), "dropout": 0.0}
    if task in KINDS:
        sections["model"] = {"name": str(make_model(folder / "model", KINDS[task])), "dropout": 0.0}
    if task == "in_context":
        sections["optim"] = {"max_steps": 0}
        sections["data"]["max_length"] = 64
    if task == "span_corruption":  # needs sentinels
        sections["model"] = {"name": "scratch", "scratch": SCRATCH, "dropout": 0.0}
    return task, KEYS.get(task, []), sections


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["matching", "rerank", "recommendation", "ordinal", "intent_slots", "nsp", "pairs", "multi_label", "regression",
     "hierarchical", "relation", "prompt", "nli_zero_shot", "setfit", "generative_qa", "span_corruption"],
)  # fmt: skip
def test_stopped_and_resumed_is_bit_equal(name: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    task, own, sections = case(name, tmp_path)
    keys = (*own, "model.dropout=0.1", "trainer.evaluate_every_steps=3")
    reference = small_runs.train(task, *keys, **sections)
    arguments, folder = small_runs.stopped(4, task, *keys, **sections)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["trainer.tokens_per_microbatch=40", "trainer.packing=false"])
def test_micro_batches_do_not_move_spans(layout: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    task, _, sections = case("span_corruption", tmp_path)
    assert_same_up_to_rounding(small_runs.train(task, layout, **sections), small_runs.train(task, **sections))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(  # others: in tests/tasks
    "name",
    ["ordinal", "intent_slots", "nsp", "pairs", "hierarchical", "relation", "prompt", "nli_zero_shot", "setfit",
     "in_context"],
)  # fmt: skip
def test_two_ranks_give_what_one_gives(name: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    task, keys, sections = case(name, tmp_path)
    one, two = small_runs.train(task, *keys, **sections), small_runs.train_ranks(task, 2, *keys, **sections)
    assert_same_up_to_rounding(two, one)
    scores, theirs = ((run.result or {})["metrics"]["test"] for run in (two, one))
    assert {score: x for score, x in scores.items() if "/" not in score} == pytest.approx(
        {score: x for score, x in theirs.items() if "/" not in score}, abs=1e-3
    )
