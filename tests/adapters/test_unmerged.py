"""Adapters that add what cannot be merged: bottlenecks, and vectors in front of each sequence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from research.adapters import bottleneck, p_tuning, prefix, prompt
from research.adapters.prompt_rows import prompt_of
from research.adapters.unmerged import load_unmerged, save_unmerged
from research.cli import main
from research.common.errors import UserError
from research.models.backbone import Backbone
from research.models.parameters import trained_parameters
from research.tracking.run import Run
from research.training import checkpoint
from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding, losses

ADAPTERS: dict[str, Any] = {
    "houlsby": {"name": "bottleneck", "size": 8, "variant": "houlsby"},
    "pfeiffer": {"name": "bottleneck", "size": 8, "activation": "relu"},
    "prompt": {"name": "prompt", "tokens": 5},
    "p_tuning": {"name": "p_tuning", "tokens": 3, "hidden": 8},
    "prefix": {"name": "prefix", "tokens": 3},
}


def adapted(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "adapter_weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_layouts_kills_and_evaluation_change_nothing(name: str, small_runs: SmallRuns, tiny_model: Path) -> None:
    reference = small_runs.train("ner", adapter=ADAPTERS[name])
    before, after = load_file(tiny_model / "model.safetensors"), load_file(reference.model / "model.safetensors")
    moved = {key for key in before if f"bert.{key}" in after and not torch.equal(before[key], after[f"bert.{key}"])}
    assert all("LayerNorm" in key for key in moved) and bool(moved) == (name == "houlsby")
    # A prefix is fed packed alone, and peft is its padded oracle; peft refuses it with gradient checkpointing.
    other = "model.gradient_checkpointing=true" if name == "prefix" else "trainer.packing=false"
    for layout in ("trainer.tokens_per_microbatch=1", other):
        got = small_runs.train("ner", layout, adapter=ADAPTERS[name])
        assert_same_up_to_rounding(got, reference)
        for key, weight in adapted(reference).items():
            torch.testing.assert_close(adapted(got)[key], weight, atol=5e-5, rtol=0)
    scores = (reference.result or {})["metrics"]["test"]
    assert main(["evaluate", str(reference.path)]) == 0
    assert json.loads((reference.path / "evaluations.jsonl").read_text())["scores"] == scores

    arguments, folder = small_runs.stopped(3, "ner", adapter=ADAPTERS[name])
    saved = checkpoint.newest(folder / "checkpoints")
    assert saved is not None and saved.step == 3
    held = sum(t.numel() for key, t in saved.tensors().items() if key.startswith("model."))
    assert held == Run(folder).provenance["trained_parameters"]
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)
    assert all(torch.equal(adapted(Run(folder))[key], weight) for key, weight in adapted(reference).items())


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("task", "name"), [("ner", "houlsby"), ("sentiment", "prompt"), ("qa", "prefix"), ("ner", "p_tuning")]
)
def test_two_ranks(task: str, name: str, small_runs: SmallRuns) -> None:
    reference = small_runs.train(task, adapter=ADAPTERS[name])
    ranks = small_runs.train_ranks(task, 2, adapter=ADAPTERS[name])
    assert_same_up_to_rounding(ranks, reference)
    mine, theirs = adapted(ranks), adapted(reference)
    assert mine.keys() == theirs.keys() and all(float((mine[k] - w).abs().max()) <= 5e-5 for k, w in theirs.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompt", "p_tuning", "prefix"])
def test_peft_gives_the_scored_predictions(name: str, small_runs: SmallRuns, tiny_model: Path) -> None:
    run = small_runs.train("sentiment", adapter=ADAPTERS[name])
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    model = PeftModel.from_pretrained(base, run.path / "adapter").eval()
    rows = pq.read_table(run.predictions / "test.parquet").to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    inputs = tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=48, return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**inputs).logits.softmax(-1)
    torch.testing.assert_close(probabilities, torch.tensor([row["probabilities"] for row in rows]), atol=1e-6, rtol=0)
    assert f"adapter '{name}'" in (run.model / "NOT_MERGED.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["qa", "choice"])
def test_prompts_serve_other_heads_as_they_do_padded(task: str, small_runs: SmallRuns) -> None:
    run = small_runs.train(task, adapter=ADAPTERS["prompt"])
    assert_same_up_to_rounding(small_runs.train(task, "trainer.packing=false", adapter=ADAPTERS["prompt"]), run)


@pytest.mark.slow
def test_another_adapter_on_the_trained_folder_is_refused(
    small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_runs.train("sentiment", adapter=ADAPTERS["prompt"])
    arguments, _ = small_runs.arguments("sentiment", (f"model.name={run.model}",), {"adapter": "head"})
    assert main(arguments) == 2
    assert "was trained with adapter 'prompt', whose weights are not in the model's" in " ".join(
        capsys.readouterr().err.split()
    )
    again = small_runs.train("sentiment", f"model.name={run.model}", adapter=ADAPTERS["prompt"])
    assert losses(again)[0] != losses(run)[0]


def test_an_untrained_bottleneck_is_the_plain_model(tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(tiny_model).eval()
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        plain = model(ids).logits
        note = bottleneck.Adapter(bottleneck.Keys(size=8, variant="houlsby")).apply(model)
        assert torch.equal(model(ids).logits, plain)
    assert note == "bottleneck: houlsby, size 8 after 4 linear layers (attention.output.dense, output.dense)"
    kinds = {"bottleneck", "classifier", "LayerNorm"}
    assert all(kinds & set(key.split(".")) for key in trained_parameters(model))
    with pytest.raises(UserError, match="has bottlenecks already"):
        bottleneck.Adapter(bottleneck.Keys()).apply(model)


@pytest.mark.parametrize(("variant", "activation"), [("houlsby", "gelu"), ("pfeiffer", "relu"), ("pfeiffer", "gelu")])
def test_a_bottleneck_adds_its_network_of_what_a_layer_puts_out(
    variant: str, activation: str, tiny_model: Path
) -> None:
    """x + up(f(down x)) by hand, between the linear layer and the residual."""
    model = AutoModelForTokenClassification.from_pretrained(tiny_model).eval()
    bottleneck.Adapter(bottleneck.Keys(size=8, variant=variant, activation=activation)).apply(model)
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if hasattr(module, "bottleneck"):
            for p in module.bottleneck.parameters():
                torch.nn.init.normal_(p, std=0.3)
            after = model.get_submodule(name.removesuffix("dense") + "dropout")
            module.register_forward_pre_hook(lambda _, args, name=name: found.update({name: (args[0], args[0])}))
            after.register_forward_pre_hook(lambda _, args, name=name: found.update({name: (found[name][0], args[0])}))
    with torch.no_grad():
        model(torch.arange(10, 30)[None])
        assert len(found) == {"houlsby": 4, "pfeiffer": 2}[variant]
        for name, (into, got) in found.items():
            layer = model.get_submodule(name)
            own = layer.bottleneck
            x = into @ layer.weight.T + layer.bias
            h = x @ own.down.weight.T + own.down.bias
            h = h.clamp(min=0) if activation == "relu" else h * (1 + torch.erf(h / 2**0.5)) / 2
            torch.testing.assert_close(got, x + h @ own.up.weight.T + own.up.bias, atol=1e-5, rtol=1e-5)


def test_bad_prompts_and_bottlenecks_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    with pytest.raises(UserError, match=r"adapter.size=33 is more than the width 32"):
        bottleneck.Adapter(bottleneck.Keys(size=33)).apply(model)
    for module in (prompt, p_tuning):
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
        adapter = module.Adapter(module.Keys(tokens=100))
        adapter.apply(model)
        backbone = Backbone(model, False)
        with pytest.raises(
            UserError, match=r"148 positions, and the model has 128; lower data.max_length or adapter.tokens by 20"
        ):
            adapter.feed(backbone, 48)
        with pytest.raises(UserError, match="a model that has a prompt already"):
            adapter.apply(model)
    distilbert = make_tiny_model(tmp_path / "d", "distilbert", dim=32, n_heads=4, n_layers=2, hidden_dim=64)
    with pytest.raises(UserError, match="prefix does not go with 'distilbert' models; it does with bert, roberta"):
        prefix.Adapter(prefix.Keys()).apply(AutoModelForSequenceClassification.from_pretrained(distilbert))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    fronted = prefix.Adapter(prefix.Keys(tokens=2))
    fronted.apply(model)
    with pytest.raises(UserError, match="prefix needs packed rows"):
        fronted.feed(Backbone(model, False), 48)
    with pytest.raises(UserError, match=r"has 128; lower data.max_length or adapter.tokens by 1"):
        fronted.feed(Backbone(model, "auto"), 127)
    with pytest.raises(UserError, match="has a prefix already"):
        fronted.apply(model)
    roberta = AutoModelForSequenceClassification.from_pretrained(make_tiny_model(tmp_path / "r", "roberta"))
    adapter = prompt.Adapter(prompt.Keys(tokens=100))
    adapter.apply(roberta)
    with pytest.raises(UserError, match="and the model has 127"):  # its ids start after that of padding, 0
        adapter.feed(Backbone(roberta, False), 48)


def test_a_prompt_of_a_table_with_two_names_is_saved_and_read_back(tmp_path: Path) -> None:
    """Where encoder and decoder share one table, the prompt is in the state under several names."""
    config = AutoConfig.for_model("bart", d_model=32, encoder_layers=1, decoder_layers=1, vocab_size=60,
                                  encoder_attention_heads=4, decoder_attention_heads=4)  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(config)
    model.get_decoder().embed_tokens = model.get_encoder().get_input_embeddings()
    adapter = prompt.Adapter(prompt.Keys(tokens=2))
    adapter.apply(model)
    state = model.state_dict()
    rows = prompt_of(model).clone()
    assert sum(".prompt." in key for key in state) > 1
    save_unmerged(tmp_path, "prompt", state, adapter.plain_state(model, state))
    with torch.no_grad():
        prompt_of(model).zero_()
    load_unmerged(model, adapter, "prompt", tmp_path)
    assert torch.equal(prompt_of(model), rows) and rows.abs().sum() > 0
