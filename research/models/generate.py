"""Generate text with a model that is fed in micro-batches: greedy, beam search or sampling, with a cache.

What is generated depends on the batch it is generated in, in bf16 often: a batch is a micro-batch of the evaluation,
or a part of one, which is cut from the data alone. Settings of the checkpoint do not act: the model's own generation
config is replaced by one that says everything. A sample belongs to (seed, example).

Shapes: N sequences, L longest prompt, G longest output, S outputs of a sequence, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PretrainedConfig, StoppingCriteriaList

from research.batching.pack import MicroBatch
from research.batching.store import SOURCE
from research.common import compat
from research.common.errors import UserError
from research.models.architecture import padding_id
from research.models.attention import PACKED
from research.models.backbone import Backbone
from research.models.generation_steps import KeyedSampling, StopStrings, Watched, stable_beginning
from research.models.greedy import greedy_search
from research.models.load import ENCODER_DECODER, without_advice
from research.models.positions import set_plans
from research.models.prompt_phase import packed_cache
from research.models.prompted import in_front

MOST_TOKENS = 32768  # of a batch with its outputs, each of which has a place in the cache


@dataclass(frozen=True)
class Output:
    """What was generated for one example."""

    text: str  # without special tokens, cut before a stop string, stripped
    tokens: list[int]  # without the prompt and the end token
    stopped_by: str  # "end" token, "text" of task.stop, or "limit"
    others: tuple[str, ...] = ()  # the further texts of task.num_return_sequences

    @property
    def ended(self) -> bool:
        """Did it end before task.max_new_tokens?"""
        return self.stopped_by != "limit"


Watcher = Callable[[Output], bool]  # is told what has been generated so far, and says whether that is enough


class Generator:
    """Generates an output for each example of a micro-batch, by the task's keys (`research.config.generation`).

    `ends`: tokens that end an output; `first`: a token it must begin with, such as a language's. Raises UserError for
    an encoder-decoder that names no start token.
    """

    def __init__(
        self, backbone: Backbone, tokenizer: Any, keys: Any, seed: int, ends: Sequence[int], first: int | None = None
    ) -> None:
        self.backbone, self.tokenizer, self.keys, self.seed = backbone, tokenizer, keys, seed
        if backbone.prompt_tokens and keys.repetition_penalty != 1:
            raise UserError("task.repetition_penalty does not go with an adapter's prompt, which has no words.")
        self.settings = generation_config(backbone.model.config, keys, ends, first)
        self.watchers: Sequence[Watcher | None] = ()  # of the next micro-batch's examples, or none
        self.alone = False  # served: each example is sampled as the first of its file

    @property
    def signature(self) -> str:
        """All that decides the texts, in one line: `beam:4|length_penalty:1.0|max_new_tokens:128`."""
        keys, parts = self.keys, ["greedy"]
        if keys.temperature is not None:
            parts = [f"sampled:{keys.temperature}", f"top_p:{keys.top_p}", f"top_k:{keys.top_k}", f"seed:{self.seed}"]
        elif keys.num_beams > 1:
            parts = [f"beam:{keys.num_beams}", f"length_penalty:{keys.length_penalty}"]
        if keys.no_repeat_ngram_size:
            parts.append(f"no_repeat_ngram_size:{keys.no_repeat_ngram_size}")
        if keys.repetition_penalty != 1:
            parts.append(f"repetition_penalty:{keys.repetition_penalty}")
        return "|".join([*parts, f"max_new_tokens:{keys.max_new_tokens}", *(f"stop:{text!r}" for text in keys.stop)])

    @property
    def copies(self) -> int:
        """Sequences that are computed for an example."""
        found: int = self.keys.num_beams if self.keys.temperature is None else self.keys.num_return_sequences
        return found

    @torch.inference_mode(False)  # in inference mode autocast would cast weights at each token
    @torch.no_grad()
    def __call__(self, micro: MicroBatch) -> list[Output]:
        """An output for each sequence of the source, or for each prompt: the tokens before the first target."""
        is_pair = self.backbone.family == ENCODER_DECODER
        rows = sources(micro) if is_pair else prompts(micro)
        if self.backbone.prompt_tokens:
            rows = list(map(in_front(self.backbone.prompt_tokens, self.backbone.words), rows))
        longest, count = max(map(len, rows)) + self.keys.max_new_tokens, len(rows)
        size = max(1, MOST_TOKENS // (longest * self.copies))
        watchers = self.watchers or [None] * count
        outputs = []
        with own_settings(self.backbone.model, self.settings), cast_once(self.backbone.model), without_advice():
            for i in range(0, count, size):
                part = slice(i, i + size)
                outputs += self._batch(rows[part], micro.examples[part].tolist(), watchers[part])
        return outputs

    def _batch(self, rows: list[Tensor], examples: list[int], watchers: Sequence[Watcher | None]) -> list[Output]:
        keys, is_pair = self.keys, self.backbone.family == ENCODER_DECODER
        model: Any = self.backbone.model
        ids, mask = padded(rows, padding_id(model.config), left=not is_pair)  # (N, L)
        steps: dict[str, Any] = {}
        cache = None if self.backbone.prompt_tokens else packed_cache(self.backbone, rows)
        if cache is not None:
            cache.batch_repeat_interleave(self.copies)
            steps["past_key_values"] = cache
        if keys.temperature is not None:
            ids, mask = (x.repeat_interleave(keys.num_return_sequences, dim=0) for x in (ids, mask))  # (N * S, L)
            places = [0] * len(examples) if self.alone else examples
            streams = [(self.seed, i, copy) for i in places for copy in range(keys.num_return_sequences)]
            steps["logits_processor"] = LogitsProcessorList(
                [KeyedSampling(streams, keys.temperature, keys.top_k, keys.top_p)]
            )
        skipped = 1 if is_pair else ids.shape[1]  # the start token, or the prompt
        watched = Watched(watchers, self._so_far, skipped, self.copies) if any(watchers) else None
        criteria = [StopStrings(self.tokenizer, keys.stop, skipped)] if keys.stop else []
        steps["stopping_criteria"] = StoppingCriteriaList([*criteria, *([watched] if watched else [])])
        if keys.num_beams == 1:
            steps["custom_generate"] = greedy_search
        with native_attention(self.backbone):
            out = model.generate(
                input_ids=ids, attention_mask=mask, generation_config=self.settings, **steps
            )  # (N * S, -1)
        found = [self._output(tokens) for tokens in out[:, skipped:].tolist()]
        if watched is not None and keys.num_beams == 1:
            found = [watched.ended.get(i, output) for i, output in enumerate(found)]
        several = [found[i : i + keys.num_return_sequences] for i in range(0, len(found), keys.num_return_sequences)]
        return [
            Output(first.text, first.tokens, first.stopped_by, tuple(other.text for other in others))
            for first, *others in several
        ]

    def _so_far(self, tokens: list[int]) -> Output:
        """What generated ids say for certain; of beams, which change until the end, nothing."""
        if self.keys.num_beams > 1:
            return Output("", tokens, "limit")
        output = self._output(tokens)
        return output if output.ended else replace(output, text=stable_beginning(output.text, self.keys.stop))

    def _output(self, tokens: list[int]) -> Output:
        """What generated ids say; what follows the first end token is padding."""
        kept, by_end = cut(tokens, self.settings.eos_token_id)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        places = [place for stop in self.keys.stop if (place := text.find(stop)) >= 0]
        if places:
            return Output(text[: min(places)].strip(), kept, "text")
        return Output(text.strip(), kept, "end" if by_end else "limit")


def generation_config(
    own: PretrainedConfig, keys: Any, ends: Sequence[int], first: int | None = None
) -> GenerationConfig:
    """All that decides what is generated, and nothing of the checkpoint's but its token ids.

    Sampling is greedy search over perturbed scores (`KeyedSampling`), so that `do_sample` is always false.
    """
    sampled = keys.temperature is not None
    settings: dict[str, Any] = {
        "max_new_tokens": keys.max_new_tokens, "min_new_tokens": 0, "num_beams": keys.num_beams, "do_sample": False,
        "num_return_sequences": 1 if sampled else keys.num_return_sequences, "use_cache": True,
        "length_penalty": keys.length_penalty, "early_stopping": False,
        "no_repeat_ngram_size": keys.no_repeat_ngram_size, "encoder_no_repeat_ngram_size": 0,
        "repetition_penalty": keys.repetition_penalty, "encoder_repetition_penalty": 1.0,
        "eos_token_id": list(dict.fromkeys(ends)), "pad_token_id": padding_id(own), "forced_bos_token_id": first,
    }  # fmt: skip
    if own.is_encoder_decoder:
        settings["decoder_start_token_id"] = start_token(own)
    return GenerationConfig(**settings)


def start_token(own: PretrainedConfig) -> int:
    """The token that a decoder's output begins with. Raises UserError where the model names none."""
    start: int | None = getattr(own, "decoder_start_token_id", None)
    if start is None:
        raise UserError(f"The '{own.model_type}' model has no decoder_start_token_id in its config.json; add it there.")
    return start


def end_tokens(model: Any, end: int) -> list[int]:
    """The token that ends a target, and those that end a text for the checkpoint, such as the end of a chat's turn."""
    theirs = getattr(model.generation_config, "eos_token_id", None)
    return [end, *([theirs] if isinstance(theirs, int) else theirs or [])]


def positions_of(own: PretrainedConfig) -> int | None:
    """How many tokens the stack that writes has positions for; None where they have no limit."""
    writer = getattr(own, "decoder", own)
    return getattr(writer, "max_position_embeddings", None)


def sources(micro: MicroBatch) -> list[Tensor]:
    """The tokens of each source."""
    stream = micro.streams[SOURCE]
    return list(stream.tokens["input_ids"].split(stream.lengths.tolist()))


def prompts(micro: MicroBatch) -> list[Tensor]:
    """The tokens of each sequence up to the one that predicts its last run of targets; all where it ends without."""
    stream = micro.first
    found = []
    sizes = stream.lengths.tolist()
    for ids, label in zip(*(stream.tokens[name].split(sizes) for name in ("input_ids", "label")), strict=True):
        others = (label < 0).nonzero()
        last = int(others[-1]) if len(others) else -1  # of those that predict no target
        found.append(ids if last == len(ids) - 1 else ids[: last + 2])
    return found


def padded(rows: list[Tensor], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """(N, L) ids and mask. `left`: the rows end together, as a decoder continues them."""
    L = max(map(len, rows))
    ids = rows[0].new_full((len(rows), L), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(L - len(row), L) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


def cut(tokens: list[int], ends: Sequence[int]) -> tuple[list[int], bool]:
    """The tokens before the first end token, and whether there is one."""
    place = next((i for i, token in enumerate(tokens) if token in ends), None)
    return (tokens, False) if place is None else (tokens[:place], True)


@contextmanager
def own_settings(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Within it the model has these settings: `generate` fills what they leave open from the model's own."""
    before, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def cast_once(model: Any) -> Iterator[None]:
    """Within it autocast casts a weight once, not at each token: it keeps those alone that require a gradient."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    keeps = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(True)
    for p in frozen:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
        torch.set_autocast_cache_enabled(keeps)
        torch.clear_autocast_cache()


@contextmanager
def native_attention(backbone: Backbone) -> Iterator[None]:
    """Within it the model computes padded batches, with its own attention and positions."""
    set_plans(backbone.taught, None)
    if not backbone.packed:
        yield
        return
    backbone.model.set_attn_implementation(compat.native_attention(backbone.model))
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(PACKED)
