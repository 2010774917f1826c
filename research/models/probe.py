"""Find out whether a model can be packed: a small batch decides, never the name of its class.

The model runs a few short sequences padded, by its own attention, and packed, by ours; outputs and gradients must be
equal, and our attention must have been called once in each layer. Weights that attend to all tokens alike, as fresh
ones do, would hide a leak between sequences: they are sharpened meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from research.batching.pack import MicroBatch, cross_plan, make_stream
from research.batching.store import INPUT, SOURCE, TARGET
from research.models.attention import CROSS, PACKED
from research.models.load import DECODER, ENCODER

if TYPE_CHECKING:
    from research.models.backbone import Backbone

TOLERANCE = 1e-4  # of the largest output; a leak between sequences shows at 1e-2 and above
GRADIENT_TOLERANCE = 1e-3  # of the largest element of a parameter's gradient
COMPARED_ELEMENTS = 1 << 16  # parameters up to this size have their gradients compared: biases, norms, small tables


def try_packing(backbone: Backbone) -> tuple[bool, str]:
    """Does this model give the same packed as padded? Sets `first_position`. Returns a sentence on it too."""
    model = backbone.model
    training, micro = model.training, probe_batch(model.config)
    try:
        with sharpened(model.eval()), torch.enable_grad():
            model.set_attn_implementation("eager")
            expected = _run(backbone, micro)
            model.set_attn_implementation(PACKED)
            backbone.packed = True
            padding = getattr(model.config, "pad_token_id", None) or 0
            for backbone.first_position in (0, padding + 1):
                try:
                    got = _run(backbone, micro)
                except Exception as error:
                    return False, f"it does not take packed input ({_first_line(error)})"
                difference = float((got[0] - expected[0]).abs().max() / expected[0].abs().max())
                if difference < TOLERANCE:
                    return _judge(difference, got, expected, layers(model.config, backbone.family))
        return False, f"its sequences see each other when packed (outputs differ by {difference:.0e})"
    except Exception as error:
        return False, f"the probe failed ({_first_line(error)})"
    finally:
        backbone.packed = False
        model.train(training)


Results = tuple[Tensor, list[Tensor], dict[str, int]]  # outputs, gradients, calls of our attention by role


def _judge(difference: float, got: Results, expected: Results, layers: dict[str, int]) -> tuple[bool, str]:
    """The verdict on a model whose outputs are equal."""
    if got[2] != layers:
        called = ", ".join(f"{got[2].get(role, 0)} of {count} {role}" for role, count in layers.items())
        return False, f"its layers do not all call the attention they are given ({called})"
    largest = max((float(g.abs().max()) for g in expected[1]), default=1.0) or 1.0  # 0: below a frozen model
    for a, b in zip(got[1], expected[1], strict=True):
        off = float((a - b).abs().max()) / max(float(b.abs().max()), 0.01 * largest)
        if not off < GRADIENT_TOLERANCE:
            return False, f"its sequences see each other in the backward pass (gradients differ by {off:.0e})"
    return True, f"packed: equal to padded {f'within {difference:.0e}' if difference else 'to the bit'}"


def _run(backbone: Backbone, micro: MicroBatch) -> Results:
    """Outputs of the model below its head, flat; gradients of small parameters; calls of our attention."""
    base: Any = backbone.model.base_model
    inputs = backbone.inputs(micro)
    out = backbone.flat(backbone.predicting(micro), base(**inputs)[0])
    small = [p for p in base.parameters() if p.requires_grad and p.numel() <= COMPARED_ELEMENTS]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((out * weights).sum(), small, allow_unused=True) if out.requires_grad else ()
    grads = [torch.zeros_like(p) if g is None else g for p, g in zip(small, found, strict=False)]
    plans = inputs.get("plans")
    return out.detach(), grads, dict(plans.calls) if plans else {}


def layers(config: PretrainedConfig, family: str) -> dict[str, int]:
    """How many layers of each role a model has."""
    if not config.is_encoder_decoder:
        return {family: config.num_hidden_layers}
    encoder, decoder = getattr(config, "encoder", config), getattr(config, "decoder", config)
    deep = [getattr(decoder, name, None) for name in ("decoder_layers", "num_decoder_layers", "num_hidden_layers")]
    decoder_layers = next(count for count in deep if count)
    return {ENCODER: encoder.num_hidden_layers, DECODER: decoder_layers, CROSS: decoder_layers}


@contextmanager
def sharpened(model: nn.Module) -> Iterator[None]:
    """Within it, weights below unit gain are scaled up to it, by powers of two: every bit comes back."""
    scaled: list[tuple[Tensor, float]] = []
    try:
        with torch.no_grad():
            for name, module in model.named_modules():
                relative = "relative_attention_bias" in name
                weight = getattr(module, "weight", None)
                if not (relative or isinstance(module, nn.Linear | Conv1D)) or not isinstance(weight, Tensor):
                    continue
                if weight.dtype != torch.float32 or any(weight is other for other, _ in scaled):
                    continue
                inputs = 1 if relative else weight.shape[0 if isinstance(module, Conv1D) else 1]
                gain = float(weight.std()) * math.sqrt(inputs)
                power = round(math.log2(1 / gain)) if 0 < gain < 1 else 0
                if power > 0:
                    weight.mul_(2.0**power)
                    scaled.append((weight, 2.0**-power))
        yield
    finally:
        with torch.no_grad():
            for weight, factor in scaled:
                weight.mul_(factor)


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Within it, no dropout, no gradients, full precision; after it, each module is in the mode it was in."""
    device, modes = next(model.parameters()).device, [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training


def probe_batch(config: PretrainedConfig, packed: bool = True) -> MicroBatch:
    """A few short sequences, and one longer than any sliding window of the model."""
    window = getattr(config, "sliding_window", None) or getattr(config, "local_attention", None) or 0
    longest = min(2 * window + 8 if window else 24, (getattr(config, "max_position_embeddings", None) or 512) - 4)
    lengths = np.array([max(longest, 8), 7, 5, 2], dtype=np.int64)
    vocabulary = getattr(config, "encoder", config).vocab_size
    padding = getattr(config, "pad_token_id", None) or 0
    rng = np.random.default_rng(0)

    def stream(lengths: np.ndarray, paired: bool) -> Any:
        ids = torch.from_numpy(rng.integers(5, min(1000, vocabulary), int(lengths.sum())))
        ids[ids == padding] -= 1
        return make_stream({"input_ids": ids}, lengths, packed=packed, paired=paired)

    if not config.is_encoder_decoder:
        return MicroBatch({INPUT: stream(lengths, False)})
    streams = {SOURCE: stream(lengths, True), TARGET: stream(lengths[[1, 0, 3, 2]], True)}
    return MicroBatch(streams, cross_plan(streams))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
