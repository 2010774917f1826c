"""Head alone: the pretrained model is frozen, and its outputs are features for the new head (and the pooler)."""

from __future__ import annotations

from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, head_parameters, train_only


class Adapter(AdapterHooks):
    def apply(self, model: PreTrainedModel) -> str:
        head = head_parameters(model)
        train_only(model, head.values())
        modules = dict.fromkeys(name.rpartition(".")[0] for name in head)
        return f"head: only {', '.join(modules)} trained"
