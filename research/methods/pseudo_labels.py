"""Pseudo-labels: unlabelled texts are learned with the labels that an earlier run gave them, where it was sure.

Lee 2013, Pseudo-Label. The loss of a step is

    mean_labelled CE(y, p(x))  +  weight mean_pseudo-labelled CE(y', p(x))

y' is the earlier run's prediction; texts to whose label it gives less than `threshold` are not read. The predictions
are a file that `research predict RUN --input UNLABELLED --output FILE` writes; `research self-train` makes rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from research.batching.unlabelled import NO_TARGET
from research.common.errors import UserError
from research.config.key import at_least, inside, key
from research.data.source import file_sha256
from research.methods.hooks import Loss, MethodHooks, Trained
from research.methods.unlabelled import refuse_other_tasks, refuse_without_unlabelled, sizes_of_step

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices


@dataclass
class Keys:
    file: str | None = key(None, "Parquet file that research predict wrote of data.unlabelled", path=True)
    threshold: float = key(0.95, "least probability of a label that is learned", inside("[0, 1]"))
    weight: float = key(1.0, "factor of the pseudo-labelled texts' mean loss", at_least(0))


class Method(MethodHooks):
    passes = 1.0
    reads_unlabelled = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.weight == 0)

    def on_model(self, module: Trained) -> None:
        """Raises UserError for predictions of other texts or labels, and where none is sure enough."""
        refuse_without_unlabelled("pseudo_labels", module)
        refuse_other_tasks("pseudo_labels", module)
        labels, confidence = read_predictions(self.keys.file, module)
        sure, unlabelled = confidence >= self.keys.threshold, module.data.unlabelled
        if not sure.any():
            raise UserError(
                f"methods.pseudo_labels.threshold={self.keys.threshold}: no prediction of {self.keys.file} is so sure; "
                f"the surest has {confidence.max():.3f}."
            )
        self.first = len(module.data.stores["train"])
        self.labels = torch.from_numpy(labels)
        self.digest = file_sha256(str(self.keys.file))
        unlabelled.rows = self.first + np.flatnonzero(sure)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        loss, outputs = plain(micro)
        [logits] = module.target_logits(micro, outputs)
        targets = torch.full((len(micro.examples),), NO_TARGET)
        pseudo = torch.from_numpy(micro.examples >= self.first)
        targets[pseudo] = self.labels[torch.from_numpy(micro.examples)[pseudo] - self.first]
        sizes = sizes_of_step(module)
        each = self.keys.weight * sizes.targets / sizes.unlabelled  # the step's loss is divided by its targets
        own = F.cross_entropy(logits, targets.to(logits.device), reduction="sum", ignore_index=NO_TARGET)
        return loss + each * own, outputs

    def state(self) -> dict[str, Tensor]:
        """The digest of the file: a resumed run continues with the same labels."""
        return {"file": torch.tensor(list(bytes.fromhex(self.digest)), dtype=torch.uint8)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if bytes(state["file"].tolist()).hex() != self.digest:
            raise UserError(f"methods.pseudo_labels: {self.keys.file} has changed since this run began; restore it.")


def read_predictions(file: str | None, module: Trained) -> tuple[Indices, Any]:
    """The class (U,) that was predicted for each unlabelled text, and its probability (U,)."""
    if file is None:
        raise UserError(
            "methods.pseudo_labels needs the predictions of an earlier run: write them by `research predict RUN "
            "--input FILE --output FILE.parquet` and set methods.pseudo_labels.file, or run `research self-train`."
        )
    try:
        table = pq.read_table(Path(file))
        columns = [table.column(name).to_pylist() for name in ("id", "prediction", "probabilities")]
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise UserError(f"methods.pseudo_labels.file={file}: no predictions of classes ({error}).") from None
    ids, predictions, probabilities = columns
    if ids != module.data.splits["unlabelled"].rows["id"][:]:
        raise UserError(f"methods.pseudo_labels.file={file}: not predictions of {module.config.data.unlabelled}.")
    classes = {label: i for i, label in enumerate(module.data.labels)}
    if unknown := set(predictions) - set(classes):
        raise UserError(
            f"methods.pseudo_labels.file={file}: predicts '{min(unknown)}', which is none of the labels "
            f"{', '.join(module.data.labels)}."
        )
    return np.array([classes[label] for label in predictions], np.int64), np.array(probabilities).max(axis=1)
