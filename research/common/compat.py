"""Private and undocumented names of other libraries, each in one place; tests/common/test_compat.py holds every one.

No library is imported before a function that needs it is called.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any


def is_text_encoding(name: str) -> bool:
    """Python: whether a codec decodes bytes to text (`hex` and `zip` do not). Raises LookupError for no codec."""
    return bool(codecs.lookup(name)._is_text_encoding)


def native_attention(model: Any) -> str:
    """transformers: the attention that a model class runs when nothing is asked for."""
    return "sdpa" if model._supports_sdpa else "eager"


def dataset_fingerprint(dataset: Any) -> str:
    """datasets: the hash of how a data set was made, which names its files in the cache."""
    return str(dataset._fingerprint)


def foreach_norm(tensors: Sequence[Any]) -> list[Any]:
    """torch: the norm of each tensor, in few kernels."""
    import torch

    return list(torch._foreach_norm(list(tensors)))


def foreach_scale(tensors: Sequence[Any], scale: Any) -> None:
    """torch: multiply each tensor in place, in few kernels."""
    import torch

    torch._foreach_mul_(list(tensors), scale)


def multiplies_bf16() -> bool:
    """torch: whether this processor has instructions for products of bf16 numbers."""
    import torch

    capabilities: Callable[[], dict[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # before torch 2.13
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return any(has for name, has in capabilities().items() if name.endswith("bf16"))


def blocked_weight(weight: Any) -> Any:
    """torch: a copy of a linear layer's weight in the layout in which oneDNN reads it."""
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight)


def multiply_blocked(x: Any, weight: Any, bias: Any) -> Any:
    """torch: the product of a linear layer with a weight in that layout; without gradients."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def study_storage(study: Any) -> Any:
    """Optuna: where a study is kept."""
    return study._storage


def trial_id(trial: Any) -> int:
    """Optuna: the id of a trial in its storage, which is not its number."""
    return int(trial._trial_id)


NO_RECORD = (ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError)


def journal_reader() -> Callable[[Any], None]:
    """Optuna: reads the records of a journal one after the other. Raises one of NO_RECORD for what is none."""
    from optuna.storages.journal._storage import JournalStorageReplayResult

    replay = JournalStorageReplayResult("reader")
    return lambda record: replay.apply_logs([record])


def distribution_contains(distribution: Any, value: Any) -> bool:
    """Optuna: whether a value lies in a distribution. Raises ValueError or TypeError for one it cannot represent."""
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def wandb_core() -> str:
    """W&B: the path of its service's program."""
    from wandb.util import get_core_path

    return str(get_core_path())


def needs_remote_code(error: BaseException) -> bool:
    """transformers: whether a model was refused for bringing Python code of its own."""
    return "trust_remote_code" in str(error)


def sacrebleu_statistics(metric: Any, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Any:
    """sacrebleu: what each output counts, (N, K), whose sums over examples give the score of a corpus.

    `references` are those of each output, one or more.
    """
    import numpy as np

    most = max(map(len, references))
    streams = [[texts[k] if k < len(texts) else None for texts in references] for k in range(most)]
    return np.array(metric._extract_corpus_statistics(list(outputs), streams), dtype=np.float64)
