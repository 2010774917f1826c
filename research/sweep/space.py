"""The search space: which values each searched key may have, and what follows for the runs.

A parameter's kind comes from the experiment's schema: an integer key takes integers. A parameter with `when`
is searched only where other parameters have the values named there; elsewhere the experiment's own value holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from research.common import compat
from research.common.errors import UserError
from research.config.load import refuse_unknown_keys
from research.config.schema import Config
from research.config.tree import nested, schema_of, to_dict
from research.sweep.sweepfile import CHOSEN, Parameter, SweepConfig, base_config, load_sweep, with_values

Space = Mapping[str, Parameter]
ABSENT = object()
_COMMON = Config()  # the keys that every experiment has
NOT_SEARCHED = {
    "task": "a sweep is of one task",
    "task.name": "a sweep is of one task",
    "seed": "`seeds` names the seeds of each trial",
    "run_dir": "each trial has its folder in the sweep's",
    "trainer.monitor": "`metric` names what is searched for",
    "trainer.devices": "all trials run on the same ranks",
    "trainer.num_nodes": "all trials run on the same ranks",
    "trainer.accelerator": "all trials run on the same ranks",
    "trainer.strategy": "all trials run on the same ranks",
}


def kind_of(key: str, schema: Any = _COMMON) -> type | None:
    """`int` or `float` for a key that takes numbers, by the experiment's schema; None for any other."""
    *sections, name = key.split(".")
    for section in sections:
        schema = schema[section] if isinstance(schema, dict) else getattr(schema, section)
    hint = get_type_hints(type(schema))[name]
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((kind for kind in (float, int) if kind in options), None)


def takes_integers(key: str, parameter: Parameter) -> bool:
    """Does the key take integers? For a component's own key, `read_sweep` has said so in the parameter."""
    if parameter.whole is not None or key.split(".")[0] in CHOSEN:
        return bool(parameter.whole)
    return kind_of(key) is int


def distribution(key: str, parameter: Parameter) -> BaseDistribution:
    """What Optuna draws this parameter from."""
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    low, high, step = parameter.low, parameter.high, parameter.step
    if takes_integers(key, parameter):
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=step)


def ordered(space: Space) -> list[str]:
    """The keys, each after those its `when` names. Raises UserError for a condition that nothing can meet."""
    done: list[str] = []
    while len(done) < len(space):
        ready = [key for key, p in space.items() if key not in done and set(p.when) <= set(done)]
        if not ready:
            key, parameter = next((k, p) for k, p in space.items() if k not in done)
            unknown = [name for name in parameter.when if name not in space]
            why = f"{unknown[0]} is not in the space" if unknown else "it depends on itself"
            raise UserError(f"space.{key}.when cannot be met: {why}.")
        done += ready
    return done


def is_active(parameter: Parameter, values: Mapping[str, Any]) -> bool:
    """Do the values drawn so far meet the parameter's `when`?"""
    return all(key in values and values[key] in _options(wanted) for key, wanted in parameter.when.items())


def _options(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """The trial's value of every active parameter: drawn once, the stored one ever after."""
    values: dict[str, Any] = {}
    for key in ordered(space):
        if not is_active(space[key], values):
            continue
        d = distribution(key, space[key])
        if isinstance(d, FloatDistribution):
            values[key] = trial.suggest_float(key, d.low, d.high, step=d.step, log=d.log)
        elif isinstance(d, IntDistribution):
            values[key] = trial.suggest_int(key, d.low, d.high, step=d.step, log=d.log)
        else:
            assert isinstance(d, CategoricalDistribution)
            values[key] = trial.suggest_categorical(key, d.choices)
    return values


def at(d: BaseDistribution, u: float) -> Any:
    """The value of a distribution at `u` of [0, 1), by the inverse of its cumulative distribution."""
    if isinstance(d, CategoricalDistribution):
        return d.choices[int(u * len(d.choices))]
    assert isinstance(d, FloatDistribution | IntDistribution)
    if isinstance(d, IntDistribution) and d.log:
        low, high = math.log(d.low - 0.5), math.log(d.high + 0.5)
        return min(d.high, max(d.low, round(math.exp(low + u * (high - low)))))
    if d.step is not None:
        return min(d.high, d.low + d.step * int(u * (round((d.high - d.low) / d.step) + 1)))
    if d.log:
        return min(d.high, max(d.low, math.exp(math.log(d.low) + u * math.log(d.high / d.low))))
    return d.low + u * (d.high - d.low)


def levels(key: str, parameter: Parameter) -> list[Any]:
    """All values of a parameter with finitely many, in order."""
    d = distribution(key, parameter)
    if isinstance(d, CategoricalDistribution):
        return list(d.choices)
    assert isinstance(d, FloatDistribution | IntDistribution) and d.step is not None
    count = round((d.high - d.low) / d.step) + 1
    return [at(d, (i + 0.5) / count) for i in range(count)]


def grid(space: Space) -> list[dict[str, Any]]:
    """Every point of a space of finitely many."""
    points: list[dict[str, Any]] = [{}]
    for key in ordered(space):
        points = [
            {**point, **own}
            for point in points
            for own in ([{key: v} for v in levels(key, space[key])] if is_active(space[key], point) else [{}])
        ]
    return points


def extremes(parameter: Parameter) -> list[Any]:
    """The extreme values of a parameter: both ends of a range, or all choices."""
    return [parameter.low, parameter.high] if parameter.choices is None else list(parameter.choices)


def corners(space: Space, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every combination of extremes of those of `keys` that are searched; conditional ones may also be absent."""
    searched = [key for key in keys if key in space]
    options = [[_whole(key, space[key], value) for value in extremes(space[key])] for key in searched]
    options = [values + [ABSENT] * bool(space[key].when) for key, values in zip(searched, options, strict=True)]
    for combination in itertools.product(*options):
        yield {key: value for key, value in zip(searched, combination, strict=True) if value is not ABSENT}


def _whole(key: str, parameter: Parameter, value: Any) -> Any:
    return int(value) if isinstance(value, float) and takes_integers(key, parameter) else value


def read_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """A sweep file whose space fits its experiment. Raises UserError for any mistake that needs no data to be seen."""
    sweep = load_sweep(path, overrides)
    check_space(sweep, base_config(sweep))
    return sweep


def check_space(sweep: SweepConfig, base: Config) -> None:
    """Raise UserError for a space that the experiment's schema would refuse, before anything is trained."""
    for key, parameter in sweep.space.items():
        if key in NOT_SEARCHED or key.startswith("wandb."):
            raise UserError(f"space.{key} cannot be searched: {NOT_SEARCHED.get(key, 'it changes no result')}.")
        kind = kind_of(key, _schema_with(base, key, parameter))
        if key.split(".")[0] in CHOSEN:
            parameter.whole = kind is int if parameter.whole is None else parameter.whole
        wrong = _wrong(parameter, kind, sweep.sampler.name)
        if wrong:
            raise UserError(f"space.{key}: {wrong}.")
    for key in ordered(sweep.space):
        parents = {name: _options(value)[0] for name, value in sweep.space[key].when.items()}
        for value in extremes(sweep.space[key]):
            with_values(base, {**parents, key: _whole(key, sweep.space[key], value)}, f"space.{key}")
    for number, point in enumerate(sweep.enqueue):
        _check_point(sweep, base, number, point)
    numeric = [key for key, p in sweep.space.items() if p.choices is None and not p.when]
    if sweep.sampler.name == "cma-es" and len(numeric) < 2:
        raise UserError("sampler.name=cma-es needs two ranges without `when` or more; tpe takes any space.")


def _schema_with(base: Config, key: str, parameter: Parameter) -> Config:
    """The schema that has a searched key, be it of a component that the search alone chooses. Raises UserError."""
    parents = {name: _options(value)[0] for name, value in parameter.when.items() if name.split(".")[0] in CHOSEN}
    searched = nested({key: None})
    schema = schema_of([to_dict(base), nested(parents), searched])[0]
    refuse_unknown_keys(searched, "space", schema)
    return schema


def _wrong(p: Parameter, number: type | None, sampler: str) -> str | None:
    """The mistakes of a parameter by itself; `number` is the type of its key, None where that is no number."""
    low, high = p.low, p.high
    if p.choices is not None:
        unfit = [c for c in p.choices if not (c is None or isinstance(c, bool | int | float | str))]
        rules = [
            (low is None and high is None and p.step is None and not p.log, "choices go without low, high, step, log"),
            (len(p.choices) >= 2, "choices must be two or more; a single value belongs into settings"),
            (not unfit, f"choices must be plain values, not {unfit[:1]}"),
            (len({repr(c) for c in p.choices}) == len(p.choices), "choices names a value twice"),
        ]
        return next((said for holds, said in rules if not holds), None)
    if low is None or high is None:
        return "give low and high, or choices"
    integers = all(v is None or float(v).is_integer() for v in (low, high, p.step))
    rules = [
        (number is not None, "the key takes no numbers: give choices"),
        (math.isfinite(low) and math.isfinite(high), f"low={low} and high={high} must be finite"),
        (low < high, f"low={low} is not below high={high}"),
        (not p.log or low > 0, f"log: true needs low above 0, not {low}: a logarithm has no zero"),
        (p.step is None or p.step > 0, f"step={p.step} must be above 0"),
        (not (p.log and p.step), "log goes without step"),
        (number is float or integers, f"the key takes integers: low={low}, high={high}, step={p.step}"),
        (
            sampler != "grid" or (p.step is not None or (number is int and not p.log)),
            "sampler.name=grid needs choices, or a step for the range",
        ),
    ]
    return next((said for holds, said in rules if not holds), None)


def _check_point(sweep: SweepConfig, base: Config, number: int, point: Mapping[str, Any]) -> None:
    for key, value in point.items():
        if key not in sweep.space:
            raise UserError(f"enqueue[{number}]: {key} is not in the space ({', '.join(sweep.space)}).")
        d = distribution(key, sweep.space[key])
        try:
            contained = compat.distribution_contains(d, value)
        except (ValueError, TypeError):
            contained = False
        if not contained:
            raise UserError(f"enqueue[{number}]: {key}={value} is outside the space.")
    with_values(base, point, f"enqueue[{number}]")


def as_dict(space: Space) -> dict[str, dict[str, Any]]:
    """The space as plain values, as the study stores it."""
    return {key: {k: v for k, v in asdict(space[key]).items() if k != "whole"} for key in sorted(space)}


def grew(old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]) -> bool:
    """Does the new space hold every point of the old one, by wider ranges or more parameters?

    Choices cannot grow: Optuna keeps a categorical parameter's choices for good.
    """

    def holds(a: dict[str, Any], b: dict[str, Any]) -> bool:
        same = all(a[name] == b[name] for name in ("step", "log", "choices", "when"))
        return same and (a["choices"] is not None or (b["low"] <= a["low"] and a["high"] <= b["high"]))

    return all(key in new and holds(parameter, new[key]) for key, parameter in old.items())


def shuffled_grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """The grid in an order that covers it evenly when it is cut short."""
    points = grid(space)
    return [points[i] for i in np.random.default_rng(seed).permutation(len(points))]
