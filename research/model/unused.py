"""Parameters that no loss reaches, such as a pooler whose output nothing reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from research.data.pack import pack

if TYPE_CHECKING:
    from research.tasks.base import TaskModule


def freeze_unused(module: TaskModule) -> list[str]:
    """Freeze the parameters that get no gradient, and return their names.

    DDP waits for the gradient of every trainable parameter. AdamW leaves one without a gradient as it is, so freezing
    it changes no number. The loss of one example decides: which parameters it reaches does not depend on the data.
    """
    store = module.data.stores["train"]
    module.loss(pack(store, np.arange(1), module.encoder.packed))[0].backward()
    unused = {name: p for name, p in module.named_parameters() if p.requires_grad and p.grad is None}
    for parameter in unused.values():
        parameter.requires_grad_(False)
    for parameter in module.parameters():
        parameter.grad = None
    return list(unused)
