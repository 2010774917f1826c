"""Dialogue: the assistant's turns of a chat, each of which a decoder learns; the last is generated and scored.

A row is a chat in one of three forms (`research/data/chat.py`): `messages`, `conversations` (ShareGPT), or
`instruction`, `input`, `output` and `history` (Alpaca). Of a chat that is too long the oldest turns are left out; the
system's turn and the last answer stay. An encoder-decoder reads the chat as lines `role: text` and writes the last
turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from research.common.errors import UserError
from research.config.generation import GenerationKeys
from research.config.key import key
from research.config.schema import Config
from research.data.chat import ASSISTANT, FIELDS, SYSTEM, USER, Chat, read_chat, transcript
from research.data.chat_template import Segments, without_oldest
from research.data.shorten import TAIL, shortened
from research.data.source import Split
from research.models.load import DECODER
from research.tasks.text_data import TextData, with_column
from research.tasks.text_keys import METRICS, TextKeys
from research.tasks.text_output import TextModule
from research.training.datamodule import Columns

CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@dataclass
class Keys(TextKeys, GenerationKeys):
    train_on: Literal["all", "last"] = key("all", "of the assistant's turns; evaluation is of the last")
    metrics: list[str] = key(["rouge", "bleu"], "what scores the outputs; the first decides", *METRICS)


class Data(TextData):
    fields = {name: name for name in FIELDS}
    optional = FIELDS
    free = FIELDS
    gold = ("target",)
    texts = ("source",)
    long = (TAIL,)

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        keys = config.task
        if keys.chat or keys.references:
            name = "chat" if keys.chat else "references"
            raise UserError(f"task.{name} has no effect in task '{keys.name}', which reads chats; remove the key.")
        if keys.train_on == "last" and self.family != DECODER:
            raise UserError("task.train_on=last acts in decoders; an encoder-decoder learns the last answer alone.")

    @property
    def uses_chat(self) -> bool:
        return self.family == DECODER

    def prepared(self, split: Split) -> Split:
        """With the columns `turns`, `source` (all before the last answer, as text) and, where all have it, `target`."""
        names = [name for name in FIELDS if name in split.rows.column_names]
        columns = {name: split.rows[name] for name in names}
        chats = [
            self.with_system(read_chat({name: columns[name][i] for name in names}, split.where(i)))
            for i in range(len(split.rows))
        ]
        open_ends = [chat[-1]["role"] != ASSISTANT for chat in chats]
        if split.name != "input" and any(open_ends):
            where = split.where(open_ends.index(True))
            raise UserError(f"{where}: the chat ends with the user; there is no answer to learn or score.")
        clash = {name: f"data_{name}" for name in ("turns", "source", "target") if name in split.rows.column_names}
        split = replace(split, rows=split.rows.rename_columns(clash)) if clash else split
        split = with_column(split, "turns", pa.array(chats, CHAT))
        before = [chat[:-1] if chat[-1]["role"] == ASSISTANT else chat for chat in chats]
        split = with_column(split, "source", pa.array(map(transcript, before), pa.string()))
        if not any(open_ends):
            split = with_column(split, "target", pa.array([chat[-1]["content"] for chat in chats], pa.string()))
        return split

    def with_system(self, chat: Chat) -> Chat:
        system = self.config.task.system
        first = [{"role": SYSTEM, "content": system}] if system and chat[0]["role"] != SYSTEM else []
        return [*first, *chat]

    def golds(self, rows: Mapping[str, Sequence[Any]], count: int) -> list[list[str]]:
        """The last answer of each chat."""
        return [[turns[-1]["content"]] if turns[-1]["role"] == ASSISTANT else [] for turns in rows["turns"]]

    def chats(self, rows: Columns, golds: list[list[str]]) -> tuple[list[Segments], list[bool]]:
        found, cut = [], []
        assert self.chat is not None
        for i, turns in enumerate(rows["turns"]):
            chat, was_cut = self.recent(turns, f"row {i}")
            found.append(self.chat.segments(chat, f"row {i}", self.config.task.train_on == "last"))
            cut.append(was_cut)
        return found, cut

    def recent(self, chat: Chat, where: str) -> tuple[Chat, bool]:
        """The chat without its oldest turns, so that at most `data.max_length` tokens stand before the last answer.

        Raises UserError where the system's turn and the template leave no room for the last question.
        """
        assert self.chat is not None
        limit, was_cut = self.config.data.max_length, False
        while (excess := self.chat.prompt(chat, where) - limit) > 0:
            was_cut, shorter = True, without_oldest(chat)
            if shorter is not None:
                chat = shorter
                continue
            place = 1 if chat[0]["role"] == SYSTEM else 0  # of the question that is left
            text = shortened(self.tokenizer, chat[place]["content"], excess, TAIL)
            if not text and chat[place + 1 : place + 2] and chat[place + 1]["role"] == USER:
                chat = [*chat[:place], *chat[place + 1 :]]
                continue
            if not text:
                raise UserError(f"{where}: data.max_length={limit} leaves no room for the last question.")
            chat = [*chat[:place], {**chat[place], "content": text}, *chat[place + 1 :]]
        return chat, was_cut


class Module(TextModule):
    monitor = "rouge_l"
