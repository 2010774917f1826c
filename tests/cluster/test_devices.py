"""What the start line says of devices, and of GPUs that a run was not given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from research.cluster import devices
from research.cluster.devices import fast_precision, layout_note, slow_precision_note, unused_gpus_note
from research.cluster.ranks import World

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_start_line() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert layout_note(CPU, "bf16", World()) == "1 rank on 1 node, on cpu with 1 thread, bf16"
        torch.set_num_threads(2)
        world = replace(World(), size=4, nodes=2)
        assert layout_note(CPU, "fp32", world) == "4 ranks on 2 nodes, each on cpu with 2 threads, fp32"
    finally:
        torch.set_num_threads(before)


def test_gpus_of_the_node_that_the_run_was_not_given(tmp_path: Path) -> None:
    assert unused_gpus_note(CPU, "auto", driver=tmp_path / "no driver") is None
    assert unused_gpus_note(CPU, "auto", driver=tmp_path) is None
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    note = unused_gpus_note(CPU, "auto", driver=tmp_path)
    assert (
        note is not None and note.startswith("This node has 2 GPUs, but none was given") and "--gpus-per-node" in note
    )
    assert (
        unused_gpus_note(CPU, "cpu", driver=tmp_path) is None and unused_gpus_note(GPU, "auto", 2, 2, tmp_path) is None
    )


def test_gpus_that_were_given_and_have_no_rank() -> None:
    note = unused_gpus_note(GPU, "auto", ranks=1, visible=4)
    assert note is not None and note.startswith("This run was given 4 GPUs of this node and uses 1: start a rank for")
    assert "--ntasks-per-node=4" in note
    assert unused_gpus_note(GPU, "auto", ranks=4, visible=4) is None
    assert unused_gpus_note(GPU, "auto", ranks=4, visible=1) is None  # bound to its own


def test_bf16_is_chosen_where_the_processor_has_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, chosen in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(devices, "multiplies_bf16", lambda has=has: has)
        assert fast_precision("cpu") == chosen
    note = slow_precision_note(CPU, "bf16")
    assert note is not None and "no bf16 instructions" in note and "trainer.precision=auto" in note
    assert slow_precision_note(CPU, "fp32") is None and slow_precision_note(GPU, "bf16") is None
