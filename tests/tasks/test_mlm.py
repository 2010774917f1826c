"""Masked language modelling: masks belong to (seed, epoch, example, place), whatever the layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.masking import Masking
from research.batching.pack import Planner, pack
from research.batching.plan import evaluation_share
from research.batching.repeat import twice
from research.common.errors import UserError
from research.config.load import load_config
from research.models.attention import PACKED
from research.training import build as building
from tests.conftest import copied, make_tiny_model, write_experiment
from tests.small_runs import SmallRuns, assert_same_bits, losses
from tests.tasks.r_drop import assert_r_drop
from tests.tasks.test_lm import TEXT


def masking(unit: Any = "token", rate: float = 0.15, seed: int = 0) -> Masking:
    return Masking(unit, rate, 4, np.arange(5, 200), seed)


def row(count: int, length: int) -> tuple[Any, ...]:
    """ids, words of one to three tokens, lengths, examples."""
    words = np.repeat(np.arange(length), 1 + np.arange(length) % 3)[:length]
    return np.arange(count * length) % 150 + 5, np.tile(words, count), np.full(count, length), np.arange(count)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_shares_are_those_of_bert(unit: str) -> None:
    """15 % of the tokens, of which 80, 10 and 10 % are masked, replaced and kept: within four standard errors."""
    ids, words, lengths, examples = row(400, 100)
    out, chosen = masking(unit)(ids, words, lengths, examples, 3)
    count = int(chosen.sum())
    assert count == 15 * 400 if unit == "token" else 0.99 * 15 * 400 <= count <= 15 * 400
    assert (out[~chosen] == ids[~chosen]).all()
    masked = (out[chosen] == 4).mean()
    kept = (out[chosen] == ids[chosen]).mean()
    draws = count / (3 if unit == "span" else 1)  # a span decides once
    assert abs(masked - 0.8) < 4 * np.sqrt(0.16 / draws) and abs(kept - 0.1) < 4 * np.sqrt(0.09 / draws) + 1 / 195


def test_words_and_spans_are_masked_as_units() -> None:
    ids, words, lengths, examples = row(50, 90)
    for unit in ("word", "span"):
        _, chosen = masking(unit)(ids, words, lengths, examples, 0)
        of_word: dict[Any, Any] = {}
        for sequence, word, is_chosen in zip(np.repeat(examples, lengths), words, chosen, strict=True):
            of_word.setdefault((sequence, word), set()).add(bool(is_chosen))
        assert all(len(each) == 1 for each in of_word.values())
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))).tolist()[::2]
    assert np.mean(runs) > 4  # of spans; of tokens alone it is 1.2
    special = np.where(np.arange(len(words)) % 90 == 0, -1, words)
    assert not masking()(ids, special, lengths, examples, 0)[1][::90].any()


def test_masks_do_not_depend_on_the_batch() -> None:
    ids, words, lengths, examples = row(12, 40)
    whole, chosen = masking("span")(ids, words, lengths, examples, 1)
    for i in range(12):
        part = slice(40 * i, 40 * (i + 1))
        alone = masking("span")(ids[part], words[part], lengths[i : i + 1], examples[i : i + 1], 1)
        assert (alone[0] == whole[part]).all() and (alone[1] == chosen[part]).all()
        copies = masking("span")(
            np.tile(ids[part], 2), np.tile(words[part], 2), np.array([40, 40]), np.array([i, -1 - i]), 1
        )
        assert (copies[0] == np.tile(whole[part], 2)).all()  # R-Drop compares the same masks
    assert (masking("span")(ids, words, lengths, examples, 2)[1] != chosen).any()
    assert (masking("span", seed=1)(ids, words, lengths, examples, 1)[1] != chosen).any()


def build(folder: Path, *overrides: str, kind: str = "bert", **more: Any) -> Any:
    (folder / "corpus.txt").write_text(TEXT)
    if not (folder / kind).exists():
        make_tiny_model(folder / kind, kind)
    corpus = str(folder / "corpus.txt")
    data = {"train": corpus, "validation": copied(corpus), "max_length": 16, "max_overlap": 1.0}
    path = write_experiment(
        folder / "mlm.yaml",
        {"name": "mlm", **more},
        {"name": str(folder / kind), "dropout": 0.0},
        data,
        optim={"batch_size": 4, "epochs": 2},
    )
    return building.build(load_config(path, overrides))


def drawn(module: Any, ranks: int, budget: int, step: int) -> dict[tuple[int, int], tuple[int, int]]:
    """(example, place) -> what the model reads and what it is to predict, in a training step of any layout."""
    found: dict[Any, Any] = {}
    module.train().progress.step = step
    data = module.data
    for rank in range(ranks):
        item = Planner(data.stores["train"], data.plan, rank, ranks, budget, True, False)(step)
        for micro in item.micro:
            if not micro.idle:
                read, labels = module.targets_of(micro)
                owner = np.repeat(micro.examples, micro.lengths).tolist()
                values = zip(
                    owner,
                    micro.first.positions.tolist(),
                    read.tokens["input_ids"].tolist(),
                    labels.tolist(),
                    strict=True,
                )
                found |= {(example, place): (token, label) for example, place, token, label in values}
    return found


def test_masks_are_the_same_in_every_layout_and_new_in_every_epoch(tmp_path: Path) -> None:  # fault 23
    module = build(tmp_path)
    per_epoch = module.data.plan.steps_per_epoch
    first = [drawn(module, ranks, budget, step=1) for ranks, budget in ((1, 4096), (2, 20), (4, 1))]
    assert first[0] == first[1] == first[2]
    masks = {key for key, (_, label) in first[0].items() if label >= 0}
    assert len(masks) == module.data.stores["train"].targets[module.data.plan.global_batch(1)].sum()
    epochs: list[dict[Any, Any]] = [{}, {}]
    for epoch, found in enumerate(epochs):
        for step in range(per_epoch):
            found |= drawn(module, 1, 4096, epoch * per_epoch + step)
    assert epochs[0].keys() == epochs[1].keys()
    assert sum(epochs[0][key] != epochs[1][key] for key in epochs[0]) > len(masks)


@pytest.mark.slow
def test_masks_do_not_depend_on_loader_workers(small_runs: SmallRuns) -> None:  # fault 23
    """That they are the same after a kill too is in tests/training/test_scratch.py."""
    none, two = (small_runs.train("mlm", f"data.num_workers={workers}") for workers in (0, 2))
    assert_same_bits(two, none)
    assert len({*losses(none)}) == 6


@pytest.mark.in_check(1)
@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_loss_is_that_of_the_model_and_evaluation_repeats(unit: str, tmp_path: Path) -> None:
    module = build(tmp_path, mask_unit=unit).eval()
    store = module.data.stores["validation"]
    micro = pack(store, np.arange(len(store)))
    with torch.no_grad():
        loss, outputs = module.loss(micro)
        read, labels = module.targets_of(micro)
        module.backbone.model.set_attn_implementation("eager")
        expected = 0.0
        sizes = micro.lengths.tolist()
        for ids, label in zip(read.tokens["input_ids"].split(sizes), labels.split(sizes), strict=True):
            scores = module.backbone.model(input_ids=ids[None]).logits[0]
            expected += F.cross_entropy(scores, label, reduction="sum", ignore_index=-100).item()
    module.backbone.model.set_attn_implementation(PACKED)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    found = module.decode(micro, outputs)
    assert sum(each["nll"] for each in found.values()) == pytest.approx(expected, rel=1e-5)
    again: dict[Any, Any] = {}
    for part in evaluation_share(store.stream_tokens, 0, 1, 20):
        small = pack(store, part)
        again |= module.decode(small, module.loss(small)[1])
    assert {row: each["tokens"] for row, each in again.items()} == {row: each["tokens"] for row, each in found.items()}
    assert all(again[row]["nll"] == pytest.approx(found[row]["nll"], rel=1e-4) for row in found)


@pytest.mark.slow
def test_r_drop_compares_the_same_masks(tmp_path: Path) -> None:
    module = build(tmp_path)
    assert_r_drop(lambda *keys: build(tmp_path, *keys), labels=module.backbone.model.config.vocab_size)
    micro = twice(pack(module.data.stores["train"], np.arange(3)))
    labels = module.targets_of(micro)[1]
    assert (labels[: len(labels) // 2] == labels[len(labels) // 2 :]).all()


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "deberta-v2"])
def test_other_encoders(kind: str, tmp_path: Path) -> None:
    """Packed or padded, the loss of all documents is the sum of their own."""
    module = build(tmp_path, kind=kind).eval()
    store = module.data.stores["validation"]
    with torch.no_grad():
        whole = module.loss(pack(store, np.arange(len(store)), module.backbone.packed))[0].item()
        apart = sum(
            module.loss(pack(store, np.array([i]), module.backbone.packed))[0].item() for i in range(len(store))
        )
    assert whole == pytest.approx(apart, rel=1e-5) and module.backbone.packed is (kind != "deberta-v2")


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task.mask_rate=1.5 must be in \(0, 1\)"):
        build(tmp_path, mask_rate=1.5)
    module = build(tmp_path)
    module.data.tokenizer.mask_token = None
    with pytest.raises(UserError, match="has no mask token, which this task needs"):
        type(module.data)(module.config, module.data.tokenizer)
