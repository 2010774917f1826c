"""The arithmetic of the benchmarks; the runs themselves are `make bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import gpu
import hf_trainer
import page
import rates
import speed


def test_training_flops_are_those_torch_counts() -> None:
    settings: Any = dict(  # a small BERT
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, intermediate_size=256, vocab_size=50
    )
    model = BertModel(BertConfig(**settings), add_pooling_layer=False)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(3, 40, dtype=torch.int64)).last_hidden_state.sum().backward()
    counted = rates.training_flops(rates.layer_parameters(model), 2, 64, [40, 40, 40])
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)  # biases and norms are counted as weights


def test_training_flops_by_hand() -> None:
    assert rates.training_flops(1000, 2, 8, [3, 5]) == 6 * 1000 * 8 + 12 * 2 * 8 * (9 + 25)


def test_layer_rate_is_a_rate() -> None:
    assert 1e8 < rates.layer_rate(64, 64, 128, seconds=0.01) < 1e16


def test_steady_rate_leaves_the_warm_up_out_and_weighs_by_duration() -> None:
    rows = [
        {"step": 10, "time/step_seconds": 9.0, "time/examples_per_second": 1.0, "time/tokens_per_second": 10.0},
        {"step": 20, "time/step_seconds": 0.3, "time/examples_per_second": 100.0, "time/tokens_per_second": 900.0},
        {"step": 20, "validation/f1": 0.5},
        {"step": 30, "time/step_seconds": 0.1, "time/examples_per_second": 300.0, "time/tokens_per_second": 2900.0},
    ]
    found = speed.steady(rows, 10)
    assert found == pytest.approx({"examples_per_second": 150.0, "tokens_per_second": 1400.0})  # 600 examples in 4 s


def test_ratios_go_pair_by_pair() -> None:
    pairs = [(30.0, 10.0), (20.0, 20.0), (50.0, 25.0)]
    rounds = [{"harness": {"examples_per_second": a}, "grouped": {"examples_per_second": b}} for a, b in pairs]
    assert page.ratios(rounds, "grouped") == [3.0, 1.0, 2.0]
    assert page.spread(page.ratios(rounds, "grouped")) == "2.00 (1.00-3.00)"


def test_each_system_begins_a_round_in_turn() -> None:
    orders = [speed.rotated("abc", k) for k in range(4)]
    assert ["".join(order) for order in orders] == ["abc", "bca", "cab", "abc"]


def test_steps_fit_the_seconds() -> None:
    assert speed.plan_steps(0.1, 13) == (25 + 130, 25)
    assert speed.plan_steps(2.0, 13) == (3 + 6, 3)
    assert speed.plan_steps(60.0, 13) == (3 + 5, 3)


@pytest.mark.parametrize("name", speed.CASES)
def test_the_quickstart_data_serves_every_case(name: str) -> None:
    case = speed.CASES[name]
    rows = hf_trainer.read(
        speed.find(Path(speed.__file__).parents[1] / "research" / "quickstart", name, case, "train"), 50
    )
    fields = {"sentiment": {"text", "label"}, "ner": {"tokens", "tags"}, "qa": {"context", "question", "answers"}}
    assert len(rows) == 50
    assert all(fields[case.task] <= row.keys() for row in rows)


@pytest.mark.parametrize("mix", gpu.MIXES)
def test_drawn_lengths_follow_their_mix(mix: str) -> None:
    mean, p95, longest = gpu.MIXES[mix]
    drawn = gpu.draw_lengths(mix, 20000)
    assert drawn.mean() == pytest.approx(mean, rel=0.04)
    assert np.percentile(drawn, 95) == pytest.approx(p95, rel=0.06)
    assert drawn.max() <= longest
