"""What attempts cost together, and energy by the counters of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from research.tracking import cost


def attempt(seconds: float, ranks: int, tokens: int, joules: float | None) -> dict[str, float | None]:
    return {"wall_seconds": seconds, "ranks": ranks, "tokens": tokens, "energy_joules": joules}


def test_attempts_add_up_and_energy_is_known_of_all_or_of_none() -> None:
    both = [attempt(1800.0, 2, 700, 50.0), attempt(3600.0, 4, 300, 25.0)]
    assert cost.total(both, flops_per_token=6.0) == {
        "attempts": 2, "wall_seconds": 5400.0, "device_hours": 5.0, "devices": 4, "tokens": 1000, "flops": 6000.0,
        "energy_joules": 75.0,
    }  # fmt: skip
    assert cost.total([*both, attempt(1.0, 1, 1, None)], 6.0)["energy_joules"] is None
    assert cost.total([], 6.0)["devices"] == 0


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two processors' counters, of microjoules, which restart at 10 J."""
    monkeypatch.setattr(cost, "RAPL", tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):  # the last is a part of the first
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
        (tmp_path / name / "energy_uj").write_text("9000000\n")
    return [tmp_path / name / "energy_uj" for name in ("intel-rapl:0", "intel-rapl:1")]


def test_energy_is_what_the_counters_have_moved_on(counters: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_gpu_joules", lambda: 0.0)
    counter = cost.EnergyCounter()
    assert counter.joules() == 0.0
    counters[0].write_text("9500000\n")
    counters[1].write_text("2000000\n")  # restarted
    assert counter.joules() == pytest.approx(0.5 + 3.0)


def test_energy_without_that_of_the_gpus_is_no_energy(counters: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([100.0, 130.0, None])
    monkeypatch.setattr(cost, "_gpu_joules", lambda: next(readings))
    counter = cost.EnergyCounter()
    assert counter.joules() == pytest.approx(30.0)
    assert counter.joules() is None


def test_no_counter_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "RAPL", tmp_path / "none")
    monkeypatch.setattr(cost, "_gpu_joules", lambda: 0.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cost.EnergyCounter().joules() is None
