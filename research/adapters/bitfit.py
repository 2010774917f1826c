"""BitFit: the biases and the head are trained, the rest is frozen.

Ben Zaken, Goldberg and Ravfogel 2022, BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, head_parameters, train_only
from research.common.errors import UserError


class Adapter(AdapterHooks):
    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for an architecture without biases, of which only the head would be trained."""
        head = head_parameters(model)
        biases = {name: p for name, p in model.named_parameters() if name.endswith("bias") and name not in head}
        if not biases:
            raise UserError(f"adapter: bitfit trains biases, and the layers of {type(model).__name__} have none.")
        train_only(model, [*biases.values(), *head.values()])
        return f"bitfit: {len(biases)} biases and the head trained"
