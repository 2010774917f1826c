"""The formats of an exported model: how each is written, and how it is loaded to compute.

Shapes: N sequences, L longest.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from research.cluster.devices import fast_precision
from research.common.errors import UserError
from research.deploy.signal_stack import kept_signal_stack
from research.models.load import without_advice

FORMATS = {
    "safetensors": ("fp32", "bf16"),
    "onnx": ("fp32", "int8", "int8_static"),
    "openvino": ("fp32", "bf16"),
    "torch": ("fp32",),
}  # their precisions


class ExportedEngine(nn.Module):
    """Calls an exported program as if it were the model it was made from."""

    def __init__(self, program: Callable[..., Any], config: Any) -> None:
        super().__init__()
        self.program, self.config = program, config
        self.base_model = self

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        """Padded inputs (N, L) -> the model's outputs by name."""
        given = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        return {name: torch.as_tensor(value) for name, value in self.program(**given).items() if "logits" in name}


@contextmanager
def quiet() -> Iterator[None]:
    """No progress on standard output, and no advice on quantising or on names that become deprecated."""
    root = logging.getLogger()
    with without_advice(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        level, root.level = root.level, logging.ERROR
        try:
            yield
        finally:
            root.level = level


def write_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    format: str,
    precision: str,
    calibration: Callable[[], list[dict[str, Tensor]]] = list,
) -> None:
    """Write a model (float32, padded) in a format, with its tokenizer and config.

    `calibration` gives the inputs that show int8_static how large activations become.
    """
    tokenizer.save_pretrained(folder)
    model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    if format == "safetensors":
        model.save_pretrained(folder)
        return
    with quiet():
        exported = exporter_of(format, precision, calibration)(model.eval(), sample_inputs(tokenizer))
        exported.save_pretrained(folder)
    model.config.save_pretrained(folder)


def exporter_of(
    format: str, precision: str, calibration: Callable[[], list[dict[str, Tensor]]] = list
) -> Callable[[Any, dict[str, Tensor]], Any]:
    """What makes the exported program of a model from sample inputs."""
    exporters = import_module("transformers.exporters")
    if format == "torch":
        dynamo = exporters.DynamoConfig(dynamic=True)
        return lambda model, inputs: exporters.DynamoExporter().export(model, inputs, dynamo)
    if format == "openvino":
        openvino = exporters.OpenVINOConfig(dynamic=True)
        return lambda model, inputs: exporters.OpenVINOExporter().export(model, inputs, openvino)
    quantizer = None
    if precision == "int8":  # a scale for each channel: one for the whole matrix costs labels
        quantizer = exporters.OnnxRuntimeQuantizer(exporters.OnnxRuntimeDynamicConfig(per_channel=True))
    if precision == "int8_static":  # of the products alone: with every operator quantised, twice the labels change
        static = exporters.OnnxRuntimeStaticConfig(per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
        quantizer = exporters.OnnxRuntimeQuantizer(static, calibration_dataset=calibration())
    onnx = exporters.OnnxConfig(dynamic=True, quantizer=quantizer)
    return lambda model, inputs: exporters.OnnxExporter().export(model, inputs, onnx)


def sample_inputs(tokenizer: Any) -> dict[str, Tensor]:
    """Two sequences of unlike lengths: one alone would fix the number of sequences in the program."""
    inputs = tokenizer(["a " * 16, "a a"], padding=True, return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}


def load_engine(folder: Path, format: str, precision: str, config: Any) -> ExportedEngine | None:
    """The engine of an exported folder; None where `from_pretrained` reads it. UserError for a damaged one."""
    if format == "safetensors":
        return None
    try:
        with quiet(), kept_signal_stack():
            exported = import_module("transformers.exporters").ExportedModel.from_pretrained(folder)
            exported.to("cpu", **options_of(format, precision))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # each runtime fails in a way of its own
        raise UserError(f"{folder}: the {format} program cannot be loaded ({error}); export it again.") from None
    return ExportedEngine(exported, config)


def options_of(format: str, precision: str) -> dict[str, Any]:
    """As many threads as torch has, and the exported precision: runtimes take all cores, and OpenVINO bf16 for fp32."""
    threads = torch.get_num_threads()
    if format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return {"session_options": options}
    if format == "openvino":
        computed = "bf16" if precision == fast_precision("cpu") == "bf16" else "f32"
        return {"config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": computed}}
    return {}
