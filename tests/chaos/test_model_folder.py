"""Model folders that are odd, damaged or meant to do harm: one sentence, soon, and no memory taken."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.models.folder import refuse_odd_folder

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def change(model: Path, **config: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


class Planted:
    """What runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (open, (str(self.marker), "w"))


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 5_000_000}, "says 5,000,000 layers, but the weights there are"),
        ({"vocab_size": 50_000_000}, "says 50,000,000 words of 32 numbers, but the weights there are"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be an integer of at least 1"),
        ({"hidden_size": "32"}, "hidden_size='32' must be an integer"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers=2.5 must be an integer"),
        ({"vocab_size": True}, "vocab_size=True must be an integer"),
        ({"quantization_config": {"quant_method": "gptq"}}, "says the weights are quantised"),
        ({"hidden_act": "no such activation"}, "cannot be used: "),
        ({"hidden_act": 7}, "cannot be used: "),
        ({"max_position_embeddings": [1]}, "cannot be used: "),
        ({"model_type": "no such model"}, "cannot be used: "),
        ({"model_type": ["bert"]}, "cannot be used: "),
        ({"hidden_size": 33}, "cannot be used: "),
    ],
)
def test_impossible_configs(config: dict[str, Any], said: str, model: Path, experiment: Path, command: Command) -> None:
    change(model, **config)
    code, shown = command("train", experiment, f"model.name={model}", f"run_dir={model.parent / 'run'}")
    assert code == 2 and said in shown, shown


@pytest.mark.in_check(2)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_files(name: str, content: bytes, model: Path, experiment: Path, command: Command) -> None:
    (model / name).write_bytes(content)
    code, shown = command("train", experiment, f"model.name={model}", f"run_dir={model.parent / 'run'}")
    assert code == 2 and str(model) in shown and len(shown) < 1000, shown


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"a": "pytorch_model.bin"}, "names 'pytorch_model.bin', which is no safetensors file of this folder"),
        ({"a": "../model.safetensors"}, "which is no safetensors file of this folder"),
        ({"a": "gone.safetensors"}, "names gone.safetensors, which is not there"),
        ({"a": 3}, "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_index_of_other_files(weight_map: Any, said: str, model: Path, experiment: Path, command: Command) -> None:
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    code, shown = command("train", experiment, f"model.name={model}", f"run_dir={model.parent / 'run'}")
    assert code == 2 and said in shown, shown


def test_pickled_weights_run_no_code(model: Path, experiment: Path, tmp_path: Path, command: Command) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Planted(tmp_path / "executed")}))
    code, shown = command("train", experiment, f"model.name={model}", f"run_dir={tmp_path / 'run'}")
    assert code == 2 and "cannot be used: " in shown, shown
    assert not (tmp_path / "executed").exists()


def test_huge_tokenizer_is_refused_unread(model: Path, experiment: Path, command: Command) -> None:
    with open(model / "tokenizer.json", "r+b") as file:
        file.truncate(200 * 2**20)
    code, shown = command("train", experiment, f"model.name={model}", f"run_dir={model.parent / 'run'}")
    assert code == 2 and "tokenizer.json has 200 MiB" in shown


def test_sound_folders_pass(model: Path) -> None:
    refuse_odd_folder(str(model))
    refuse_odd_folder("google-bert/bert-base-uncased")
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    refuse_odd_folder(str(model))
