"""Decoders and encoder-decoders of `transformers`, fed packed and padded: the same outputs and gradients, or padded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    EncoderDecoderConfig,
    EncoderDecoderModel,
)

from research.batching.pack import MicroBatch, cross_plan, make_stream
from research.batching.store import INPUT, SOURCE, TARGET
from research.common.errors import UserError
from research.models.attention import BucketAttention
from research.models.backbone import Backbone
from research.models.load import family_of, load_config, load_model
from research.models.probe import sharpened
from tests.models.test_backbone import assert_gradients_close, config_of, dropouts, without_dropout

COMMON: dict[str, Any] = {"vocab_size": 120, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZE: dict[str, Any] = {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64,
    "max_position_embeddings": 128,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
WINDOWED = {**GROUPED, "sliding_window": 9}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2, "use_sliding_window": False},
    "qwen3": GROUPED,
    "mistral": WINDOWED,
    "gemma3_text": {**WINDOWED, "layer_types": ["sliding_attention", "full_attention"]},
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0]},
    "phi3": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bert": {"is_decoder": True},
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
      "decoder_start_token_id": 0}  # fmt: skip
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
        "decoder_start_token_id": 2, "forced_eos_token_id": None}  # fmt: skip
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "t5 v1.1": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": T5,
    "umt5": T5,
    "bart": BART,
    "mbart": BART,
    "marian": {**BART, "decoder_vocab_size": 120},
    "pegasus": BART,
    "blenderbot": BART,
    "blenderbot-small": BART,
    "m2m_100": BART,
    "bert2bert": {},
}
PADDED: dict[str, tuple[dict[str, Any], str]] = {
    "gemma2": (WINDOWED, "its attention asks for softcap"),
    "gpt_oss": ({**WINDOWED, "num_local_experts": 2, "num_experts_per_tok": 1}, "its attention asks for s_aux"),
    "gpt_neo": ({"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}, "0 of 2 decoder"),
    "bloom": ({"n_layer": 2, "n_head": 4}, "see each other when packed"),
    "mamba": ({"state_size": 4}, "see each other when packed"),
    "led": ({**BART, "attention_window": 4, "max_encoder_position_embeddings": 128,
             "max_decoder_position_embeddings": 128}, "see each other when packed"),
    "longt5": ({**T5, "local_radius": 3}, "does not take packed input"),
}  # fmt: skip


def build(kind: str, settings: dict[str, Any]) -> Any:
    if kind == "bert2bert":
        halves = [AutoConfig.for_model("bert", **COMMON, **SIZE) for _ in range(2)]
        config: Any = EncoderDecoderConfig.from_encoder_decoder_configs(*halves)
        config.pad_token_id, config.decoder_start_token_id = 0, 1
    else:
        config = AutoConfig.for_model(kind.split()[0], **{**COMMON, **SIZE, **settings})
    torch.manual_seed(0)
    if kind == "bert2bert":
        model: Any = EncoderDecoderModel(config)
    else:
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto_class.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():  # fresh weights attend to all tokens alike, where many mistakes do not show
        parameter.data += 0.15 * torch.randn_like(parameter)
    return without_dropout(model.float().train())


def make_micro(backbone: Backbone, seed: int = 1) -> tuple[MicroBatch, Tensor]:
    """Sequences of many lengths, and the places that are scored; two targets are as long as their sources."""
    generator = torch.Generator().manual_seed(seed)

    def stream(lengths: list[int], paired: bool = False) -> Any:
        ids = torch.randint(5, 120, (sum(lengths),), generator=generator)
        return make_stream({"input_ids": ids}, np.array(lengths), packed=backbone.packed, paired=paired)

    lengths = [2, 40, 17, 7, 16, 33, 1]
    asked = torch.tensor([0, 1, 5, 30, 46, 47, 60, 90, 115])
    if backbone.family != "encoder-decoder":
        return MicroBatch({INPUT: stream(lengths)}), asked
    streams = {SOURCE: stream([30, 3, 17, 7, 1, 40, 18], True), TARGET: stream(lengths, True)}
    return MicroBatch(streams, cross_plan(streams)), asked


def logits_and_gradients(backbone: Backbone, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    micro, asked = make_micro(backbone, seed)
    backbone.model.zero_grad()
    logits = backbone.vocabulary_logits(micro, asked)
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}


@pytest.mark.in_check(3)
@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_packed_equals_padded(kind: str) -> None:
    model = build(kind, {**DECODERS, **ENCODER_DECODERS}[kind])
    padded, packed = Backbone(copy.deepcopy(model), packing=False), Backbone(model)
    assert packed.packed, packed.packing_note
    assert packed.packing_note.startswith("packed: equal to padded")
    assert packed.family == ("decoder" if kind in DECODERS else "encoder-decoder")
    (logits, grads), (expected, expected_grads) = logits_and_gradients(packed), logits_and_gradients(padded)
    assert logits.shape == (9, 120)
    assert float((logits - expected).abs().max()) <= 2e-5 * float(expected.abs().max())
    assert_gradients_close(grads, expected_grads)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", PADDED)
def test_others_are_padded_and_say_why(kind: str) -> None:
    settings, reason = PADDED[kind]
    backbone = Backbone(build(kind, settings))
    assert not backbone.packed and reason in backbone.packing_note, backbone.packing_note
    logits, grads = logits_and_gradients(backbone)
    assert logits.shape == (9, 120) and bool(logits.isfinite().all()) and grads


def test_a_model_that_scores_several_next_tokens_is_refused() -> None:
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    config = AutoConfig.for_model("prophetnet", **COMMON, hidden_size=32, ngram=2, **layers)
    backbone = Backbone(AutoModelForSeq2SeqLM.from_config(config))
    assert not backbone.packed
    with pytest.raises(UserError, match="ProphetNetForConditionalGeneration scores more than one next token"):
        logits_and_gradients(backbone)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", ["llama", "t5", "bart", "opt"])
def test_a_sequence_does_not_feel_its_neighbours(kind: str) -> None:
    """Another first sequence, and another first source: what the others get stays as it was, to the bit."""
    backbone = Backbone(build(kind, {**DECODERS, **ENCODER_DECODERS}[kind])).eval()
    micro, _ = make_micro(backbone)
    asked = torch.arange(2, 116)
    with torch.no_grad():
        before = backbone.vocabulary_logits(micro, asked)
        for stream in micro.streams.values():
            stream.tokens["input_ids"][: stream.lengths[0]] = 7
        assert backbone.vocabulary_logits(micro, asked).equal(before)
        assert not backbone.vocabulary_logits(micro, torch.arange(2)).isnan().any()


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_nothing_asked_is_a_loss_of_zero(kind: str) -> None:
    """A micro-batch without targets still meets the others in the exchange of gradients: zeros, not NaN."""
    backbone = Backbone(build(kind, {**DECODERS, **ENCODER_DECODERS}[kind]))
    micro, _ = make_micro(backbone)
    logits = backbone.vocabulary_logits(micro, torch.zeros(0, dtype=torch.int64))
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(0, dtype=torch.int64), reduction="sum")
    loss.backward()
    assert logits.shape == (0, 120) and float(loss.detach()) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in backbone.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_gradient_checkpointing_changes_nothing(kind: str) -> None:
    """The backward pass computes the layers again, position bias included, as they were packed."""
    model = build(kind, ENCODER_DECODERS[kind])
    again = copy.deepcopy(model)
    again.gradient_checkpointing_enable({"use_reentrant": False})
    (logits, grads), (expected, expected_grads) = (logits_and_gradients(Backbone(m)) for m in (again, model))
    assert logits.equal(expected)
    assert_gradients_close(grads, expected_grads)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart", "m2m_100"])
def test_loaded_from_a_folder_with_one_dropout(kind: str, tmp_path: Path) -> None:
    """Every weight comes back, and `model.dropout` sets every rate; an encoder's task refuses the model."""
    saved = build(kind, {**DECODERS, **ENCODER_DECODERS}[kind])
    saved.save_pretrained(tmp_path)
    config = config_of(tmp_path, dropout=0.37)
    own = load_config(config, families=("decoder", "encoder-decoder"))
    family = family_of(own)
    assert family == ("decoder" if kind in DECODERS else "encoder-decoder")
    auto_class = AutoModelForCausalLM if kind in DECODERS else AutoModelForSeq2SeqLM
    model = load_model(config, own, auto_class)
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in saved.state_dict().items())
    assert {rate for name, rate in dropouts(model).items() if not name.endswith("layerdrop")} == {0.37}
    with pytest.raises(UserError, match=rf"is a '{kind}' model, an? {family}; task 'sentiment' fine-tunes encoders"):
        load_config(config)


def test_layer_drop_is_switched_off_and_said() -> None:
    model = build("m2m_100", ENCODER_DECODERS["m2m_100"])
    model.model.encoder.layerdrop = model.model.decoder.layerdrop = 0.05
    backbone = Backbone(model)
    assert backbone.packing_note.endswith("LayerDrop is off, whose draws would depend on the micro-batches")
    assert not [name for name, m in backbone.named_modules() if getattr(m, "layerdrop", 0)]
    assert "LayerDrop" not in Backbone(build("bart", BART)).packing_note


@pytest.mark.parametrize("kind", ["bert2bert", "gpt2"])
def test_sharpening_gives_every_bit_back(kind: str) -> None:
    model = build(kind, {**DECODERS, **ENCODER_DECODERS}[kind])
    with torch.no_grad():
        for p in model.parameters():
            p *= 0.01
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with sharpened(model):
        changed = [name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])]
    assert len(changed) >= 8
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_the_probe_compares_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the backward pass alone, here keys of another sequence, is found."""
    backward = BucketAttention.backward

    def leaky(ctx: Any, grad: Tensor) -> Any:
        dq, dk, dv, *rest = backward(ctx, grad)
        return (dq, dk.flip(0), dv, *rest)

    monkeypatch.setattr(BucketAttention, "backward", staticmethod(leaky))
    backbone = Backbone(build("gpt2", DECODERS["gpt2"]))
    assert not backbone.packed
    assert "see each other in the backward pass (gradients differ by" in backbone.packing_note
