"""Adapters: what is trained, what stays to the bit, what is exported, and that layout and kills change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from research.adapters import bitfit, freeze, head, lora, targets
from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.models.parameters import frozen_parameters, trained_parameters
from research.tracking.run import Run
from research.training import checkpoint
from research.training.build import build
from tests.conftest import make_tiny_model
from tests.small_runs import TASKS, SmallRuns, assert_same_bits, assert_same_up_to_rounding

LORA = {"name": "lora", "rank": 4, "targets": ["q", "k", "v", "o", "up", "down"]}
ADAPTERS: dict[str, Any] = {
    "head": "head",
    "bitfit": "bitfit",
    "freeze": {"name": "freeze", "layers": 1, "names": ["*.LayerNorm.*"]},
    "lora": LORA,
    "ia3": "ia3",
    "adalora": {"name": "adalora", "rank": 1, "initial_rank": 3, "targets": ["q", "k", "v", "down"]},
    "dora": {"name": "lora", "rank": 2, "dora": True, "rslora": True, "dropout": 0.1, "top_layers": 1},
}
THAWING = {"thawing": {"name": "freeze", "unfreeze_every_steps": 3}}
STOP = {"adalora": 3}  # while its budget falls, after steps 2 to 4 of 6
SETTINGS = {
    "roberta": {},
    "distilbert": {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 64},
    "electra": {},
    "albert": {"embedding_size": 16},
    "modernbert": {"sep_token_id": 3, "cls_token_id": 2},
    "deberta-v2": {},
    "mpnet": {},
}
LAYERS = {"albert": 1, "modernbert": 2}  # of their own; fused q, k, v


def sequence_model(folder: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", SETTINGS)
def test_roles_are_found_in_every_architecture(kind: str, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / kind, kind, **SETTINGS[kind])
    hits = {role: targets.targets(sequence_model(folder), [role], None) for role in targets.ROLES}
    expected = LAYERS.get(kind, 2)
    assert {role: len(found) for role, found in hits.items()} == dict.fromkeys(targets.ROLES, expected)
    fused = {name for role in "qkv" for name in hits[role]}
    assert len(fused) == (2 if kind == "modernbert" else 3 * expected)
    assert not fused & {*hits["o"], *hits["up"], *hits["down"]} and not {*hits["o"]} & {*hits["down"]}
    assert not any("pooler" in name or "classifier" in name for found in hits.values() for name in found)


def test_bad_adapters_are_refused(tiny_model: Path) -> None:
    cases = [
        (
            lora.Adapter(lora.Keys(targets=["q", "gate"])),
            "'gate' hits no linear layer of BertForSequence",
        ),
        (lora.Adapter(lora.Keys(targets=[])), "the adapter changes no layer: name some by their role (q, k, v, o, up"),
        (lora.Adapter(lora.Keys(rank=33)), "adapter.rank=33 is more than the width 32"),
        (lora.Adapter(lora.Keys(top_layers=3)), "adapter.top_layers=3 is more than the 2 layers of Bert"),
        (freeze.Adapter(freeze.Keys(layers=3)), "adapter.layers=3 is more than the 2 layers of Bert"),
        (freeze.Adapter(freeze.Keys(names=["*.layernorm.*"])), "no weight matches '*.layernorm.*'; names are such as"),
        (freeze.Adapter(freeze.Keys()), "has nothing to freeze; give it layers, embeddings or names"),
    ]
    for adapter, reported in cases:
        with pytest.raises(UserError) as caught:
            adapter.apply(sequence_model(tiny_model))
        assert reported in str(caught.value)
    model = sequence_model(tiny_model)
    lora.Adapter(lora.Keys()).apply(model)
    with pytest.raises(UserError, match="cannot wrap a model that has an adapter already"):
        lora.Adapter(lora.Keys()).apply(model)


def test_an_adapter_that_leaves_nothing_to_train_is_refused(small_runs: SmallRuns) -> None:
    (_, path, *given), _ = small_runs.arguments("sentiment", (), {"adapter": {"name": "freeze", "names": ["*"]}})
    with pytest.raises(UserError, match="adapter=freeze leaves nothing of BertForSequenceClassification to train"):
        build(load_config(path, given))


def test_bitfit_without_biases_is_refused(tmp_path: Path) -> None:
    model = sequence_model(make_tiny_model(tmp_path / "modernbert", "modernbert", **SETTINGS["modernbert"]))
    with pytest.raises(UserError, match="the layers of ModernBertForSequenceClassification have none"):
        bitfit.Adapter(None).apply(model)


def test_head_trains_new_weights_and_the_pooler(tiny_model: Path) -> None:
    model = sequence_model(tiny_model)
    assert head.Adapter(None).apply(model) == "head: only bert.pooler.dense, classifier trained"
    assert {name.rpartition(".")[0] for name in trained_parameters(model)} == {"bert.pooler.dense", "classifier"}


def test_freezing_by_layer_takes_the_embeddings_along(tiny_model: Path) -> None:
    for keys, parts in (
        (freeze.Keys(layers=1), {"bert.embeddings", "bert.encoder.layer.0"}),
        (freeze.Keys(layers=1, embeddings=False), {"bert.encoder.layer.0"}),
        (freeze.Keys(embeddings=True), {"bert.embeddings"}),
    ):
        model = sequence_model(tiny_model)
        freeze.Adapter(keys).apply(model)
        frozen = set(frozen_parameters(model))
        assert frozen == {name for name, _ in model.named_parameters() if any(name.startswith(f"{p}.") for p in parts)}


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in TASKS for name in ADAPTERS])
@pytest.mark.slow
def test_frozen_weights_keep_their_bits(task: str, name: str, small_runs: SmallRuns, tiny_model: Path) -> None:
    """In the exported model, which plain transformers load: what the adapter froze is what was pretrained."""
    run = small_runs.train(task, adapter=ADAPTERS[name])
    before, after = load_file(tiny_model / "model.safetensors"), load_file(run.model / "model.safetensors")
    same = {key for key in before if f"bert.{key}" in after and torch.equal(before[key], after[f"bert.{key}"])}
    present = {key for key in before if f"bert.{key}" in after}
    linear = {key for key in present if key.endswith("weight") and before[key].ndim == 2 and "embeddings" not in key}
    ranked = {key for key in linear if "attention.self" in key or ("output.dense" in key and "attention" not in key)}
    moved = {
        "head": {key for key in present if "pooler" in key},
        "bitfit": {key for key in present if key.endswith("bias") or "pooler" in key},
        "freeze": {
            key for key in present if "layer.0." not in key and "embeddings" not in key and "LayerNorm" not in key
        },
        "lora": linear | {key for key in present if "pooler" in key},
        "adalora": {key for key in present if "pooler" in key} | (ranked & (present - same)),  # some have rank 0
        "ia3": {key for key in present if "pooler" in key} | {key for key in ranked if "query" not in key},
        "dora": {key for key in linear if "layer.1.attention.self" in key and "key" not in key}
        | {key for key in present if "pooler" in key},
    }[name]
    without_gradient = {key for key in present if key.endswith("key.bias")}
    assert present - same - without_gradient == moved - without_gradient
    result = run.result or {}
    assert 0 < result["trained_parameters"] < result["parameters"]


AUTO = {
    "sentiment": AutoModelForSequenceClassification,
    "ner": AutoModelForTokenClassification,
    "qa": AutoModelForQuestionAnswering,
    "choice": AutoModelForSequenceClassification,
}


MORE_FILES = [("sentiment", "dora"), ("ner", "dora"), ("qa", "ia3"), ("sentiment", "adalora")]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), [*((task, "lora") for task in TASKS), *MORE_FILES])
def test_merged_model_and_adapter_give_the_same_outputs(
    task: str, name: str, small_runs: SmallRuns, tiny_model: Path
) -> None:
    """model/ by plain transformers, adapter/ by peft on the pretrained model, and the predictions that were scored.

    For DoRA, too: plain transformers open peft's own folder without its magnitudes, and logits are 0.002 to 0.01 off.
    """
    run = small_runs.train(task, adapter=ADAPTERS[name])
    assert not (run.model / "adapter_config.json").exists()  # what plain transformers open is the merged model
    merged = AUTO[task].from_pretrained(run.model).eval()
    base = AUTO[task].from_pretrained(tiny_model, config=merged.config)
    adapted = PeftModel.from_pretrained(base, run.path / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    inputs = tokenizer(["the film was very good", "a city of Oslo"], padding=True, return_tensors="pt")
    with torch.no_grad():
        ours, theirs = merged(**inputs), adapted(**inputs)
    for output in [key for key in ours if "logits" in key]:
        torch.testing.assert_close(theirs[output], ours[output], atol=1e-6, rtol=1e-5)
    if task == "sentiment":
        rows = pq.read_table(run.predictions / "test.parquet").to_pylist()
        inputs = tokenizer(
            [row["text"] for row in rows], padding=True, truncation=True, max_length=48, return_tensors="pt"
        )
        with torch.no_grad():
            probabilities = merged(**inputs).logits.softmax(-1)
        torch.testing.assert_close(
            probabilities, torch.tensor([row["probabilities"] for row in rows]), atol=1e-6, rtol=0
        )


@pytest.mark.slow
def test_the_export_is_what_peft_itself_merges(small_runs: SmallRuns, tiny_model: Path) -> None:
    run = small_runs.train("sentiment", adapter=ADAPTERS["dora"])
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    merged = PeftModel.from_pretrained(base, run.path / "adapter").merge_and_unload(safe_merge=True).state_dict()
    for name, weight in load_file(run.model / "model.safetensors").items():
        torch.testing.assert_close(weight, merged[name], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_an_adapter_trained_in_bf16_is_merged_in_fp32(small_runs: SmallRuns, tiny_model: Path) -> None:
    """W + alpha / rank B A of the weights as they are kept, not of their bf16 values."""
    run = small_runs.train("sentiment", "trainer.precision=bf16", adapter=LORA)
    before, after = load_file(tiny_model / "model.safetensors"), load_file(run.model / "model.safetensors")
    own = load_file(run.path / "adapter" / "adapter_model.safetensors")
    layers = [key.removesuffix(".lora_A.weight") for key in own if key.endswith(".lora_A.weight")]
    assert len(layers) == 12 and {w.dtype for w in (*own.values(), *after.values())} == {torch.float32}
    for layer in layers:
        name = layer.removeprefix("base_model.model.") + ".weight"
        a, b = own[f"{layer}.lora_A.weight"], own[f"{layer}.lora_B.weight"]
        weight = before[name.removeprefix("bert.")]
        assert float((b @ a).abs().max()) > 1e-4
        torch.testing.assert_close(after[name], weight + 16 / 4 * (b @ a), atol=1e-7, rtol=1e-6)
        assert float((after[name] - (weight.bfloat16() + (4 * b.bfloat16() @ a.bfloat16()))).abs().max()) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["modernbert", "distilbert"])
def test_heads_that_peft_forgets_are_in_the_adapter(kind: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / kind, kind, **SETTINGS[kind])
    run = small_runs.train("qa", f"model.name={model}", adapter=LORA)
    merged = AutoModelForQuestionAnswering.from_pretrained(run.model).eval()
    adapted = PeftModel.from_pretrained(
        AutoModelForQuestionAnswering.from_pretrained(model), run.path / "adapter"
    ).eval()
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).start_logits, merged(ids).start_logits, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ADAPTERS, *THAWING])
def test_micro_batches_padding_and_evaluate_change_nothing(name: str, small_runs: SmallRuns) -> None:
    adapter = {**ADAPTERS, **THAWING}[name]
    reference = small_runs.train("ner", adapter=adapter)
    if "dropout" not in str(adapter):
        for layout in ("trainer.tokens_per_microbatch=1", "trainer.packing=false"):
            got = small_runs.train("ner", layout, adapter=adapter)
            assert_same_up_to_rounding(got, reference)
    scores = (reference.result or {})["metrics"]["test"]
    assert main(["evaluate", str(reference.path)]) == 0
    again = [row for row in (reference.path / "evaluations.jsonl").read_text().splitlines()]
    assert len(again) == 1 and f'"accuracy": {scores["accuracy"]}' in again[0]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("task", "name"), [*((task, "lora") for task in TASKS), ("ner", "adalora"), ("qa", "ia3")])
def test_two_ranks(task: str, name: str, small_runs: SmallRuns) -> None:
    reference = small_runs.train(task, adapter=ADAPTERS[name])
    assert_same_up_to_rounding(small_runs.train_ranks(task, 2, adapter=ADAPTERS[name]), reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ADAPTERS, *THAWING])
def test_killed_and_resumed_is_bit_equal(name: str, small_runs: SmallRuns) -> None:
    """With dropout; the checkpoint holds the trained weights alone."""
    dropout, adapter, step = ("model.dropout=0.1",), {**ADAPTERS, **THAWING}[name], STOP.get(name, 4)
    reference = small_runs.train("sentiment", *dropout, adapter=adapter)
    arguments, folder = small_runs.stopped(step, "sentiment", *dropout, adapter=adapter)
    saved = checkpoint.newest(folder / "checkpoints")
    assert saved is not None and saved.step == step
    held = sum(t.numel() for key, t in saved.tensors().items() if key.startswith("model."))
    assert held == Run(folder).provenance["trained_parameters"]
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)
