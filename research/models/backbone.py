"""Loading an encoder with a head, and feeding it micro-batches packed or padded alike.

Shapes: T tokens, N sequences, L longest, C classes, H width.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from research.batching.layout import make_layout
from research.batching.pack import MicroBatch
from research.common import compat
from research.common.errors import UserError
from research.models.attention import PACKED
from research.models.load import without_advice

if TYPE_CHECKING:
    pass

log = logging.getLogger("research")
PROBE_TOLERANCE = 1e-4  # of the largest output; a leak between sequences shows at 1e-2 and above


class Backbone(nn.Module):
    """A `transformers` model with a head, whose logits come back flat whatever the batching.

    `packed` says how it is fed; `first_position` is where its position ids start (2 for RoBERTa's family).
    """

    def __init__(self, model: PreTrainedModel, packing: bool | str = "auto") -> None:
        super().__init__()
        self.model = model
        self.first_position = 0
        self.packed = False
        self.packing_note = "padded: trainer.packing is false"
        if packing is not False:
            with without_advice():  # on attention that some architectures cannot be told
                self.packed, self.packing_note = self._try_packing()
            if packing is True and not self.packed:
                raise UserError(
                    f"trainer.packing is true, but {type(model).__name__} cannot be packed: {self.packing_note}; "
                    "leave it at auto to train it with padded micro-batches."
                )
        if not self.packed:
            model.set_attn_implementation(compat.native_attention(model))
        base = model.base_model
        if self.packed and base is not model:
            base.register_forward_hook(self._restore_sequences, with_kwargs=True)

    def token_logits(self, micro: MicroBatch) -> dict[str, Tensor]:
        """Outputs of a token-level head, each (T, ...) in float32."""
        output = self._forward(micro, restore=False)
        flat = (lambda x: x[0, : micro.size]) if self.packed else micro.unpad
        return {name: flat(x).float() for name, x in output.items() if "logits" in name}

    def sequence_logits(self, micro: MicroBatch) -> Tensor:
        """Outputs of a sequence-level head: (N, C) in float32."""
        logits: Tensor = self._forward(micro, restore=True)["logits"].float()
        return logits

    def _forward(self, micro: MicroBatch, restore: bool) -> Any:
        types = micro.tokens.get("token_type_ids")
        if self.packed and micro.layout is not None:
            row = micro.layout.fill  # a repeated first token has a row in every embedding
            inputs: dict[str, Any] = {
                "input_ids": row(micro.tokens["input_ids"]),
                "position_ids": row(micro.positions) + self.first_position,
                "layout": micro.layout,
            }
            if types is not None:
                inputs["token_type_ids"] = row(types)
            if restore:
                self._restoring = micro
                inputs["attention_mask"] = (micro.padded_index < micro.size).long()
        else:
            inputs = {
                "input_ids": micro.pad(micro.tokens["input_ids"], self.model.config.pad_token_id or 0),
                "attention_mask": (micro.padded_index < micro.size).long(),
            }
            if types is not None:
                inputs["token_type_ids"] = micro.pad(types, 0)
        try:
            return self.model(**inputs)
        finally:
            self._restoring = None

    _restoring: MicroBatch | None = None

    def _restore_sequences(self, base: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Before a sequence-level head: (1, T, H) becomes (N, L, H), and the pooler sees first tokens again."""
        micro = self._restoring
        if micro is None:
            return output
        output.last_hidden_state = micro.pad(output.last_hidden_state[0, : micro.size], 0)
        pooler = getattr(base, "pooler", None)
        if pooler is not None:
            activation = getattr(base, "pooler_activation", None)  # ALBERT's pooler is a bare linear layer
            x = output.last_hidden_state
            output.pooler_output = activation(pooler(x[:, 0])) if activation else pooler(x)
        return output

    @torch.no_grad()
    def _try_packing(self) -> tuple[bool, str]:
        """Does this encoder give the same outputs packed as padded? A small batch decides, never the class name."""
        base, training = self.model.base_model, self.model.training
        lengths = _probe_lengths(self.model.config)
        T = int(lengths.sum())
        ids = torch.from_numpy(np.random.default_rng(0).integers(5, min(1000, self.model.config.vocab_size), T))
        positions = torch.cat([torch.arange(n) for n in lengths.tolist()])
        layout = make_layout(lengths)
        micro = MicroBatch({"input_ids": ids}, {}, lengths, lengths, layout, positions)
        pad = self.model.config.pad_token_id or 0
        ids[ids == pad] -= 1
        try:
            base.eval()
            self.model.set_attn_implementation("eager")
            mask = (micro.padded_index < T).long()
            expected = micro.unpad(base(input_ids=micro.pad(ids, pad), attention_mask=mask)[0])
            self.model.set_attn_implementation(PACKED)
            for first in (0, pad + 1):
                try:
                    got = base(input_ids=layout.fill(ids), position_ids=layout.fill(positions) + first, layout=layout)[
                        0
                    ][0, :T]
                except Exception as error:
                    return False, f"it does not take packed input ({str(error).splitlines()[0]})"
                difference = float((got - expected).abs().max() / expected.abs().max())
                if difference < PROBE_TOLERANCE:
                    self.first_position = first
                    return True, f"packed: equal to padded {f'within {difference:.0e}' if difference else 'to the bit'}"
            return False, f"its sequences see each other when packed (outputs differ by {difference:.0e})"
        except Exception as error:
            return False, f"the probe failed ({str(error).splitlines()[0]})"
        finally:
            self.model.train(training)


def _probe_lengths(config: PretrainedConfig) -> np.ndarray:
    """A few short sequences, and one longer than any sliding window of the encoder."""
    window = getattr(config, "sliding_window", None) or getattr(config, "local_attention", None) or 0
    longest = min(2 * window + 8 if window else 24, (getattr(config, "max_position_embeddings", None) or 512) - 4)
    return np.array([max(longest, 8), 7, 5, 2], dtype=np.int64)
