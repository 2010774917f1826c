"""Chats: which turns are learned and generated, what of a long chat is read, and what is refused.

The numbers of faults are those of a list of known mistakes in other trainers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.common.errors import UserError
from tests.tasks.test_translation import make_model, text
from tests.tasks.text_experiments import CHAT, built, first_row, opened

MESSAGES = {
    "messages": [
        {"role": "user", "content": "where"},
        {"role": "assistant", "content": "Oslo"},
        {"role": "user", "content": [{"type": "text", "text": "who"}]},
        {"role": "assistant", "content": "Anna"},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "where"}, {"from": "gpt", "value": "Oslo"},
        {"from": "human", "value": "who"}, {"from": "gpt", "value": "Anna"},
    ]
}  # fmt: skip
ALPACA = {"instruction": "who", "input": "", "output": "Anna", "history": [["where", "Oslo"]]}


def chat(folder: Path, row: dict[str, Any], *keys: str) -> Any:
    task = {"name": "dialogue", "chat_template": str(folder / "chat.jinja")}
    return opened(folder, task, [row], "data.max_length=64", *keys)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("row", [MESSAGES, SHAREGPT, ALPACA], ids=["messages", "sharegpt", "alpaca"])
def test_every_turn_of_the_assistant_is_learned_and_the_last_is_generated(row: dict[str, Any], tmp_path: Path) -> None:
    """The template has no `{% generation %}` marks (fault 4); each answer's end token is a target; one start token
    (fault 16)."""
    data = chat(tmp_path, row)
    read, predicted, prompt = first_row(data)
    turns = ["[CLS]", "user", ":", "where", "[SEP]", "[CLS]", "assistant", ":", "oslo", "[SEP]"]
    turns = [piece for word in turns for piece in data.tokenizer.tokenize(word)]
    assert read[: len(turns)] == turns and predicted == ["oslo", "[SEP]", "anna", "[SEP]"]
    assert read[:2] != ["[CLS]", "[CLS]"] and read == [*prompt, "anna"]
    assert data.golds(data.splits["train"].rows[:], 1) == [["Anna"]]
    last = chat(tmp_path, row, "task.train_on=last")
    assert first_row(last)[1] == ["anna", "[SEP]"] and first_row(last)[2] == prompt


def test_an_answer_that_is_cut_is_counted_and_its_end_is_no_target(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it is not the last of its chat (fault 6)."""
    first = {"role": "assistant", "content": "Oslo and the river and a good film"}
    turns = [MESSAGES["messages"][0], first, *MESSAGES["messages"][2:]]
    data = chat(tmp_path, {"messages": turns}, "task.max_target_tokens=3", "task.max_new_tokens=3")
    assert first_row(data)[1] == ["oslo", "and", "the", "anna", "[SEP]"]
    assert data.cut_targets["train"] == len(data.stores["train"])
    assert "have a target longer than task.max_target_tokens=3, which loses its end in the loss" in caplog.text
    caplog.clear()
    assert chat(tmp_path, MESSAGES).cut_targets["train"] == 0 and "max_target_tokens" not in caplog.text


def test_of_a_long_chat_the_oldest_turns_go_and_the_system_stays(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "good"}]
    for i in range(6):
        turns += [{"role": "user", "content": f"film {i}"}, {"role": "assistant", "content": f"book {i}"}]
    data = chat(tmp_path, {"messages": turns}, "data.max_length=60")
    read, predicted, prompt = first_row(data)
    assert "good" in prompt and "0" not in read and "5" in prompt and predicted[-3:] == ["book", "5", "[SEP]"]
    assert len(prompt) <= 60 and data.cut["train"] == 1
    asked = {"messages": [{"role": "user", "content": "film " * 50 + "river"}, {"role": "assistant", "content": "a"}]}
    cut = chat(tmp_path, asked, "data.max_length=30")
    assert len(first_row(cut)[2]) <= 30 and "river" in first_row(cut)[2] and first_row(cut)[1] == ["a", "[SEP]"]


def test_source_and_target_as_turns(tmp_path: Path) -> None:
    task = {"name": "summarization", "chat": True, "system": "good", "template": "say {source}"}
    rows = [{"source": "film " * 40 + "river", "target": "bad"}]
    data = opened(tmp_path, {**task, "chat_template": str(tmp_path / "chat.jinja")}, rows, "data.max_length=48")
    _, predicted, prompt = first_row(data)
    assert len(prompt) <= 48 and "river" not in prompt and predicted == ["bad", "[SEP]"]
    assert prompt[-len(data.tokenizer.tokenize("assistant :")) :] == data.tokenizer.tokenize("assistant :")
    assert data.tokenizer.chat_template == CHAT  # and is in the exported model


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"messages": MESSAGES["messages"][:3]}, "line 1: the chat ends with the user; there is no answer"),
        (
            {"messages": [{"role": "bot", "content": "a"}]},
            "line 1, turn 1: the role 'bot' is unknown; the roles",
        ),
        ({"conversations": [{"from": "human", "value": " "}]}, "line 1, turn 1: the human's turn is empty"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "the assistant speaks before any user"),
        ({"messages": MESSAGES["messages"][:2] + MESSAGES["messages"][1:2]}, "turn 3: the assistant speaks twice"),
        (
            {"messages": [*MESSAGES["messages"], {"role": "system", "content": "a"}]},
            "turn 5: the system speaks",
        ),
        ({"messages": "hello"}, "line 1: the chat holds str, not a list of turns"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "turn 1: a part of the content is no text"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "item 1 of the history is no pair"),
        ({"text": "a"}, "line 1: there is no chat; write messages, conversations, or instruction and output"),
    ],
)
def test_bad_chats(row: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        chat(tmp_path, row)


def test_chats_that_a_model_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer of .*gpt2 has no chat template; give one as a Jinja file"):
        opened(tmp_path, {"name": "dialogue"}, [MESSAGES])
    bart = make_model(tmp_path / "bart", "bart")
    with pytest.raises(UserError, match=r"task.chat=true is for decoders; .*bart is an encoder-decoder"):
        opened(tmp_path, {"name": "summarization", "chat": True}, [{"source": "a", "target": "b"}], model=bart)
    with pytest.raises(UserError, match=r"task.chat_template and task.system act in a chat alone"):
        opened(tmp_path, {"name": "summarization", "system": "good"}, [{"source": "a", "target": "b"}])
    (tmp_path / "odd.jinja").write_text(CHAT.replace("m.content", "(m.content if loop.last else 'gone')"))
    with pytest.raises(UserError, match=r"turn 2: the chat template renders this turn another way once others follow"):
        opened(tmp_path, {"name": "dialogue", "chat_template": str(tmp_path / "odd.jinja")}, [MESSAGES])
    with pytest.raises(UserError, match=r"task.chat_template=.*none.jinja cannot be read"):
        opened(tmp_path, {"name": "dialogue", "chat_template": str(tmp_path / "none.jinja")}, [MESSAGES])


def test_an_encoder_decoder_reads_a_chat_as_lines(tmp_path: Path) -> None:
    data = opened(tmp_path, {"name": "dialogue"}, [MESSAGES], model=make_model(tmp_path / "bart", "bart"))
    assert data.splits["train"].rows["source"][:] == ["user: where\nassistant: Oslo\nuser: who"]
    store = data.stores["train"]
    label = store.columns["target.label"].rows(np.array([0]))[0]
    assert text(data.tokenizer, label) == ["anna", "[SEP]"]


@pytest.mark.slow
def test_many_targets_of_a_row_weigh_and_score_as_padded_ones(tmp_path: Path) -> None:
    task = {"name": "dialogue", "chat_template": str(tmp_path / "chat.jinja")}
    keys = ("auto", "false")
    packed, padded = (built(tmp_path, task, [SHAREGPT], "data.max_length=64", f"trainer.packing={way}") for way in keys)
    losses, texts = [], []
    for module in (packed.eval(), padded.eval()):
        micro = pack(module.data.stores["train"], np.arange(1), module.backbone.packed)
        with torch.no_grad():
            losses.append(float(module.loss(micro)[0]))
            texts.append(module.decode(micro, None))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and texts[0] == texts[1]
    assert packed.data.stores["train"].targets.tolist() == [4.0] and packed.backbone.packed
