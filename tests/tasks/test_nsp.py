"""Next-sentence prediction: pairs belong to (seed, epoch, place), and what does not follow is of another document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.pack import Planner, pack
from research.batching.store import NO_TARGET
from research.common.errors import UserError
from research.config.load import load_config
from research.models.attention import PACKED
from research.tasks.masked_text import EVALUATION
from research.tasks.nsp import IS_NEXT, IS_OTHER, bounds
from research.training import build as building
from tests.conftest import copied, make_tiny_model

DOCUMENTS = [  # each of words of its own
    " ".join(f"{letter}{i % 7}" for i in range(4 + 9 * number)) for number, letter in enumerate("abcdefgh")
]


def build(folder: Path, *overrides: str, text: str = "\n\n".join(DOCUMENTS), kind: str = "bert") -> Any:
    (folder / "corpus.txt").write_text(text)
    if not (folder / kind).exists():
        make_tiny_model(folder / kind, kind)
    content = {
        "task": {"name": "nsp", "next_weight": 3.0},
        "model": {"name": str(folder / kind), "dropout": 0.0},
        "data": {"train": str(folder / "corpus.txt"), "validation": copied(folder / "corpus.txt"), "max_length": 24,
                 "max_overlap": 1.0},
        "optim": {"batch_size": 4, "epochs": 2},
        "trainer": {"precision": "fp32", "devices": 1},
        "wandb": {"mode": "disabled"},
        "run_dir": str(folder / "run"),
    }  # fmt: skip
    (folder / "nsp.yaml").write_text(json.dumps(content))
    return building.build(load_config(folder / "nsp.yaml", overrides))


def joined(pieces: str) -> str:
    return pieces.replace(" ##", "").replace(" ", "")


def segments(module: Any, store: Any) -> list[tuple[str, str, int]]:
    """Of each window the first and the second segment as text, and what is said of them."""
    micro = pack(store, np.arange(len(store)))
    sizes, tokenizer = micro.lengths.tolist(), module.data.tokenizer
    found = []
    for ids, types, label in zip(
        micro.tokens["input_ids"].split(sizes), micro.tokens["token_type_ids"].split(sizes),
        micro.sequences["next"].tolist(), strict=True,
    ):  # fmt: skip
        first, second = (tokenizer.decode(ids[types == i], skip_special_tokens=True) for i in (0, 1))
        found.append((joined(first), joined(second), label))
    return found


def test_pairs_are_those_of_bert(tmp_path: Path) -> None:
    module = build(tmp_path)
    data, train = module.data, module.data.stores["train"]
    true = segments(module, train)
    assert "".join(a + b for a, b, _ in true) == "".join(DOCUMENTS).replace(" ", "")  # nothing is lost
    ids = pack(train, np.array([3])).tokens
    a, b = (ids["input_ids"][ids["token_type_ids"] == i].tolist() for i in (0, 1))
    texts = [data.tokenizer.decode(part).replace(" ##", "") for part in (a[1:-1], b[:-1])]
    same = data.tokenizer(*texts)["input_ids"]
    assert same == a + b  # [CLS] A [SEP] B [SEP]

    others, drawn = 0, [data.pairs(epoch) for epoch in range(20)]
    for store in drawn:
        assert (store.tokens == train.tokens).all() and (store.targets == train.targets).all()
        for (first, second, label), (old_first, old_second, _) in zip(segments(module, store), true, strict=True):
            assert first == old_first
            if label == IS_NEXT:
                assert second == old_second
            elif label == NO_TARGET:
                assert not second
            else:
                others += 1
                assert first[0] not in second and second[0].isalpha()  # of other documents, from a word on
    pairs = 20 * sum(bool(second) for _, second, _ in true)
    assert abs(others / pairs - 0.5) < 4 * np.sqrt(0.25 / pairs)
    assert segments(module, data.pairs(3)) == segments(module, drawn[3]) != segments(module, drawn[4])


def test_pairs_and_masks_are_the_same_in_every_layout(tmp_path: Path) -> None:
    module = build(tmp_path).train()
    step = module.data.plan.steps_per_epoch + 1
    module.progress.step = step
    found = []
    for ranks, budget in ((1, 4096), (2, 40), (3, 1)):
        seen: dict[int, Any] = {}
        for rank in range(ranks):
            planner = Planner(
                module.data.stores["train"], module.data.plan, rank, ranks, budget, True, False,
                store_of=module.data.training_store,
            )  # fmt: skip
            for micro in planner(step).micro:
                if not micro.idle:
                    read, labels = module.targets_of(micro)
                    sizes = micro.lengths.tolist()
                    parts = zip(read.tokens["input_ids"].split(sizes), labels.split(sizes), strict=True)
                    values = [(ids.tolist(), label.tolist()) for ids, label in parts]
                    seen |= dict(
                        zip(
                            micro.examples.tolist(),
                            zip(values, micro.sequences["next"].tolist(), strict=True),
                            strict=True,
                        )
                    )
        found.append(seen)
    assert found[0] == found[1] == found[2] and len(found[0]) == 4
    assert {label for _, label in found[0].values()} <= {IS_NEXT, IS_OTHER}


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["auto", "false"])
def test_loss_is_that_of_the_librarys_head(packing: str, tmp_path: Path) -> None:
    """The sums of both losses by BertForPreTraining, a window at a time; targets are their number."""
    module = build(tmp_path, f"trainer.packing={packing}").eval()
    store = module.data.stores["validation"]
    micro = pack(store, np.arange(len(store)), module.backbone.packed)
    model, sizes = module.backbone.model, micro.lengths.tolist()
    with torch.no_grad():
        loss, outputs = module.loss(micro)
        read, labels = module.targets_of(micro)
        model.set_attn_implementation("eager")
        masked = following = right = 0.0
        columns = (read.tokens["input_ids"], read.tokens["token_type_ids"], labels)
        for ids, types, label, pair in zip(*(x.split(sizes) for x in columns), micro.sequences["next"], strict=True):
            out = model(input_ids=ids[None], token_type_ids=types[None])
            masked += F.cross_entropy(out.prediction_logits[0], label, reduction="sum", ignore_index=-100).item()
            following += F.cross_entropy(
                out.seq_relationship_logits, pair[None], reduction="sum", ignore_index=-100
            ).item()
            right += float(out.seq_relationship_logits.argmax() == pair)
    if module.backbone.packed:
        model.set_attn_implementation(PACKED)
    pairs = int((micro.sequences["next"] != NO_TARGET).sum())
    assert loss.item() == pytest.approx(masked + 3.0 * following, rel=1e-5)
    assert store.targets.sum() == int((labels >= 0).sum()) + 3.0 * pairs
    found = module.decode(micro, outputs)
    assert sum(row["nll"] for row in found.values()) == pytest.approx(masked, rel=1e-5)
    assert sum(row["next_right"] for row in found.values()) == right
    assert sum(row["next_pairs"] for row in found.values()) == pairs and len(found) == len(DOCUMENTS)
    again = build(tmp_path).data.stores["validation"]
    assert again.columns["next"].flat().tolist() == store.columns["next"].flat().tolist()
    assert EVALUATION > 1 << 32  # no epoch of training


def test_words_are_not_cut_and_one_alone_is_no_pair(tmp_path: Path) -> None:
    assert bounds([0, 0, 0, 1, 1, 2, 3, 3], 4) == [(0, 3), (3, 6), (6, 8)]
    assert bounds([0] * 5, 2) == [(0, 2), (2, 4), (4, 5)] and bounds([], 4) == [(0, 0)]
    module = build(tmp_path, text="film\n\ngood book")
    assert segments(module, module.data.stores["train"]) == [("film", "", NO_TARGET), ("good", "book", IS_NEXT)]
    assert module.data.stores["train"].targets.tolist() == [1.0, 1.0 + 3.0]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.txt: has one document, and a segment that does not come next"):
        build(tmp_path, text=DOCUMENTS[4])
    with pytest.raises(
        UserError, match=r"is a 'roberta' model, which has no head for next sentences; task 'nsp' trains"
    ):
        build(tmp_path, kind="roberta")
