"""Known mistakes of other trainers of generative models, by the numbers of a list of them: none is made here.

1, 2, 20        loss and gradient depend on micro-batches, with label smoothing too
5               a mask that begins at token 0 covers the user's text
6, 7            truncation removes the end of a target, or all targets
9               ids of -100 among those that are generated
10              the last batch is scored twice on several ranks
14, 15, 19      sequences of a row see each other; rows with prompts differ from padded ones

3, 17 and 18 are in test_text_tasks.py, 4, 6 and 16 in test_chats.py, 8, 11 and 13 in test_translation.py (references
cut with the targets, settings of the checkpoint, texts that depend on ranks), 12 in test_languages.py, 21 and 22 in
tests/metrics/test_text.py, 23 in test_mlm.py. 2, 3 and 10 are held again where runs train: in test_translation.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.batching.plan import evaluation_share
from research.cli import main
from research.models.generate import prompts
from research.tracking.run import Run
from research.training.build import open_data
from tests.tasks.test_translation import build, experiment, make_model, rows, text
from tests.tasks.text_experiments import configured

WORDS = ["good", "bad", "film", "book", "city", "river"]
LONG_AND_SHORT = [
    {"source": WORDS[i % 6], "target": " ".join(WORDS[(i + k) % 6] for k in range(1 + 3 * i))} for i in range(4)
]


def gradients(module: Any, parts: list[np.ndarray]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of a step over these micro-batches, by the rule of the trainer: sums divided by the targets of all."""
    module.zero_grad()
    store = module.data.stores["train"]
    count, total = sum(float(store.targets[part].sum()) for part in parts), 0.0
    for part in parts:
        loss = module.loss(pack(store, part, module.backbone.packed))[0] / count
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_micro_batches_do_not_change_the_gradient(kind: str, tmp_path: Path) -> None:  # faults 1, 2, 15 and 20
    """Targets of 1 to 10 words, label smoothing 0.1: one micro-batch, four, and padded ones."""
    usual = ["optim.label_smoothing=0.1", "model.dropout=0.0"]
    packed, padded = (
        build(tmp_path, kind, *usual, f"trainer.packing={way}", data=LONG_AND_SHORT).train()
        for way in ("auto", "false")
    )
    assert packed.backbone.packed and not padded.backbone.packed
    loss, expected = gradients(packed, [np.arange(4)])
    for module, parts in ((packed, np.split(np.arange(4), 4)), (padded, [np.arange(4)])):
        other, found = gradients(module, list(parts))
        assert other == pytest.approx(loss, rel=1e-5)
        for name, gradient in expected.items():
            assert float((found[name] - gradient).abs().max()) <= 1e-5 * max(1.0, float(gradient.abs().max())), name


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_an_example_of_a_row_does_not_see_the_others(kind: str, tmp_path: Path) -> None:  # faults 14 and 19
    module = build(tmp_path, kind, data=LONG_AND_SHORT).eval()
    micro = pack(module.data.stores["train"], np.array([1, 3, 2]))
    stream = module.backbone.predicting(micro)
    later = torch.arange(int(stream.lengths[0]), int(stream.lengths.sum()))
    with torch.no_grad():
        before = module.backbone.vocabulary_logits(micro, later)
        for each in micro.streams.values():
            each.tokens["input_ids"][: each.lengths[0]] = 9
        assert module.backbone.packed and module.backbone.vocabulary_logits(micro, later).equal(before)


def test_an_answer_of_one_token_does_not_open_the_question(tmp_path: Path) -> None:  # fault 5
    """A template without any token before the first turn."""
    template = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}[SEP]{% endif %} {% endfor %}"
    chats = [{"messages": [{"role": "user", "content": "where"}, {"role": "assistant", "content": "a"}]}]
    model, file = make_model(tmp_path / "gpt2", "gpt2"), tmp_path / "plain.jinja"
    file.write_text(template)
    task = {"name": "dialogue", "chat_template": str(file)}
    data = open_data(configured(tmp_path, task, chats, model=model))
    micro = pack(data.stores["train"], np.array([0]))
    labels = micro.tokens["label"]
    assert text(data.tokenizer, labels[labels >= 0]) == ["a", "[SEP]"]
    assert text(data.tokenizer, prompts(micro)[0]) == ["where"]


def test_a_source_longer_than_max_length_leaves_every_target_complete(tmp_path: Path) -> None:  # faults 6 and 7
    data = [{"source": "film " * 60, "target": "good book"}] * 8
    module = build(tmp_path, "gpt2", data=data)
    store = module.data.stores["train"]
    assert store.targets.tolist() == [3.0] * 8 and module.data.cut["train"] == 8
    micro = pack(store, np.arange(8))
    labels = micro.tokens["label"]
    assert text(module.data.tokenizer, labels[labels >= 0]) == ["good", "book", "[SEP]"] * 8
    assert float(module.loss(micro)[0].detach()) > 0


def test_what_is_generated_are_tokens_of_the_vocabulary(tmp_path: Path) -> None:  # fault 9
    module = build(tmp_path, "bart", data=rows(6)).eval()
    with torch.no_grad():
        outputs = module.generate(pack(module.data.stores["validation"], np.arange(6)))
    tokens = [token for output in outputs for token in output.tokens]
    assert tokens and min(tokens) >= 0 and max(tokens) < len(module.data.tokenizer)


def test_each_example_is_scored_once_on_any_number_of_ranks(tmp_path: Path) -> None:  # fault 10
    store = build(tmp_path, "bart", data=rows(7)).data.stores["validation"]
    for ranks in (1, 2, 3, 4):
        shares = [evaluation_share(store.stream_tokens, rank, ranks, 40) for rank in range(ranks)]
        found = [int(row) for share in shares for part in share for row in part if row >= 0]
        assert sorted(found) == list(range(7)), ranks


@pytest.mark.slow
def test_the_loss_is_logged_with_and_without_smoothing(tmp_path: Path) -> None:
    """With another share of smoothing the unsmoothed loss of the first step is the same."""
    path, found = experiment(tmp_path, "bart", rows(12)), []
    for share in (0.0, 0.1, 0.3):
        keys = [
            f"optim.label_smoothing={share}",
            "optim.max_steps=1",
            "model.dropout=0",
            f"run_dir={tmp_path / str(share)}",
        ]
        assert main(["train", str(path), *keys, "data.validation=null", "trainer.tokens_per_microbatch=40"]) == 0
        found.append(Run.read(tmp_path / str(share)).metrics()[0])
    plain, *smoothed = found
    assert "train/loss_unsmoothed" not in plain
    for row in smoothed:
        assert row["train/loss_unsmoothed"] == pytest.approx(plain["train/loss"], rel=1e-5) != row["train/loss"]
