"""A chat as tokens by the tokenizer's chat template: which of them the assistant says, its end of turn among them.

The template is rendered up to each of the assistant's turns and behind it; what lies between is the target. No
`{% generation %}` marks are needed, which most templates lack. Prompt and targets are encoded apart, in training as in
generation, so that a prompt has the same tokens in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.data.chat import ASSISTANT, SYSTEM, USER, Chat, Turn

Segments = list[tuple[list[int], bool]]  # token ids, and whether they are targets
PROBE: Chat = [{"role": USER, "content": "question"}, {"role": ASSISTANT, "content": "answer"}]


class ChatTemplate:
    """The chat template of a tokenizer, or of a Jinja file that takes its place in it.

    `end` is the token that ends an assistant's turn: the first special token that the template writes behind the text,
    else the tokenizer's own end token, which is then added.
    """

    def __init__(self, tokenizer: Any, file: str | None, own_end: int, model: str) -> None:
        if file is not None:
            try:
                tokenizer.chat_template = Path(file).read_text(encoding="utf-8")
            except OSError as error:
                raise UserError(f"task.chat_template={file} cannot be read: {error.strerror}.") from None
        if not tokenizer.chat_template:
            raise UserError(
                f"The tokenizer of {model} has no chat template; give one as a Jinja file: task.chat_template=FILE."
            )
        self.tokenizer = tokenizer
        text = self.render(PROBE, "a chat of two turns")
        behind = self.ids(text[text.rfind("answer") + len("answer") :])
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        self.end = next((token for token in behind if token in special), own_end)

    @property
    def text(self) -> str:
        return str(self.tokenizer.chat_template)

    def render(self, chat: Sequence[Turn], where: str, ask: bool = False) -> str:
        """A chat as text; `ask`: up to where the assistant is to speak. Raises UserError where the template refuses."""
        try:
            rendered = self.tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=ask)
        except Exception as error:  # of Jinja, or what the template raises itself
            raise UserError(f"{where}: the tokenizer's chat template refuses the chat: {error}.") from None
        return str(rendered)

    def ids(self, text: str) -> list[int]:
        """Tokens of a part; the template has written the special ones already."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def segments(self, chat: Chat, where: str, only_last: bool) -> Segments:
        """The tokens of a chat up to the end of its last target; all of them where the user has the last word.

        Raises UserError where the template renders an earlier turn another way once more turns follow.
        """
        answers = [i for i, turn in enumerate(chat) if turn["role"] == ASSISTANT]
        answers = answers[-1:] if only_last else answers
        if chat[-1]["role"] != ASSISTANT:
            return [(self.ids(self.render(chat, where, ask=True)), False)]
        text, at, found = self.render(chat, where), 0, Segments()
        rest: list[int] = []  # what the template writes behind the end of a turn
        for i in answers:
            before = self.render(chat[:i], where, ask=True)
            after = self.render(chat[: i + 1], where)
            if not text.startswith(before) or not text.startswith(after):
                raise UserError(
                    f"{where}, turn {i + 1}: the chat template renders this turn another way once others follow, so "
                    "that it cannot be trained on beside them; set task.train_on=last."
                )
            found.append(([*rest, *self.ids(text[at : len(before)])], False))
            target = self.ids(text[len(before) : len(after)])
            stop = target.index(self.end) + 1 if self.end in target else len(target)
            target, rest = target[:stop], target[stop:]
            found.append((target if target[-1:] == [self.end] else [*target, self.end], True))
            at = len(after)
        return found

    def prompt(self, chat: Chat, where: str) -> int:
        """Tokens before the last of the assistant's turns, or of all where the user has the last word."""
        before = chat[:-1] if chat[-1]["role"] == ASSISTANT else chat
        return len(self.ids(self.render(before, where, ask=True)))


def without_oldest(chat: Chat) -> Chat | None:
    """The chat without its oldest exchange; the system's turn stays. None where only the last exchange is left."""
    first = 1 if chat[0]["role"] == SYSTEM else 0
    asked = [i for i, turn in enumerate(chat) if turn["role"] == USER and i > first and chat[i - 1]["role"] != USER]
    return [*chat[:first], *chat[asked[0] :]] if asked else None
