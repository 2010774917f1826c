"""Checkpoints: intact or passed over, rotated, written behind the steps."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from research.common.errors import UserError
from research.training import checkpoint
from research.training.checkpoint import Writer, at_step, files, newest, resumable, save, step_of
from research.training.kept_checkpoints import rotate
from research.training.state import present_names


def tensors_of(step: int) -> dict[str, Tensor]:
    return {"weight": torch.arange(300.0) + step, "step": torch.tensor(float(step)), "empty": torch.zeros(0, 4)}


def fill(folder: Path, *steps: int) -> list[Path]:
    return [save(folder, step, tensors_of(step), {"progress": {"step": step, "best_score": 0.1}}) for step in steps]


def test_round_trip(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 7)
    found = newest(tmp_path)
    assert found is not None and (found.path, found.step) == (path, 7)
    assert found.state == {"progress": {"step": 7, "best_score": 0.1}}
    loaded = found.tensors()
    assert loaded.keys() == tensors_of(7).keys()
    for name, tensor in tensors_of(7).items():
        assert loaded[name].equal(tensor) and loaded[name].dtype == tensor.dtype
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert newest(tmp_path / "nowhere") is None


def test_newest_is_by_step_not_by_time_or_name(tmp_path: Path) -> None:
    fill(tmp_path, 100_000_000, 30, 5)
    assert [step_of(path) for path in files(tmp_path)] == [100_000_000, 30, 5]
    assert at_step(tmp_path, 30).step == 30
    assert at_step(tmp_path, 31) is None


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_any_damage_is_recognised(place: float, bit: int, cut: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    _, path = fill(folder, 1, 2)
    whole = bytearray(path.read_bytes())
    at = int(place * len(whole))
    damaged = whole[:at] if cut else whole
    if not cut:
        damaged[at] ^= 1 << bit
    path.write_bytes(damaged)
    found = newest(folder)
    assert found is not None and found.step == 1
    assert at_step(folder, 2) is None


def test_each_damaged_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, second, third = fill(tmp_path, 1, 2, 3)
    third.write_bytes(b"")
    second.write_bytes(second.read_bytes() + b"\0")
    found = newest(tmp_path)
    assert found is not None and found.step == 1
    assert [record.args[0] for record in caplog.records] == [third, second]  # type: ignore[index]
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(2, [], [5, 4]), (2, [1, 3], [5, 4, 3, 1]), (1, [5], [5]), (1, [4], [5, 4]), (9, [], [5, 4, 3, 2, 1])],
)
def test_rotation_keeps_the_newest_and_the_best(keep: int, best: list[int], left: list[int], tmp_path: Path) -> None:
    *_, latest = fill(tmp_path, 1, 2, 3, 4, 5)
    rotate(tmp_path, latest, keep, best)
    assert [step_of(path) for path in files(tmp_path)] == left


@pytest.mark.parametrize("keep", [1, 2])
def test_rotation_never_prefers_a_damaged_one(keep: int, tmp_path: Path) -> None:
    """Training went back to step 2, and has come to step 3 again, or to 4, which it had not saved before."""
    _, _, third, fifth = fill(tmp_path, 1, 2, 3, 5)
    for path in (third, fifth):
        os.truncate(path, 100)
    again = save(tmp_path, 3, {"weight": torch.ones(3)}, {"train_seconds": 1.5})
    rotate(tmp_path, again, keep, [])
    assert [step_of(path) for path in files(tmp_path)] == [3, 2][:keep]
    assert newest(tmp_path).path == again


def test_disk_that_fills_up_leaves_nothing_half(tmp_path: Path) -> None:
    (first,) = fill(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match=r"The checkpoint of step 2 could not be written to .*: .+\.") as refused:
            save(tmp_path, 2, {"weight": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == [first]
    assert newest(tmp_path).step == 1


def test_writer_copies_before_training_goes_on(tmp_path: Path) -> None:
    go, writer, weight = threading.Event(), Writer(), torch.zeros(1000)

    def write(copies: dict[str, Tensor]) -> None:
        assert go.wait(10)
        save(tmp_path, 1, copies, {})

    writer.submit(write, {"weight": weight, "part": weight.view(10, 100).t()})
    weight += 1
    go.set()
    writer.wait()
    found = newest(tmp_path)
    assert found is not None
    assert {name: (float(t.sum()), tuple(t.shape)) for name, t in found.tensors().items()} == {
        "weight": (0.0, (1000,)), "part": (0.0, (100, 10)),
    }  # fmt: skip


def test_writer_raises_at_the_next_chance_and_once(tmp_path: Path) -> None:
    writer = Writer()

    def write(copies: dict[str, Tensor]) -> None:
        checkpoint.save(tmp_path / "missing", 1, copies, {})

    writer.submit(write, {"weight": torch.zeros(3)})
    with pytest.raises(UserError, match="The checkpoint of step 1 could not be written"):
        writer.submit(write, {})
    writer.wait()


def test_moments_in_checkpoints_of_earlier_versions_are_found() -> None:
    m, weight = torch.ones(2), torch.zeros(2)
    former = {"optimizer.encoder.model.bert.encoder.x.exp_avg": m, "model.bert.encoder.x": weight}
    present = {"optimizer.backbone.model.bert.encoder.x.exp_avg": m, "model.bert.encoder.x": weight}
    assert present_names(former) == present_names(present) == present


def test_what_a_part_of_the_run_needs_is_resumed_from_too(tmp_path: Path) -> None:
    """Of step 3 the best of part `ner`, step 2, is gone; of step 1 nothing is missing. A finished run knew that 3 is
    the best of that part."""
    for step, best in ((1, {}), (2, {}), (3, {"ner": {"step": 2, "score": 0.5, "loss": 1.0}})):
        state = {"progress": {"step": step, "best_step": 1, "best_of_parts": best}}
        save(tmp_path, step, {"weight": torch.ones(3)}, state)
    at_step(tmp_path, 2).path.unlink()
    assert resumable(tmp_path).step == 1 and resumable(tmp_path, {"": 1, "ner": 3}).step == 3
