"""Adapters of models that write text: stopped and resumed to the bit, and the saved model writes the scored texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from research.cli import main
from research.tracking.run import Run
from tests.conftest import copied, write_jsonl
from tests.small_runs import SmallRuns, assert_same_bits
from tests.tasks.test_translation import make_model, rows

LORA: dict[str, Any] = {"name": "lora", "rank": 4, "dropout": 0.1}
PROMPT: dict[str, Any] = {"name": "prompt", "tokens": 3}


# architecture, task, its columns of input and gold, adapter
CASES: list[tuple[str, str, tuple[str, str], dict[str, Any]]] = [
    ("bart", "summarization", ("source", "target"), LORA),
    ("bart", "translation", ("source", "target"), PROMPT),
    ("gpt2", "generation", ("prompt", "completion"), LORA),
    ("llama", "generation", ("prompt", "completion"), PROMPT),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "task", "columns", "adapter"), CASES)
def test_resumed_and_used_again(
    kind: str, task: str, columns: tuple[str, str], adapter: dict[str, Any], small_runs: SmallRuns, tmp_path: Path
) -> None:
    wide = {"bart": {"init_std": 0.15}}.get(kind, {"initializer_range": 0.15})  # else all texts are one
    model = make_model(tmp_path / kind, kind, **wide)
    file = write_jsonl(tmp_path / "rows.jsonl", [dict(zip(columns, pair.values(), strict=True)) for pair in rows(12)])
    sections = {
        "model": {"name": str(model), "dropout": 0.1},
        "adapter": adapter,
        "data": {
            "train": str(file), "validation": copied(file), "test": copied(file, "test"),
            "max_length": 16, "max_overlap": 1.0,
        },
    }  # fmt: skip
    keys = ("task.max_new_tokens=6", "task.max_target_tokens=6")
    straight = small_runs.train(task, *keys, **sections)
    arguments, folder = small_runs.stopped(4, task, *keys, **sections)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), straight)
    written, resumed = (pq.read_table(run.predictions / "test.parquet").to_pylist() for run in (straight, Run(folder)))
    assert written == resumed

    texts = [row["prediction"] for row in written]
    asked = write_jsonl(tmp_path / "asked.jsonl", [{columns[0]: pair["source"]} for pair in rows(12)])
    output = tmp_path / "again.jsonl"
    assert main(["predict", str(straight.path), "--input", str(asked), "--output", str(output)]) == 0
    assert [json.loads(line)["prediction"] for line in output.read_text().splitlines()] == texts
    assert len(set(texts)) > 2
    if adapter is LORA:
        assert_peft_loads_what_was_merged(straight, model)


def assert_peft_loads_what_was_merged(run: Run, pretrained: Path) -> None:
    result = run.result or {}
    assert 0 < result["trained_parameters"] < result["parameters"]
    auto: Any = AutoModelForCausalLM if result["task"] == "generation" else AutoModelForSeq2SeqLM
    merged, plain = (auto.from_pretrained(folder).eval() for folder in (run.model, pretrained))
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        before, ours = plain(input_ids=ids).logits, merged(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(plain, run.path / "adapter").eval()(input_ids=ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    assert float((ours - before).abs().max()) > 0.01
