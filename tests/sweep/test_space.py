"""Kinds, conditions, quantiles and limits of a search space."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import Config
from research.sweep import space as s
from research.sweep.sweepfile import Parameter, SamplerConfig, SweepConfig

CONDITIONAL = {
    "optim.warmup_ratio": Parameter(low=0.0, high=0.2, when={"optim.schedule": ["linear", "cosine"]}),
    "optim.schedule": Parameter(choices=["linear", "cosine", "constant"]),
    "optim.batch_size": Parameter(choices=[16, 32]),
}


def test_the_kind_of_a_range_comes_from_the_schema() -> None:
    assert s.kind_of("optim.lr") is float and s.kind_of("optim.epochs") is float
    assert s.kind_of("optim.batch_size") is int and s.kind_of("optim.max_steps") is int
    assert s.kind_of("model.dropout") is float and s.kind_of("optim.schedule") is None
    assert s.kind_of("model.gradient_checkpointing") is None
    assert s.distribution("optim.lr", Parameter(low=1e-5, high=1e-3, log=True)) == FloatDistribution(
        1e-5, 1e-3, log=True
    )
    assert s.distribution("optim.batch_size", Parameter(low=8, high=64, step=8)) == IntDistribution(8, 64, step=8)
    assert s.distribution("optim.epochs", Parameter(low=2, high=4, step=0.5)) == FloatDistribution(2, 4, step=0.5)
    assert s.distribution("seed_init", Parameter(low=0, high=9)) == IntDistribution(0, 9)


def test_a_parameter_comes_after_those_it_depends_on() -> None:
    assert s.ordered(CONDITIONAL) == ["optim.schedule", "optim.batch_size", "optim.warmup_ratio"]
    active = CONDITIONAL["optim.warmup_ratio"]
    assert s.is_active(active, {"optim.schedule": "cosine"})
    assert not s.is_active(active, {"optim.schedule": "constant"}) and not s.is_active(active, {})


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"optim.schedule": "linear"}, "optim.schedule is not in the space"),
        ({"optim.lr": 1e-4}, "it depends on itself"),
    ],
)
def test_a_condition_that_cannot_be_met_is_refused(when: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"space\.optim\.lr\.when cannot be met: {said}"):
        s.ordered({"optim.lr": Parameter(low=1e-5, high=1e-4, when=when)})


def test_grid_has_every_point_once_and_no_value_where_a_condition_fails() -> None:
    space = {
        **CONDITIONAL,
        "optim.warmup_ratio": Parameter(low=0.0, high=0.2, step=0.1, when={"optim.schedule": "linear"}),
    }
    points = s.grid(space)
    assert len(points) == 2 * (3 + 1 + 1)
    assert len({tuple(sorted(p.items())) for p in points}) == len(points)
    warmups = sorted(p["optim.warmup_ratio"] for p in points if p["optim.schedule"] == "linear")
    assert warmups == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])
    assert all("optim.warmup_ratio" not in p for p in points if p["optim.schedule"] != "linear")
    shuffled = s.shuffled_grid(space, 3)
    assert shuffled == s.shuffled_grid(space, 3) != s.shuffled_grid(space, 4)
    assert sorted(map(repr, shuffled)) == sorted(map(repr, points))


def test_quantiles() -> None:
    lr = FloatDistribution(1e-5, 1e-3, log=True)
    assert [s.at(lr, u) for u in (0.0, 0.5, 0.75)] == pytest.approx([1e-5, 1e-4, 10**-3.5])
    assert s.at(FloatDistribution(-1.0, 3.0), 0.25) == 0.0
    assert [s.at(IntDistribution(1, 3), u) for u in (0, 0.33, 0.34, 0.99)] == [1, 1, 2, 3]
    assert [s.at(CategoricalDistribution("abc"), u) for u in (0, 0.34, 0.67, 0.999)] == ["a", "b", "c", "c"]


@pytest.mark.filterwarnings("ignore:The distribution is specified by:UserWarning")  # drawn ranges need not divide
@settings(max_examples=100, deadline=None)
@given(
    u=st.floats(0, 1, exclude_max=True),
    low=st.integers(1, 50),
    width=st.integers(1, 400),
    step=st.integers(1, 7),
    log=st.booleans(),
)
def test_a_quantile_lies_in_its_distribution(u: float, low: int, width: int, step: int, log: bool) -> None:
    whole = IntDistribution(low, low + width, log=log, step=1 if log else step)
    real = FloatDistribution(low / 7, (low + width) / 7, log=log)
    stepped = FloatDistribution(low / 10, low / 10 + step * width / 10, step=step / 10)
    for d in (whole, real, stepped):
        value = s.at(d, u)
        assert d._contains(d.to_internal_repr(value)), (d, u, value)


def test_corners_are_all_combinations_of_extremes() -> None:
    space = {
        "optim.warmup_ratio": Parameter(low=0.0, high=0.2),
        "optim.batch_size": Parameter(choices=[8, 16, 32], when={"optim.schedule": "linear"}),
        "optim.lr": Parameter(low=1e-5, high=1e-3),
        "optim.schedule": Parameter(choices=["linear", "constant"]),
    }
    found = list(s.corners(space, ["optim.warmup_ratio", "optim.batch_size", "optim.epochs"]))
    assert len(found) == 2 * 4 and {"optim.warmup_ratio": 0.2} in found
    assert {"optim.warmup_ratio": 0.0, "optim.batch_size": 8} in found


@pytest.fixture
def base(tmp_path: Any) -> Config:
    path = tmp_path / "mine.yaml"
    path.write_text("task: sentiment\nmodel: {name: a/b}\ndata: {train: a.jsonl, validation: b.jsonl}\n")
    return load_config(path)


def checked(base: Config, space: dict[str, Parameter], **keys: Any) -> None:
    s.check_space(SweepConfig(experiment="mine.yaml", space=space, **keys), base)


@pytest.mark.in_check(4)
@pytest.mark.parametrize(
    ("key", "parameter", "said"),
    [
        ("optim.lr", Parameter(low=1e-3, high=1e-5), "low=0.001 is not below high=1e-05"),
        ("optim.lr", Parameter(low=1e-3, high=1e-3), "is not below"),
        ("optim.lr", Parameter(low=0.0, high=1e-3, log=True), "log: true needs low above 0, not 0.0"),
        ("optim.lr", Parameter(low=1e-5), "give low and high, or choices"),
        ("optim.lr", Parameter(low=1e-5, high=math.inf), "must be finite"),
        ("optim.lr", Parameter(low=1e-5, high=1e-3, log=True, step=1e-5), "log goes without step"),
        ("optim.lr", Parameter(low=0.0, high=1e-3), "optim.lr=0.0 must be a number above 0"),
        ("optim.warmup_ratio", Parameter(low=0.0, high=1.5), r"warmup_ratio=1.5 must be in \[0, 1\]"),
        ("optim.batch_size", Parameter(low=8, high=20.5), "takes integers"),
        ("optim.schedule", Parameter(low=1, high=2), "the key takes no numbers: give choices"),
        ("optim.schedule", Parameter(choices=["linear", "exponential"]), "space.optim.schedule: .*exponential"),
        ("optim.schedule", Parameter(choices=["linear"]), "a single value belongs into settings"),
        ("optim.schedule", Parameter(choices=["linear", "linear"]), "names a value twice"),
        ("data.labels", Parameter(choices=[["a"], ["b"]]), "choices must be plain values"),
        ("optim.lr", Parameter(low=1.0, high=2.0, choices=[1.0, 2.0]), "choices go without low"),
        ("model.dropout", Parameter(choices=[0.1, "much"]), "space.model.dropout"),
        ("seed", Parameter(low=0, high=9), "`seeds` names the seeds"),
        ("wandb.project", Parameter(choices=["a", "b"]), "changes no result"),
        ("trainer.devices", Parameter(choices=[1, 2]), "the same ranks"),
    ],
)
def test_what_the_experiment_would_refuse_is_refused(base: Config, key: str, parameter: Parameter, said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked(base, {key: parameter})


def test_samplers_that_cannot_serve_a_space(base: Config) -> None:
    with pytest.raises(UserError, match="grid needs choices, or a step"):
        checked(base, {"optim.lr": Parameter(low=1e-5, high=1e-3)}, sampler=SamplerConfig(name="grid"))
    with pytest.raises(UserError, match="cma-es needs two ranges"):
        checked(base, {"optim.lr": Parameter(low=1e-5, high=1e-3)}, sampler=SamplerConfig(name="cma-es"))


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"optim.lr": 1.0}, r"enqueue\[0\]: optim.lr=1.0 is outside the space"),
        ({"optim.epochs": 2}, r"enqueue\[0\]: optim.epochs is not in the space \(optim.lr\)"),
        ({"optim.lr": "much"}, "is outside the space"),
    ],
)
def test_enqueued_points_lie_in_the_space(base: Config, point: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked(base, {"optim.lr": Parameter(low=1e-5, high=1e-3)}, enqueue=[point])


@pytest.mark.parametrize(
    ("changes", "grown"),
    [
        ({}, True),
        ({"optim.lr": Parameter(low=1e-6, high=1e-3, log=True)}, True),
        ({"optim.lr": Parameter(low=1e-5, high=1e-4, log=True)}, False),
        ({"optim.lr": Parameter(low=1e-5, high=1e-3)}, False),
        ({"model.dropout": Parameter(low=0.0, high=0.3)}, True),
        ({"optim.schedule": Parameter(choices=["linear", "cosine", "constant"])}, False),
    ],
)
def test_growth(changes: dict[str, Parameter], grown: bool) -> None:
    old = {
        "optim.lr": Parameter(low=1e-5, high=1e-3, log=True),
        "optim.schedule": Parameter(choices=["linear", "cosine"]),
    }
    assert s.grew(s.as_dict(old), s.as_dict({**old, **changes})) is grown
    assert not s.grew(s.as_dict(old), s.as_dict({"optim.lr": old["optim.lr"]}))
