"""Encoders of `transformers`, fed packed and padded: the same outputs and gradients, or a refusal."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from research.batching.layout import make_layout
from research.batching.pack import MicroBatch, make_stream
from research.batching.store import INPUT
from research.common.errors import UserError
from research.config.component import choose
from research.config.schema import Config, OptimConfig
from research.models.attention import Plans, packed_attention
from research.models.backbone import Backbone
from research.models.dropout import FastDropout
from research.models.load import ENCODER, load_config, load_model
from research.training.optimizer import make_optimizer, use_row_embedding
from tests.conftest import make_tiny_model, make_tokenizer

HEADS = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "qa": AutoModelForQuestionAnswering,
}
SIZE: dict[str, Any] = {
    "vocab_size": 120, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64,
    "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
MODERNBERT = {"num_hidden_layers": 4, "local_attention": 16, "global_attn_every_n_layers": 3,
              "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
PACKED: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "xlm-roberta": {"pad_token_id": 1},
    "camembert": {"pad_token_id": 1},
    "distilbert": {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "ernie": {},
    "modernbert": {**MODERNBERT, "classifier_pooling": "cls"},
    "modernbert mean": {**MODERNBERT, "classifier_pooling": "mean"},
    "data2vec-text": {"pad_token_id": 1},
    "layoutlm": {},
    "nomic_bert": {},
    "gte": {},
}
XLM = {"emb_dim": 32, "n_heads": 4, "n_layers": 2, "pad_index": 2, "pad_token_id": 2}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
PADDED: dict[str, dict[str, Any]] = {
    "deberta": DEBERTA,
    "deberta-v2": {**DEBERTA, "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 32},  # and v3
    "mpnet": {"pad_token_id": 1},
    "xlm": XLM,
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32, "bos_token_id": 3, "eos_token_id": 4},
    "megatron-bert": {},
    "roformer": {"embedding_size": 32},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 1},
    "convbert": {"embedding_size": 16, "head_ratio": 2},
}
NO_QA_HEAD = ("layoutlm", "nomic_bert", "gte")


def build(kind: str, head: str, settings: dict[str, Any]) -> Any:
    labels = 2 if head == "qa" else 3
    config = AutoConfig.for_model(kind.split()[0], **{**SIZE, "num_labels": labels, **settings})
    torch.manual_seed(0)
    model = HEADS[head].from_config(config, attn_implementation="eager").train()
    for parameter in model.parameters():  # fresh weights attend to all tokens alike, where many mistakes do not show
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_micro(lengths: list[int], vocabulary: int = 120, types: bool = False) -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    sizes = np.array(lengths)
    T = int(sizes.sum())
    tokens = {"input_ids": torch.randint(5, vocabulary, (T,), generator=generator)}
    if types:
        tokens["token_type_ids"] = torch.randint(0, 2, (T,), generator=generator)
    return MicroBatch({INPUT: make_stream(tokens, sizes)})


def outputs(backbone: Backbone, head: str, micro: MicroBatch) -> Tensor:
    if head == "sequence":
        return backbone.sequence_logits(micro)
    logits = backbone.token_logits(micro)
    return logits["logits"] if head == "token" else torch.stack([logits["start_logits"], logits["end_logits"]], -1)


def outputs_and_gradients(backbone: Backbone, head: str, micro: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    backbone.model.zero_grad()
    out = outputs(backbone, head, micro)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return out.detach(), {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}


def without_dropout(model: Any) -> Any:
    """In training mode, but nothing is dropped."""
    for module in model.modules():
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def assert_gradients_close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-5 of each tensor's largest; a tensor whose true gradient is zero (key biases), of the model's largest."""
    assert got.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, grad in expected.items():
        allowed = 1e-5 * max(float(grad.abs().max()), 0.01 * largest)
        difference = float((got[name] - grad).abs().max())
        assert difference <= allowed, f"{name}: {difference:.1e} of {float(grad.abs().max()):.1e}"


@pytest.mark.in_check(4)
@pytest.mark.parametrize(
    ("kind", "head"), [(kind, head) for head in HEADS for kind in PACKED if head != "qa" or kind not in NO_QA_HEAD]
)
def test_packed_equals_padded(kind: str, head: str) -> None:
    model = without_dropout(build(kind, head, PACKED[kind]))
    padded = Backbone(copy.deepcopy(model), packing=False)
    packed = Backbone(model)
    assert packed.packed and packed.packing_note.startswith("packed: equal to padded")
    assert not padded.packed and padded.packing_note == "padded: trainer.packing is false"
    micro = make_micro([2, 60, 17, 7, 16, 33, 1], types=kind == "bert")  # ModernBERT's window reaches 8 tokens
    out, grads = outputs_and_gradients(packed, head, micro)
    expected, expected_grads = outputs_and_gradients(padded, head, micro)
    assert out.shape == ((7, 3) if head == "sequence" else (136, 3 if head == "token" else 2))
    assert float((out - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert_gradients_close(grads, expected_grads)
    unused = {name.split(".")[1] for name, _ in model.named_parameters() if name not in grads}
    assert unused == ({"pooler"} if (kind, head) == ("layoutlm", "token") else set())  # DDP waits for each gradient


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert mean"])
def test_a_sequence_does_not_feel_its_neighbours(kind: str) -> None:
    """To the last digit that rounding leaves: alone or packed with others, evaluated."""
    backbone = Backbone(build(kind, "sequence", PACKED[kind])).eval()
    micro = make_micro([9, 40, 3])
    with torch.no_grad():
        together = backbone.sequence_logits(micro)
        for i, ids in enumerate(micro.tokens["input_ids"].split([9, 40, 3])):
            alone = MicroBatch({INPUT: make_stream({"input_ids": ids}, np.array([len(ids)]))})
            torch.testing.assert_close(backbone.sequence_logits(alone)[0], together[i], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PADDED)
def test_others_are_refused_by_the_probe_and_train_padded(kind: str) -> None:
    model = build(kind, "sequence", PADDED[kind])
    with pytest.raises(UserError, match=r"trainer.packing is true, but \w+ cannot be packed"):
        Backbone(model, packing=True)
    backbone = Backbone(model)
    assert not backbone.packed
    assert "see each other when packed" in backbone.packing_note or "does not take packed" in backbone.packing_note
    micro, labels = make_micro([20, 9, 14]), torch.tensor([0, 2, 1])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    without_dropout(model)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(backbone.sequence_logits(micro), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert backbone.model.training


@pytest.fixture
def attention_of_the_probe() -> Iterator[Any]:
    """Put another function in the place of packed attention."""
    yield lambda function: AttentionInterface.register("packed", function)
    AttentionInterface.register("packed", packed_attention)


def test_the_probe_compares_two_things(attention_of_the_probe: Any) -> None:
    """A difference of exactly 0 is genuine on small fp32 models: any fault in packed attention shows in it."""
    model = build("bert", "token", {})
    calls = []

    def count(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["plans"].by_role["encoder"].q.T)
        return packed_attention(*args, **kwargs)

    attention_of_the_probe(count)
    assert Backbone(copy.deepcopy(model)).packed
    assert calls[:2] == [48, 48]  # once a layer: 24 + 7 + 5 + 2 tokens, filled up to 48
    assert calls[2:] == [48, 48, 48]  # then of the probe of the last layer: twice the first, once the whole last one

    def leaky(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float, **kwargs: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2), None

    def imprecise(module: Any, q: Tensor, *args: Any, **kwargs: Any) -> Any:
        return packed_attention(module, q * 1.2, *args, **kwargs)

    def shifted(*args: Any, **kwargs: Any) -> Any:
        return packed_attention(
            *args, **{**kwargs, "plans": Plans({ENCODER: make_layout(np.array([24, 8, 4, 2])).attention})}
        )

    for faulty in (leaky, imprecise, shifted):
        attention_of_the_probe(faulty)
        backbone = Backbone(copy.deepcopy(model))
        assert not backbone.packed, faulty.__name__
        assert "outputs differ by" in backbone.packing_note

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such thing\nand more")

    attention_of_the_probe(broken)
    assert Backbone(copy.deepcopy(model)).packing_note == "it does not take packed input (no such thing)"


def test_the_probe_finds_the_first_position() -> None:
    assert Backbone(build("bert", "token", {})).first_position == 0
    assert Backbone(build("roberta", "token", {"pad_token_id": 1})).first_position == 2
    assert Backbone(build("xlm-roberta", "token", {"pad_token_id": 7})).first_position == 8


def config_of(folder: Path, **model: Any) -> Config:
    config = Config(task=choose("task", "sentiment"))
    config.model.name = str(folder)
    config.data.max_length = 64
    for name, value in model.items():
        setattr(config.model, name, value)
    return config


def load(folder: Path, head: str = "sequence", **settings: Any) -> Any:
    config = config_of(folder, **settings)
    torch.manual_seed(3)
    labels = () if head == "qa" else ("LABEL_0", "LABEL_1", "LABEL_2")
    return load_model(config, load_config(config, labels), HEADS[head])


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert mean", "deberta-v2"])
def test_saved_weights_are_the_loaded_ones(kind: str, tmp_path: Path) -> None:
    """After packing, dropout and embedding were swapped in: the same keys and tensors come back out."""
    build(kind, "sequence", {**PACKED, **PADDED}[kind]).save_pretrained(tmp_path / "hub")
    make_tokenizer().save_pretrained(tmp_path / "hub")
    model = load(tmp_path / "hub")
    backbone = Backbone(model)
    rows = use_row_embedding(model, OptimConfig())
    micro = make_micro([12, 5])
    if rows is not None:
        rows.begin(micro.tokens["input_ids"].unique())
    backbone.sequence_logits(micro).sum().backward()
    backbone.eval().sequence_logits(micro)
    model.save_pretrained(tmp_path / "saved")
    loaded, saved = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "saved"))
    assert list(loaded) == list(saved)
    assert all(torch.equal(loaded[key], saved[key]) for key in loaded)


def dropouts(model: nn.Module) -> dict[str, float]:
    """Every rate a module holds, as a dropout layer or as the number its attention reads."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            found[name] = module.p
        for key, value in vars(module).items():
            if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool):
                found[f"{name}.{key}"] = float(value)
    return found


ALL = {**PACKED, **PADDED}


@pytest.mark.in_check(2)
@pytest.mark.parametrize("kind", ALL)
def test_one_number_sets_every_dropout(kind: str, tmp_path: Path) -> None:
    for head in HEADS:
        if head == "qa" and kind in NO_QA_HEAD:
            continue
        build(kind, head, ALL[kind]).save_pretrained(tmp_path)
        rates = dropouts(load(tmp_path, head, dropout=0.37))
        assert rates, "no dropout found"
        assert {name: p for name, p in rates.items() if p != 0.37} == {}


def test_a_span_has_two_ends_whatever_the_weights_were_tuned_for(tmp_path: Path) -> None:
    build("bert", "sequence", {"num_labels": 5}).save_pretrained(tmp_path)
    model = load(tmp_path, "qa")
    assert model.config.num_labels == 2 and model.qa_outputs.out_features == 2


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_head_tuned_for_other_labels_is_replaced(kind: str, tmp_path: Path) -> None:
    tuned = build(kind, "sequence", {**ALL[kind], "num_labels": 5})
    tuned.save_pretrained(tmp_path)
    model = load(tmp_path, "sequence")
    before, after = tuned.state_dict(), model.state_dict()
    other = [name for name in after if before[name].shape != after[name].shape]
    assert other and all(name.startswith("classifier") for name in other)
    assert all(0.001 < float(after[name].std()) < 0.1 for name in other if name.endswith("weight"))
    assert all(torch.equal(before[name], after[name]) for name in after if name not in other)


def test_null_keeps_the_models_own_dropout(tmp_path: Path) -> None:
    own = {"hidden_dropout_prob": 0.15, "attention_probs_dropout_prob": 0.25}
    build("bert", "sequence", own).save_pretrained(tmp_path)
    assert set(dropouts(load(tmp_path)).values()) == {0.15, 0.25}


@pytest.mark.in_check(1)
@pytest.mark.parametrize("packing", ["auto", False])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2"])
def test_gradient_checkpointing_changes_nothing(kind: str, packing: bool | str, tmp_path: Path) -> None:
    """With dropout: what is computed twice draws the same masks twice."""
    build(kind, "sequence", ALL[kind]).save_pretrained(tmp_path)
    results = []
    for checkpointing in (False, True):
        model = load(tmp_path, gradient_checkpointing=checkpointing, dropout=0.1)
        assert any(m.__dict__.get("gradient_checkpointing") for m in model.modules()) == checkpointing
        backbone = Backbone(model, packing)
        assert any(isinstance(module, FastDropout) for module in model.modules()) or kind == "deberta-v2"
        torch.manual_seed(5)
        results.append(outputs_and_gradients(backbone, "sequence", make_micro([30, 12, 25])))
    (plain, plain_grads), (again, again_grads) = results
    assert torch.equal(plain, again)
    assert all(torch.equal(plain_grads[name], again_grads[name]) for name in plain_grads)


def test_the_tiny_model_of_the_other_tests_packs(tiny_model: Path) -> None:
    model = load(tiny_model)
    assert Backbone(model).packed
    assert len(AutoTokenizer.from_pretrained(tiny_model)) == model.config.vocab_size


def test_norms_and_biases_do_not_decay(tiny_model: Path) -> None:
    model = load(tiny_model)
    decaying, sparing = make_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert decaying["weight_decay"] == 0.3 and sparing["weight_decay"] == 0.0
    assert {names[id(p)].split(".")[-1] for p in decaying["params"]} == {"weight"}
    assert all(".LayerNorm." in names[id(p)] or names[id(p)].endswith("bias") for p in sparing["params"])
    assert len(names) == len(decaying["params"]) + len(sparing["params"])


def test_another_tiny_model_can_be_made(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "electra", "electra", embedding_size=16)
    assert Backbone(load(folder)).packed
