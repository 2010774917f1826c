"""Layer-wise decay of the learning rate: the lower a layer, the less it is changed.

Howard and Ruder 2018, Universal Language Model Fine-tuning for Text Classification (discriminative fine-tuning). With L
layers and the schedule's rate r, the head and whatever follows the layers learn at r, layer l (1 to L) at
r rate^(L+1-l) and the embeddings at r rate^(L+1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from research.adapters.hooks import embedding_parameters, layer_stacks
from research.common.errors import UserError
from research.config.key import inside, key
from research.methods.hooks import MethodHooks, Trained


@dataclass
class Keys:
    rate: float = key(0.9, "factor from each layer to the one below; 0.8 to 0.95 are usual", inside("(0, 1]"))


class Method(MethodHooks):
    @property
    def is_off(self) -> bool:
        return bool(self.keys.rate == 1)

    def on_model(self, module: Trained) -> None:
        """Raises UserError where nothing is trained that it would slow down."""
        model = module.backbone.model
        self.embeddings = set(embedding_parameters(model))
        self.stacks = {name: len(stack) for name, stack in layer_stacks(model)}
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        if all(self.learning_rate(module, name) == 1 for name in trained):
            adapter = module.config.adapter.name
            raise UserError(f"methods.layer_decay: adapter={adapter} trains no layer or embedding; remove the method.")

    def learning_rate(self, module: Trained, name: str) -> float:
        for stack, layers in self.stacks.items():
            place = re.match(rf"{re.escape(stack)}\.(\d+)\.", name)
            if place:
                return float(self.keys.rate ** (layers - int(place[1])))
        depth = max(self.stacks.values(), default=0) + 1
        return float(self.keys.rate**depth) if name in self.embeddings else 1.0
