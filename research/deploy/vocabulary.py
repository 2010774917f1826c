"""A smaller vocabulary for an exported model: the tokens of given texts, which are split and answered as before.

WordPiece takes the longest piece there is and Unigram the likeliest pieces: to take away pieces that a text does not
use changes neither choice. BPE keeps the merges on the way to each token, in their order, and the tokens on that way.
Other texts are split into what is left, or are unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from research.common.errors import UserError
from research.data.source import missing_file
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.inference.inputs import as_file, read_as_asked
from research.tracking.run import Run

COUNTED_FROM = 16  # RoBERTa counts positions from the number of its padding token, so a small one stays what it is


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and the old number of each of its tokens."""

    tokenizer: PreTrainedTokenizerFast
    kept: list[int]

    def renumbered(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A model's inputs with the new numbers of their tokens; one that is not kept is unknown."""
        new = {old: i for i, old in enumerate(self.kept)}
        unknown = self.tokenizer.unk_token_id or 0
        numbers = [[new.get(old, unknown) for old in row] for row in inputs["input_ids"].tolist()]
        return {**inputs, "input_ids": torch.tensor(numbers)}


def used_tokens(run: Run, files: Sequence[Path]) -> set[int]:
    """The numbers of all tokens that the task's encoding makes of files: its rows, or `.txt` with a text a line.

    Raises UserError for a file that is missing or cannot be read.
    """
    used: set[int] = set()
    for file in files:
        if not file.is_file():
            raise UserError(missing_file(file))
        config = finished_config(run)
        read_as_asked(config, str(file), [])
        data = task_data(run, config)
        plain = file.suffix == ".txt"
        texts = [line for line in file.read_text("utf-8").splitlines() if line.strip()] if plain else []
        with as_file(data, None if plain else str(file), texts) as path:
            data.open_input(path, finished_result(run)["learned"])
        for stream in data.stores["input"].streams.values():
            used.update(*(np.unique(part).tolist() for part in stream.tokens["input_ids"].contiguous()))
    return used


def smaller_vocabulary(tokenizer: PreTrainedTokenizerFast, used: Collection[int], padding: int | None) -> Vocabulary:
    """A tokenizer of the tokens that are `used`, the special ones, and those that lead to them.

    Raises UserError for a kind of tokenizer that is not known.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    first = range(padding + 1) if padding is not None and padding < COUNTED_FROM else ()
    smaller, kept = smaller_content(content, {*used, *first})
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(smaller, ensure_ascii=False), "utf-8")
        loaded: Any = AutoTokenizer.from_pretrained(folder)
        return Vocabulary(loaded, kept)


def smaller_content(content: dict[str, Any], used: Collection[int]) -> tuple[dict[str, Any], list[int]]:
    """The content of a smaller tokenizer.json, and the old number of each new token."""
    model, kind = deepcopy(content["model"]), content["model"]["type"]
    if kind not in KEPT_PIECES or model.get("continuing_subword_prefix") not in (None, "", "##"):
        raise UserError(f"--vocabulary: a tokenizer of the kind {kind} is not made smaller; export without it.")
    pieces = [piece for piece, _ in model["vocab"]] if kind == "Unigram" else model["vocab"]
    number = {piece: i for i, piece in enumerate(pieces)} if kind == "Unigram" else dict(model["vocab"])
    added = {each["content"]: each["id"] for each in content["added_tokens"] if each["special"] or each["id"] in used}
    wanted = {piece for piece, old in number.items() if old in used} | (added.keys() & number.keys())
    kept_pieces = KEPT_PIECES[kind](model, wanted)
    kept = sorted(number[piece] for piece in kept_pieces)
    kept += sorted(old for piece, old in added.items() if piece not in number)
    new = {old: i for i, old in enumerate(kept)}
    if kind == "Unigram":
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] in kept_pieces]
        model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[old] for piece, old in number.items() if piece in kept_pieces}
    smaller = {**content, "model": model, "post_processor": renumbered(content["post_processor"], new)}
    smaller["added_tokens"] = [{**e, "id": new[e["id"]]} for e in content["added_tokens"] if e["content"] in added]
    if content["padding"]:
        smaller["padding"] = {**content["padding"], "pad_id": new[content["padding"]["pad_id"]]}
    return smaller, kept


def renumbered(processor: Any, new: dict[int, int]) -> Any:
    """A post-processor of tokenizer.json with the new numbers of its special tokens."""
    kind = processor["type"] if processor else None
    if kind == "Sequence":
        return {**processor, "processors": [renumbered(each, new) for each in processor["processors"]]}
    if kind == "TemplateProcessing":
        tokens = processor["special_tokens"].items()
        return {**processor, "special_tokens": {k: {**v, "ids": [new[i] for i in v["ids"]]} for k, v in tokens}}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return {**processor, **{name: [processor[name][0], new[processor[name][1]]] for name in ("cls", "sep")}}
    if kind not in (None, "ByteLevel"):
        raise UserError(f"--vocabulary: the post-processor {kind} of the tokenizer is not known; export without it.")
    return processor


def kept_whole(model: dict[str, Any], wanted: set[str]) -> set[str]:
    """Of WordPiece and of whole words: those that are wanted, and the unknown one."""
    return wanted | {model["unk_token"]}


def kept_of_unigram(model: dict[str, Any], wanted: set[str]) -> set[str]:
    """Those that are wanted, the unknown one, bytes, and the least likely one, by which the unknown one is weighed."""
    pieces, scores = zip(*model["vocab"], strict=True)
    kept = wanted | {pieces[int(np.argmin(scores))]}
    kept |= {pieces[model["unk_id"]]} if model["unk_id"] is not None else set()
    return kept | (bytes_of(pieces) if model.get("byte_fallback") else set())


def kept_of_bpe(model: dict[str, Any], wanted: set[str]) -> set[str]:
    """Those that are wanted and those on the way to them, with what spells any text; leaves the merges between them."""
    if model.get("end_of_word_suffix") or model.get("continuing_subword_prefix"):
        raise UserError("--vocabulary: BPE with marks inside its pieces is not made smaller; export without it.")
    pieces: dict[str, int] = model["vocab"]
    pairs = [tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    kept = wanted | (bytes_of(pieces) if model.get("byte_fallback") else {piece for piece in pieces if len(piece) == 1})
    kept |= {model["unk_token"]} if model.get("unk_token") else set()
    taken: set[tuple[str, ...]] = set()
    for piece in wanted:
        symbols = list(piece)
        while True:
            kept |= pieces.keys() & {*symbols}
            rank, place = min(((ranks.get(pair, len(pairs)), i) for i, pair in enumerate(pairwise(symbols))),
                              default=(len(pairs), 0))  # fmt: skip
            if rank == len(pairs):
                break
            taken.add(pairs[rank])
            symbols[place : place + 2] = ["".join(pairs[rank])]
    model["merges"] = [merge for merge, pair in zip(model["merges"], pairs, strict=True) if pair in taken]
    return kept


def bytes_of(pieces: Collection[str]) -> set[str]:
    """The pieces that stand for single bytes: `<0x0A>`."""
    return {piece for piece in pieces if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")}


KEPT_PIECES: dict[str, Callable[[dict[str, Any], set[str]], set[str]]] = {
    "WordPiece": kept_whole, "WordLevel": kept_whole, "Unigram": kept_of_unigram, "BPE": kept_of_bpe,
}  # fmt: skip


def keep_rows(model: Any, vocabulary: Vocabulary) -> None:
    """Leave the kept tokens in a model's embedding and its config. Raises UserError where its outputs are tokens."""
    if model.get_output_embeddings() is not None:
        raise UserError("--vocabulary: the outputs of this model are tokens, which all stay; export without it.")
    table = model.get_input_embeddings()
    rows = table.weight.detach()[torch.tensor(vocabulary.kept)].clone()
    padding = vocabulary.tokenizer.pad_token_id
    model.set_input_embeddings(nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=padding))
    new = {old: i for i, old in enumerate(vocabulary.kept)}
    model.config.vocab_size = len(vocabulary.kept)
    for name, value in model.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(model.config, name, new.get(value))
