"""The weights of an adapter that cannot be merged, beside the model's in `model/`, and back from there."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks
from research.common.errors import UserError

FILE = "adapter_weights.safetensors"
TOLD = """\
The weights of adapter '{name}' cannot be merged into those of a plain model. `from_pretrained` reads the pretrained
model with the trained head, which alone does not give the scores of the run: the adapter's weights are in
`adapter_weights.safetensors`. `research evaluate` and `research predict` use both.
"""


def save_unmerged(folder: Path, name: str, state: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    """Write the tensors of a state that the plain model lacks, and a file that says so."""
    own = {key: tensor.detach().cpu().clone() for key, tensor in state.items() if key not in plain}  # some share one
    save_file(own, folder / FILE, metadata={"adapter": name})
    (folder / "NOT_MERGED.md").write_text(TOLD.format(name=name), encoding="utf-8")


@torch.no_grad()
def load_unmerged(model: PreTrainedModel, adapter: AdapterHooks, name: str, folder: Path) -> None:
    """Put the adapter's weights of a trained model's folder, if it has any, into the adapted model.

    Raises UserError where the folder's are of another adapter, which would be lost silently.
    """
    if not (folder / FILE).is_file():
        return
    with safe_open(folder / FILE, "pt") as file:
        trained_with = (file.metadata() or {}).get("adapter")
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    own = {key: tensor for key, tensor in model.state_dict().items() if key in weights}
    if adapter.merges or own.keys() != weights.keys() or any(own[key].shape != weights[key].shape for key in own):
        raise UserError(
            f"{folder} was trained with adapter '{trained_with}', whose weights are not in the model's; continue with "
            f"it and the same keys instead of '{name}', or start from the model it was trained on."
        )
    for key, tensor in own.items():
        tensor.copy_(weights[key])
