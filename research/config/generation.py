"""Keys of every task whose answer is generated text: a task's `Keys(GenerationKeys)` has them beside its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from research.common.errors import UserError
from research.config.key import Rule, above, at_least, inside, key

NO_EMPTY_TEXT = Rule(lambda v: all(v), "must not have an empty text in it")


@dataclass
class GenerationKeys:
    """How text is generated in evaluation and prediction. Settings of the checkpoint do not act."""

    max_new_tokens: int = key(128, "tokens of the longest output", at_least(1))
    num_beams: int = key(1, "beams of the search; 1 is greedy", at_least(1))
    length_penalty: float = key(
        1.0, "of a beam search: above 0 prefers long outputs", Rule(lambda v: abs(v) < 100, "must be below 100")
    )
    no_repeat_ngram_size: int = key(0, "n-grams of this size may not occur twice in an output; 0: any may", at_least(0))
    repetition_penalty: float = key(1.0, "above 1 makes tokens that occurred already less likely", above(0))
    temperature: float | None = key(None, "outputs are sampled at this temperature; null: the most likely", above(0))
    top_p: float = key(1.0, "of sampling: only the likeliest tokens of this mass together", inside("(0, 1]"))
    top_k: int | None = key(None, "of sampling: only the k likeliest tokens; null: all", at_least(1))
    num_return_sequences: int = key(1, "outputs of each example; the first is scored", at_least(1))
    stop: list[str] = key([], "texts before which an output is cut", NO_EMPTY_TEXT)


def refuse_keys_without_effect(keys: Any) -> None:
    """Raise UserError for generation keys that do not go together."""
    sampled = keys.temperature is not None
    if sampled and keys.num_beams > 1:
        raise UserError(f"task.temperature samples, and task.num_beams={keys.num_beams} searches: choose one of them.")
    if keys.length_penalty != 1.0 and keys.num_beams == 1:
        raise UserError("task.length_penalty acts in a beam search alone; set task.num_beams above 1, or remove it.")
    if not sampled and (keys.top_p != 1.0 or keys.top_k is not None):
        raise UserError("task.top_p and task.top_k act in sampling alone; set task.temperature, or remove them.")
    if not sampled and keys.num_return_sequences > keys.num_beams:
        raise UserError(
            f"task.num_return_sequences={keys.num_return_sequences} needs as many beams (task.num_beams), or sampling "
            "(task.temperature)."
        )
