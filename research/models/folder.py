"""Check a model folder before anything is built from it: sizes that its weights do not have would take all memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from research.common.errors import UserError

LARGEST_TOKENIZER_BYTES = 128 * 2**20  # the largest in use have 35 MB
LARGEST_HEADER_BYTES = 100 * 2**20  # of safetensors itself
MOST_LAYERS = 1000  # where layers share their weights; else as many as there are tensors
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer")
COUNTS = ("vocab_size", "hidden_size", "d_model", "n_embd", "num_hidden_layers", "num_layers", "n_layer",
          "num_attention_heads", "num_heads", "n_head", "intermediate_size", "embedding_size")  # fmt: skip


def refuse_odd_folder(name: str) -> None:
    """Raise UserError for a model folder that cannot be loaded, or not in reasonable time; a hub name passes."""
    folder = Path(name)
    if not folder.is_dir():
        if not folder.exists() and name.startswith(("/", "./", "../", "~")):
            raise UserError(f"There is no model folder {name}.")
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} is not a model folder: it has no config.json.")
    config = _read_object(folder / "config.json")
    if config.get("quantization_config") is not None:
        raise UserError(f"{folder / 'config.json'} says the weights are quantised; training needs the original.")
    for key in COUNTS:
        value = config.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{folder / 'config.json'}: {key}={value!r} must be an integer of at least 1.")
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file() and tokenizer.stat().st_size > LARGEST_TOKENIZER_BYTES:
        raise UserError(f"{tokenizer} has {tokenizer.stat().st_size / 2**20:.0f} MiB; a tokenizer has 128 at most.")
    _refuse_sizes_without_weights(folder, config)


def _refuse_sizes_without_weights(folder: Path, config: dict[str, Any]) -> None:
    """Compare the sizes in config.json with the shapes in the headers of the weights' files."""
    shapes = [shape for path in weight_files(folder) for shape in shapes_in(path)]
    if not shapes:
        return  # pickled weights; their loader says what it thinks of them
    words, layers = config.get("vocab_size"), max(config.get(key) or 0 for key in LAYER_COUNTS)
    width = next((config[key] for key in ("embedding_size", "hidden_size", "d_model", "n_embd") if config.get(key)), 1)
    weights = sum(math.prod(shape) for shape in shapes)
    if words is not None and words * width > weights:
        raise UserError(
            f"{folder / 'config.json'} says {words:,} words of {width:,} numbers, but the weights there are "
            f"{weights:,} numbers in all: they do not belong together."
        )
    if layers > max(MOST_LAYERS, len(shapes)):
        raise UserError(
            f"{folder / 'config.json'} says {layers:,} layers, but the weights there are {len(shapes):,} tensors: they "
            "do not belong together."
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model. Raises UserError for an index that names what is not there, or no such file."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    weight_map = _read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise UserError(f"{index} is damaged: it has no weight_map.")
    for named in sorted(set(weight_map.values())):
        if Path(named).name != named or not named.endswith(".safetensors"):
            raise UserError(f"{index} names '{named}', which is no safetensors file of this folder.")
        if not (folder / named).is_file():
            raise UserError(f"{index} names {named}, which is not there; fetch the model again.")
    return [folder / named for named in sorted(set(weight_map.values()))]


def shapes_in(path: Path) -> list[list[int]]:
    """The shapes of a safetensors file's tensors, from its header alone. Raises UserError for a damaged one."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(LARGEST_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError("its header has no possible length")
            header = json.loads(file.read(size))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        if not all(type(number) is int and number >= 0 for shape in shapes for number in shape):
            raise ValueError("its header holds no shapes")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"The weights {path} are damaged or cut short ({error}); fetch them again.") from None
    return shapes


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object.")
    return content
