"""What the start line says of devices, and of GPUs that a run was not given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from research.cluster.devices import layout_note, unused_gpus_note
from research.cluster.ranks import World

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_start_line() -> None:
    threads = torch.get_num_threads()
    assert layout_note(CPU, "bf16", World()) == f"1 rank on 1 node, on cpu ({threads} threads), bf16"
    world = replace(World(), size=4, nodes=2)
    assert layout_note(CPU, "fp32", world) == f"4 ranks on 2 nodes, each on cpu ({threads} threads), fp32"


def test_gpus_of_the_node_that_the_run_was_not_given(tmp_path: Path) -> None:
    assert unused_gpus_note(CPU, "auto", tmp_path / "no driver") is None
    assert unused_gpus_note(CPU, "auto", tmp_path) is None
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    note = unused_gpus_note(CPU, "auto", tmp_path)
    assert (
        note is not None and note.startswith("This node has 2 GPUs, but none was given") and "--gpus-per-node" in note
    )
    assert unused_gpus_note(CPU, "cpu", tmp_path) is None and unused_gpus_note(GPU, "auto", tmp_path) is None
