"""From scratch: a config by the YAML, a tokenizer trained on the training texts, weights by the seed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from research.batching.pack import pack
from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import ScratchConfig
from research.models.scratch import trained_tokenizer
from research.tracking.provenance import weights_sha256
from research.tracking.run import Run
from research.training.build import build
from research.training.start import pretrained_name, started
from tests.attempts import Attempt, attempt, attempt_ranks
from tests.conftest import copied, make_tiny_model, write_jsonl
from tests.tasks.test_lm import TEXT
from tests.tasks.test_translation import rows
from tests.training.test_resume import command, content, last_step

SIZE = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 512, "positions": 64}
FAMILIES = {  # task -> family
    "mlm": ["bert"],
    "lm": ["gpt2", "llama"],
    "translation": ["marian", "t5", "bart", "llama"],
    "summarization": ["bart"],
    "span_corruption": ["t5"],
    "nsp": ["bert"],
}
PLAIN = ("lm", "mlm", "span_corruption", "nsp")
CASES = [(task, family) for task, families in FAMILIES.items() for family in families]


def experiment(folder: Path, task: str, family: str, **sections: Any) -> Path:
    (folder / "corpus.txt").write_text(TEXT)
    pairs = write_jsonl(folder / "pairs.jsonl", rows(24))
    own: dict[str, Any] = {} if task in PLAIN else {"max_new_tokens": 8, "max_target_tokens": 16}
    if task == "nsp":  # a loss of masked tokens almost alone
        own = {"next_weight": 0.01}
    file = str(folder / "corpus.txt" if task in PLAIN else pairs)
    content = {
        "task": {"name": task, **own},
        "model": {"name": "scratch", "scratch": {"family": family, **SIZE}},
        "data": {"train": file, "validation": copied(file), "max_length": 24, "max_overlap": 1.0},
        "optim": {"batch_size": 4, "max_steps": 10, "lr": 3e-3},
        "trainer": {"devices": 1, "log_every_steps": 1, "checkpoint_every_steps": 2, "tokens_per_microbatch": 128},
        "wandb": {"mode": "disabled"},
        "run_dir": str(folder / "run"),
        **sections,
    }
    path = folder / f"{task}-{family}.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_trained_tokenizer_writes_any_text_and_is_the_same_again() -> None:
    keys = ScratchConfig(family="t5", vocabulary=600)
    corpus = ["Grüße aus der Stadt", "aus der Stadt, aus der Stadt", "the film"] * 3
    first, again = (trained_tokenizer(keys, corpus) for _ in range(2))
    assert first.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert 361 < len(first) <= 600  # 256 bytes, five special tokens, a hundred sentinels, merges
    for text in ("Grüße", "東京 🙂", " two  blanks"):
        ids = first(text)["input_ids"]
        assert ids[-1] == first.eos_token_id and first.decode(ids, skip_special_tokens=True) == text
    assert len(first("aus der Stadt")["input_ids"]) < len(first("xus qer Sbadt")["input_ids"])
    assert first.convert_tokens_to_ids("<extra_id_99>") == 104


@pytest.mark.in_check(1)
@pytest.mark.parametrize(("task", "family"), CASES)
def test_builds_and_learns_from_packed_rows(task: str, family: str, tmp_path: Path) -> None:
    module = build(load_config(experiment(tmp_path, task, family)))
    model, store = module.backbone.model, module.data.stores["train"]
    assert module.backbone.packed and model.config.vocab_size == len(module.data.tokenizer) <= 512
    assert model.new_weights == {name for name, _ in model.named_parameters()}
    micro = pack(store, np.arange(8))
    loss, _ = module.train().loss(micro)
    loss.backward()
    assert loss.item() / store.targets[:8].sum() == pytest.approx(np.log(len(module.data.tokenizer)), rel=0.2)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)


@pytest.mark.slow
def test_weights_belong_to_the_seed_and_the_tokenizer_to_keys_and_texts(tmp_path: Path, own_cache: Path) -> None:
    path = experiment(tmp_path, "mlm", "bert")
    first, again, other = (build(load_config(path, [f"seed={seed}"])).backbone.model for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (first, again, other)]
    assert bool((weights[0] == weights[1]).all()) and not bool((weights[0] == weights[2]).all())
    assert len(list((own_cache / "scratch").iterdir())) == 1  # all three have the same
    folder = Path(started(load_config(path)).model.name)
    before = (folder / "tokenizer.json").read_bytes()
    shutil.rmtree(folder)
    assert Path(started(load_config(path)).model.name) == folder
    assert (folder / "tokenizer.json").read_bytes() == before
    (tmp_path / "corpus.txt").write_text(TEXT + "\n\nanother film\n")
    assert Path(started(load_config(path)).model.name) != folder
    assert Path(started(load_config(path, ["model.scratch.width=64"])).model.name) != folder


def test_bert2bert_takes_both_halves_from_an_encoder(tmp_path: Path) -> None:
    bert = make_tiny_model(tmp_path / "bert")
    model = {"name": "scratch", "scratch": {"family": "bert2bert", "encoder": str(bert)}}
    config = load_config(experiment(tmp_path, "translation", "bert2bert", model=model))
    module = build(config)
    assert [*weights_sha256(pretrained_name(config))] == ["model.safetensors"]  # what provenance says of the weights
    own: Any = module.backbone.model
    table = "embeddings.word_embeddings.weight"
    encoder, decoder = own.encoder.state_dict()[table], own.decoder.bert.state_dict()[table]
    assert (
        module.backbone.packed
        and not own.encoder.config.is_decoder
        and bool((encoder == decoder).all())
        and own.decoder.config.add_cross_attention
    )
    assert "decoder.bert.encoder.layer.0.crossattention.self.query.weight" in own.new_weights
    store, token = module.data.stores["train"], module.data.tokenizer
    read, labels = (store.columns[name].rows(np.array([1]))[0] for name in ("target.input_ids", "target.label"))
    assert read[0] == token.cls_token_id != labels[0] and read[1:].tolist() == labels[:-1].tolist()
    assert labels[-1] == token.sep_token_id  # once each: neither start nor end is doubled


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.scratch.family=null"], "model.scratch.family must be given"),
        (["model.name={bert}"], "model.scratch.family acts where model.name is scratch, not"),
        (["model.scratch.width=33"], "model.scratch.width=33 must be a multiple of its heads, 2"),
        (["model.scratch.encoder=x"], "model.scratch.encoder is for bert2bert, not bert"),
        (["model.revision=main"], "model.revision is for pretrained models"),
        (["model.scratch.family=bert2bert"], "layers is that of the encoder: remove it; .* must name the BERT"),
        (["adapter=head"], "adapter=head leaves weights as they were pretrained, and model.name=scratch has none"),
        (["methods={l2_sp: {}}"], "methods.l2_sp pulls towards pretrained weights, and model.name=scratch has none"),
        (["model.scratch.family=t5"], "model.scratch.family=t5 is a 't5' model, an encoder-decoder; task 'mlm'"),
        (["data.max_length=65"], "data.max_length=65 is more than the 64 positions of model.scratch.family=bert"),
        (["model.scratch.vocabulary=100"], "model.scratch.vocabulary=100 must be at least 512 tokens"),
    ],
)  # fmt: skip
def test_bad_input(overrides: list[str], sentence: str, tiny_model: Path, tmp_path: Path) -> None:
    path = experiment(tmp_path, "mlm", "bert")
    with pytest.raises(UserError, match=sentence):
        started(load_config(path, [each.replace("{bert}", str(tiny_model)) for each in overrides]))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "family"), [("mlm", "bert"), ("lm", "gpt2"), ("translation", "marian")])
def test_killed_resumed_on_ranks_and_reopened(task: str, family: str, tmp_path: Path, forkserver: None) -> None:
    """Bit-equal after a kill; of two ranks the same up to rounding; `model/` is an ordinary model."""
    path, log = experiment(tmp_path, task, family), tmp_path / "log"
    whole, cut, two = (Run(tmp_path / name) for name in ("whole", "cut", "two"))
    code, said = attempt(command(path, whole.path), log)
    assert code == 0, said
    begun = Attempt(command(path, cut.path), log)
    assert begun.until(lambda: last_step(cut) >= 3)
    begun.kill()
    code, said = attempt(command(path, cut.path), log)
    assert code == 0, said
    found, expected = content(Run.read(cut.path)), content(Run.read(whole.path))
    for part in ("metrics", "result", "predictions", "weights"):
        assert found[part] == expected[part], part
    layout = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp")
    code, said = attempt_ranks(command(path, two.path, *layout), 2, log)
    assert code == 0, said
    losses = [[row["train/loss"] for row in run.metrics() if "train/loss" in row] for run in (whole, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)  # in bf16
    if family == "bert":
        assert AutoModelForMaskedLM.from_pretrained(whole.model).config.num_hidden_layers == 1
    if family == "marian":
        assert AutoModelForSeq2SeqLM.from_pretrained(whole.model).config.encoder_layers == 1
    assert AutoTokenizer.from_pretrained(whole.model)("a film")["input_ids"]
