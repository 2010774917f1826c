"""Greedy search that leaves ended sequences out: `generate` itself computes all of a batch to the end of the longest.

Shapes: N sequences, R that have not ended, L tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils.generic import ModelOutput

from research.models.growing_cache import make_room


def greedy_search(
    model: Any,
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Callable[[Tensor, Any], Tensor],
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Tensor:
    """What `model.generate` takes as `custom_generate`: completes begun sequences, input_ids (N, L), to (N, -1).

    `inputs` are the model's other inputs. What follows an end is padding. Processors and criteria see all N sequences,
    of which ended ones no longer change.
    """
    ids = input_ids
    running = torch.arange(len(ids), device=ids.device)  # (R,) places of sequences
    outputs = model._prefill(ids, generation_config, inputs)
    make_room(outputs.past_key_values, generation_config.max_new_tokens)
    scores = torch.zeros_like(outputs.logits[:, -1], dtype=torch.float32)  # (N, V)
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs, model.config.is_encoder_decoder)
        scores[running] = outputs.logits[:, -1].float()
        best = logits_processor(ids, scores.clone()).argmax(-1)
        tokens = torch.full_like(best, generation_config.pad_token_id).index_copy(0, running, best[running])
        ids = torch.cat([ids, tokens[:, None]], dim=1)
        ongoing = ~stopping_criteria(ids, None)[running]
        if not ongoing.any():
            return ids
        if not ongoing.all():
            inputs, running = kept(inputs, ongoing), running[ongoing]
        outputs = model(
            **model.prepare_inputs_for_generation(ids[running], next_sequence_length=1, **inputs),
            return_dict=True,
        )


def kept(inputs: dict[str, Any], ongoing: Tensor) -> dict[str, Any]:
    """Inputs of the sequences that go on; the cache is cut in place. ongoing: (R,) bool."""
    places = ongoing.nonzero()[:, 0]

    def cut(value: Any) -> Any:
        if isinstance(value, ModelOutput):  # of the encoder
            return type(value)(**{name: cut(each) for name, each in value.items()})
        return value[places] if isinstance(value, Tensor) and value.dim() and len(value) == len(ongoing) else value

    inputs["past_key_values"].batch_select_indices(places)
    return {name: cut(value) for name, value in inputs.items()}
