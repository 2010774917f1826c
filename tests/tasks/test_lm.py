"""Language modelling: every token is scored once with enough before it, and perplexity is that of one long pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.pack import pack
from research.common.errors import UserError
from research.config.load import load_config
from research.tasks.lm import pieces, strided
from research.training import build as building
from tests.conftest import WORDS, copied, write_experiment
from tests.tasks.test_translation import make_model

TEXT = (
    "\n\n".join(" ".join(WORDS[(i * 5 + k * k) % len(WORDS)] for k in range(3 + 11 * i % 50)) for i in range(8)) + "\n"
)


def build(folder: Path, *overrides: str, text: str = TEXT, **more: Any) -> Any:
    (folder / "corpus.txt").write_text(text)
    model = folder / "gpt2"
    if not model.exists():
        make_model(model, "gpt2")
    corpus = str(folder / "corpus.txt")
    data = {"train": corpus, "validation": copied(corpus), "max_length": 16, "max_overlap": 1.0}
    path = write_experiment(
        folder / "lm.yaml",
        {"name": "lm", **more},
        {"name": str(model), "dropout": 0.0},
        data,
        optim={"batch_size": 4, "max_steps": 4},
    )
    return building.build(load_config(path, overrides))


def test_every_token_is_a_target_once() -> None:
    ids = list(range(100, 111))
    assert pieces(ids, 4) == [
        ([100, 101, 102, 103], [101, 102, 103, 104]), ([104, 105, 106, 107], [105, 106, 107, 108]),
        ([108, 109], [109, 110]),
    ]  # fmt: skip
    found = strided(ids, 6, 2)
    assert [inputs for inputs, _ in found] == [ids[0:6], ids[2:8], ids[4:10]]
    assert [[t for t in labels if t >= 0] for _, labels in found] == [ids[1:7], ids[7:9], ids[9:11]]
    assert all(len(inputs) == len(labels) for inputs, labels in found)
    for limit in range(1, 13):
        for stride in range(1, limit + 1):
            scored = [label for _, labels in strided(ids, limit, stride) for label in labels if label >= 0]
            assert scored == ids[1:], (limit, stride)


def test_documents_of_a_text_file(tmp_path: Path) -> None:
    module = build(tmp_path, text="good film\na book\n\n \nAnna in Oslo\n")
    assert module.data.splits["train"].rows["text"][:] == ["good film\na book", "Anna in Oslo"]
    lines = build(tmp_path, "data.format=text", text="good film\na book\n\n \nAnna in Oslo\n")
    assert len(lines.data.splits["train"].rows) == 3
    text = lines.data.tokenizer.convert_ids_to_tokens
    store = lines.data.stores["train"]
    assert text(store.columns["input_ids"].rows(np.array([0]))[0].tolist()) == ["[CLS]", "good", "film"]
    assert text(store.columns["label"].rows(np.array([0]))[0].tolist()) == ["good", "film", "[SEP]"]
    assert lines.data.stores["validation"].targets.tolist() == [2.0, 2.0, 3.0]  # the end is not scored


def test_joined_pieces_are_of_one_length(tmp_path: Path) -> None:
    apart, joined = build(tmp_path), build(tmp_path, join=True)
    tokens = joined.data.stores["train"].tokens
    assert set(tokens[:-1].tolist()) == {16} and len(set(apart.data.stores["train"].tokens.tolist())) > 3
    assert tokens.sum() == apart.data.stores["train"].tokens.sum() + 7  # each border is predicted, too


def test_perplexity_is_that_of_one_pass(tmp_path: Path) -> None:
    """With windows as long as the longest text: the sum over the text by the model itself, one after the other."""
    module = build(tmp_path, "data.max_length=64").eval()
    data, model = module.data, module.backbone.model
    rows = np.arange(len(data.stores["validation"]))
    with torch.no_grad():
        found = module.decode(*(lambda m: (m, module.outputs(m)))(pack(data.stores["validation"], rows)))
        model.set_attn_implementation("eager")
        total = 0.0
        for row, text in enumerate(data.splits["validation"].rows["text"]):
            ids = torch.tensor([[2, *data.tokenizer(text, add_special_tokens=False)["input_ids"]]])
            nll = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum").item()
            assert found[row]["nll"] == pytest.approx(nll, rel=1e-5)
            assert found[row]["tokens"] == ids.shape[1] - 1
            total += nll
    table = data.table(data.splits["validation"], found)
    assert sum(table["nll"]) == pytest.approx(total, rel=1e-5)
    assert sum(table["words"]) == len(TEXT.split())
    assert sum(table["bytes"]) == len(TEXT.encode()) - TEXT.count("\n\n") * 2 - 1


def test_the_signature_says_what_decides(tmp_path: Path) -> None:
    module = build(tmp_path, stride=4)
    assert module.data.score_settings() == {
        "masked": False, "conditions": ["max_length:16", "stride:4", "bos:yes", "eos:no", "words:blanks"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "text", "sentence"),
    [
        (["task.stride=17"], TEXT, "task.stride=17 is more than data.max_length=16"),
        (["data.max_length=200"], TEXT, "more than the 128 positions"),
        (["data.train={jsonl}", "data.validation=null"], TEXT, "line 2: the text is empty"),
        (["data.columns={text: body}"], TEXT, "no column 'body' for the field 'text'"),
        ([], " \n\n \n", "holds no lines"),
    ],
)
def test_bad_input(overrides: list[str], text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "good"}\n{"text": " "}\n')
    with pytest.raises(UserError, match=sentence):
        build(tmp_path, *(o.replace("{jsonl}", str(file)) for o in overrides), text=text)


def test_an_encoder_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match="is a 'bert' model, an encoder; task 'lm' fine-tunes decoders such as"):
        build(tmp_path, f"model.name={tiny_model}")
