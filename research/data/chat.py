"""Chats in the forms people have them, as turns `{"role", "content"}` of system, user and assistant.

- OpenAI: `messages`, each `{"role", "content"}`, content a text or a list of text parts.
- ShareGPT: `conversations`, each `{"from": "human" | "gpt" | "system", "value"}`.
- Alpaca: `instruction`, `input`, `output`, and `history` as pairs of a question and its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from research.common.errors import UserError

Turn = dict[str, str]
Chat = list[Turn]
SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")
SHAREGPT = {"human": USER, "user": USER, "gpt": ASSISTANT, "assistant": ASSISTANT, "system": SYSTEM}
FIELDS = ("messages", "conversations", "instruction", "input", "output", "history")


def read_chat(row: Mapping[str, Any], where: str) -> Chat:
    """The turns of a row in any of the forms. Raises UserError for what is no chat, with the turn's number."""
    if row.get("messages"):
        turns = [_turn(turn, "role", "content", dict(zip(ROLES, ROLES, strict=True)), f"{where}, turn {i}")
                 for i, turn in enumerate(_listed(row["messages"], where), 1)]  # fmt: skip
    elif row.get("conversations"):
        turns = [_turn(turn, "from", "value", SHAREGPT, f"{where}, turn {i}")
                 for i, turn in enumerate(_listed(row["conversations"], where), 1)]  # fmt: skip
    elif row.get("instruction"):
        turns = _alpaca(row, where)
    else:
        raise UserError(f"{where}: there is no chat; write messages, conversations, or instruction and output.")
    _refuse_odd_order(turns, where)
    return turns


def transcript(chat: Sequence[Turn]) -> str:
    """A chat as plain text: for encoder-decoders, and for people."""
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in chat)


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: the chat holds {type(value).__name__}, not a list of turns.")
    return value


def _turn(turn: Any, role_key: str, text_key: str, roles: Mapping[str, str], where: str) -> Turn:
    if not isinstance(turn, dict) or turn.get(role_key) is None:
        raise UserError(f'{where}: a turn is {{"{role_key}": ..., "{text_key}": ...}}.')
    role, content = turn[role_key], turn.get(text_key)
    if role not in roles:
        raise UserError(f"{where}: the role '{role}' is unknown; the roles are {', '.join(roles)}.")
    if turn.get("tool_calls"):
        raise UserError(f"{where}: calls of tools are not supported; write them as text, or take the chat out.")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str) or not content.strip():
        raise UserError(f"{where}: the {role}'s turn is empty.")
    return {"role": roles[role], "content": content}


def _part(part: Any, where: str) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    raise UserError(f"{where}: a part of the content is no text; only text can be trained on here.")


def _alpaca(row: Mapping[str, Any], where: str) -> Chat:
    turns: Chat = []
    for i, pair in enumerate(row.get("history") or [], 1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(x, str) and x.strip() for x in pair):
            raise UserError(f"{where}: item {i} of the history is no pair of a question and its answer.")
        turns += [{"role": USER, "content": pair[0]}, {"role": ASSISTANT, "content": pair[1]}]
    asked = [row["instruction"], *([row["input"]] if (row.get("input") or "").strip() else [])]
    turns.append({"role": USER, "content": "\n\n".join(asked)})
    if (row.get("output") or "").strip():
        turns.append({"role": ASSISTANT, "content": row["output"]})
    return turns


def _refuse_odd_order(turns: Chat, where: str) -> None:
    roles = [turn["role"] for turn in turns]
    if SYSTEM in roles[1:]:
        raise UserError(f"{where}, turn {roles.index(SYSTEM, 1) + 1}: the system speaks first or not at all.")
    for i, (first, second) in enumerate(pairwise(roles), 2):
        if first == second == ASSISTANT:
            raise UserError(f"{where}, turn {i}: the assistant speaks twice in a row; join the two turns.")
    if USER not in roles[: roles.index(ASSISTANT)] if ASSISTANT in roles else USER not in roles:
        raise UserError(f"{where}: the assistant speaks before any user; there is nothing to answer.")
