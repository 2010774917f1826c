"""Span corruption: the lengths are fixed, the spans belong to (seed, epoch, example, place), the text is all there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.pack import pack
from research.batching.spans import SpanCorruption, parts
from research.common.errors import UserError
from research.config.load import load_config
from research.models.positions import set_plans
from research.training.build import build
from tests.conftest import copied
from tests.tasks.test_translation import make_model
from tests.training.test_scratch import experiment

CORRUPTION = SpanCorruption(0.15, 3.0, np.arange(1000, 1100), 1, seed=0)


def restored(source: list[int], target: list[int]) -> list[int]:
    """The text: each sentinel of the source replaced by what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token >= 1000:
            spans[token] = []
        else:
            spans[[*spans][-1]].append(token)
    return [token for each in source[:-1] for token in spans.get(each, [each])]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 20, 100, 511])
def test_source_and_target_make_the_text(length: int) -> None:
    ids = np.arange(10, 10 + length)
    noise, spans = CORRUPTION.counts(length)
    seen = set()
    for epoch in range(5):
        source, target = CORRUPTION(ids, 3, 0, epoch)
        assert len(source) == length - noise + spans + 1 and len(target) == noise + spans + 1
        assert source[-1] == target[-1] == 1 and restored(source.tolist(), target.tolist()) == ids.tolist()
        assert [t for t in source if t >= 1000] == [t for t in target if t >= 1000] == list(range(1000, 1000 + spans))
        seen.add(tuple(source.tolist()))
        assert (CORRUPTION(ids, -4, 0, epoch)[0] == source).all()  # a copy for R-Drop
    assert len(seen) > 1 or length < 3
    if length == 100:  # the paper's figures
        assert (noise, spans) == (15, 5)


def test_all_divisions_are_alike_likely() -> None:
    """4 into 2 parts: 1+3, 2+2 and 3+1, each a third within four standard errors."""
    rng = np.random.default_rng(0)
    found = [tuple(parts(4, 2, rng.random(9))) for _ in range(3000)]
    assert {*found} == {(1, 3), (2, 2), (3, 1)}
    assert all(abs(found.count(each) / 3000 - 1 / 3) < 4 * np.sqrt(2 / 9 / 3000) for each in {*found})


@pytest.mark.slow
def test_the_loss_is_that_of_the_model_for_any_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = experiment(tmp_path, "span_corruption", "t5")
    module: Any = build(
        load_config(
            path, [f"data.train={tmp_path / 'corpus.txt'}", f"data.validation={copied(tmp_path / 'corpus.txt')}"]
        )
    )
    module.eval()
    store = module.data.stores["validation"]
    micro = pack(store, np.arange(len(store)))
    with torch.no_grad():
        loss, outputs = module.loss(micro)
        read, labels = module.targets_of(micro)
        apart = [module.decode(m, module.loss(m)[1]) for m in (pack(store, np.array([i])) for i in range(len(store)))]
        module.backbone.model.set_attn_implementation("eager")
        set_plans(module.backbone.taught, None)
        expected, streams = 0.0, [*read.streams.values()]
        parts = [s.tokens["input_ids"].split(s.lengths.tolist()) for s in streams]
        for source, given, label in zip(*parts, labels.split(streams[1].lengths.tolist()), strict=True):
            scores = module.backbone.model(input_ids=source[None], decoder_input_ids=given[None]).logits[0]
            expected += F.cross_entropy(scores, label, reduction="sum").item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    found = module.decode(micro, outputs)
    assert sum(each["nll"] for each in found.values()) == pytest.approx(expected, rel=1e-5)
    assert all(one[i]["nll"] == pytest.approx(found[i]["nll"], rel=1e-4) for i, one in enumerate(apart))
    assert sum(each["tokens"] for each in found.values()) == store.targets.sum()


def test_a_tokenizer_without_sentinels_is_refused(tmp_path: Path) -> None:
    path = experiment(tmp_path, "span_corruption", "t5", model={"name": str(make_model(tmp_path / "t5", "t5"))})
    with pytest.raises(UserError, match="has no sentinels <extra_id_0>"):
        build(load_config(path))
