"""The sweep file: what is searched, by which method, for how long and where; typed and strict like an experiment.

Read by the same rules as an experiment (`research.config`): `key=value` of the command line wins, unknown keys and
impossible values are refused with what is allowed. Nothing here imports torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, OmegaConf

from research.common.errors import UserError
from research.config import component
from research.config.load import (
    Layer,
    combined,
    in_long_form,
    load_config,
    merge,
    refuse_unknown_keys,
)
from research.config.parse import parse_override, read_yaml, typed
from research.config.schema import Config
from research.config.tree import ONE_OF, SOME_OF, check, nested, sections, to_dict

SECTIONS = {name for name, section in sections(Config()).items() if section is not None}
CHOSEN = (*ONE_OF, *SOME_OF)  # sections whose keys are those of the components that the experiment chooses


@dataclass
class Parameter:
    """A key of the experiment that is searched, by a range or by choices; an integer key takes integers."""

    low: float | None = None
    high: float | None = None  # inclusive
    step: float | None = None
    log: bool = False
    choices: list[Any] | None = None
    when: dict[str, Any] = field(default_factory=dict)  # other key of the space: the value or values it must have
    whole: bool | None = None  # takes integers; null: as the key's type says


@dataclass
class SamplerConfig:
    name: Literal["tpe", "random", "gp", "cma-es", "qmc", "grid"] = "tpe"
    seed: int = 0
    startup_trials: int = 10  # random ones before tpe, gp and cma-es learn from what they see


@dataclass
class PrunerConfig:
    name: Literal["none", "median", "asha", "hyperband", "wilcoxon"] = "none"
    min_steps: int | None = None  # no trial is cut before; never less than the largest warmup of the space
    reduction_factor: int = 3  # asha, hyperband: one in so many trials continues
    startup_trials: int = 5  # median: complete trials before any is pruned
    p_threshold: float = 0.1  # wilcoxon


@dataclass
class BudgetConfig:
    """The search ends with the first of these; trials under way are finished."""

    trials: int | None = None
    hours: float | None = None  # since the first trial began
    device_hours: float | None = None


@dataclass
class StorageConfig:
    url: str | None = None  # null: journal.log in the sweep's folder; another file; postgresql://user@host/name
    wait_seconds: float = 300.0  # for a storage that does not answer
    lock_seconds: int = 30  # after which a lock on the journal is taken from a worker that died with it
    heartbeat_seconds: float = 15.0
    dead_after_seconds: float = 60.0  # without a heartbeat, on another machine


@dataclass
class SweepConfig:
    experiment: str = MISSING  # YAML file
    name: str | None = None  # null: the file's
    folder: str | None = None  # null: runs/sweeps/<name>
    settings: dict[str, Any] = field(default_factory=dict)  # keys of the experiment, for all trials
    metric: str | None = None  # of the validation data; null: what chooses the best checkpoint
    direction: Literal["maximize", "minimize"] | None = None  # null: the metric's own; no other is taken
    space: dict[str, Parameter] = field(default_factory=dict)  # key of the experiment: what it may be
    enqueue: list[dict[str, Any]] = field(default_factory=list)  # parameters of the first trials
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    pruner: PrunerConfig = field(default_factory=PrunerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    seeds: list[int] = field(default_factory=lambda: [0])  # of each trial, whose score is the mean over them
    storage: StorageConfig = field(default_factory=StorageConfig)
    keep_models: int = 1  # weights of the best so many trials
    stop_after_failures: int = 3  # of one kind
    stop_after_deaths: int = 5  # of workers on one trial, without a new checkpoint in between


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep file, or that of a sweep's folder, and check all of it that needs no data.

    Raises UserError with the mistakes found, each with the file or argument that has it.
    """
    path = Path(path)
    path = path / "sweep.yaml" if path.is_dir() else path
    layers = [(str(path), read_yaml(path, what="sweep"))]
    layers += [(origin, typed(content, SweepConfig(), origin)) for origin, content in map(parse_override, overrides)]
    merged = OmegaConf.structured(SweepConfig)
    for origin, content in layers:
        merged = merge(merged, _flattened(content, origin), origin)
    if OmegaConf.missing_keys(merged):
        raise UserError(f"{path} does not say experiment; add the YAML file whose keys are searched.")
    sweep: SweepConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
    _complete_paths_and_name(sweep, path)
    _check(sweep, str(path))
    return sweep


def is_sweep(path: str | Path) -> bool:
    """Is this a sweep file or a sweep's folder, not an experiment?"""
    path = Path(path)
    return (path / "sweep.yaml").is_file() if path.is_dir() else "space" in read_yaml(path)


def _flattened(content: dict[str, Any], origin: str) -> dict[str, Any]:
    """The content with dotted keys of the experiment in space, settings and enqueue, each of them known."""
    refuse_unknown_keys(content, origin, SweepConfig())
    flat = dict(content)
    for name in ("space", "settings"):
        if name in content:
            flat[name] = _experiment_keys(content[name], origin, name)
    if isinstance(content.get("enqueue"), list):
        flat["enqueue"] = [_experiment_keys(point, origin, "enqueue") for point in content["enqueue"]]
    for key, parameter in flat.get("space", {}).items():
        if not isinstance(parameter, dict):
            forms = "{low: ..., high: ...} or {choices: [...]}"
            raise UserError(f"{origin}: space.{key} is {parameter!r}; write {forms}.")
        refuse_unknown_keys(parameter, origin, Parameter(), f"space.{key}.")
        if "when" in parameter:
            parameter["when"] = _experiment_keys(parameter["when"], origin, f"space.{key}.when")
    return flat


def _experiment_keys(content: Any, origin: str, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{origin}: '{where}' holds keys of the experiment, not {content!r}.")
    flat = dict(_flat(content))
    for key in flat:
        if key.split(".")[0] not in CHOSEN:  # those are checked with the experiment
            refuse_unknown_keys(nested({key: {} if key in SECTIONS else None}), f"{origin}, {where}", Config())
    return flat


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"optim": {"lr": 1}} and {"optim.lr": 1} -> ("optim.lr", 1)."""
    for key, value in content.items():
        full = f"{prefix}{key}"
        is_component = full.split(".")[0] in SOME_OF and full.count(".") == 1  # methods.r_drop
        if (full in SECTIONS or is_component) and isinstance(value, Mapping):
            yield from _flat(value, f"{full}.")
        else:
            yield full, value


def _complete_paths_and_name(sweep: SweepConfig, path: Path) -> None:
    """Fill in what the file's place says: absolute paths and the sweep's name."""
    candidates = [base / sweep.experiment for base in (Path.cwd(), path.resolve().parent)]
    sweep.experiment = str(next((c.resolve() for c in candidates if c.is_file()), candidates[0]))
    sweep.name = sweep.name or path.stem
    sweep.folder = os.path.abspath(sweep.folder or Path("runs") / "sweeps" / sweep.name)
    url = sweep.storage.url or str(Path(sweep.folder) / "journal.log")
    sweep.storage.url = url if "://" in url else os.path.abspath(url)


def _check(sweep: SweepConfig, origin: str) -> None:
    """Raise UserError with every impossible value at once."""
    b, s, p = sweep.budget, sweep.storage, sweep.pruner
    too_few = p.name == "wilcoxon" and 0.5 ** len(sweep.seeds) >= p.p_threshold
    ends, grid = any((b.trials, b.hours, b.device_hours)), sweep.sampler.name == "grid"
    rules: list[tuple[bool, str, Any, str]] = [
        (bool(sweep.space), "space", {}, "must name at least one key of the experiment"),
        (len(sweep.seeds) >= 1, "seeds", sweep.seeds, "must name at least one seed"),
        (len(set(sweep.seeds)) == len(sweep.seeds), "seeds", sweep.seeds, "names a seed twice"),
        (all(0 <= seed < 2**32 for seed in sweep.seeds), "seeds", sweep.seeds, "must be from 0 below 2**32"),
        (0 <= sweep.sampler.seed < 2**32, "sampler.seed", sweep.sampler.seed, "must be from 0 below 2**32"),
        (p.reduction_factor >= 2, "pruner.reduction_factor", p.reduction_factor, "must be at least 2"),
        (0 < p.p_threshold < 1, "pruner.p_threshold", p.p_threshold, "must be between 0 and 1"),
        (not too_few, "seeds", sweep.seeds, f"are too few for pruner.name=wilcoxon (p < {p.p_threshold}): add seeds"),
        (ends or grid, "budget", {}, "must say trials, hours or device_hours"),
        (
            s.dead_after_seconds >= 2 * s.heartbeat_seconds,
            "storage.dead_after_seconds",
            s.dead_after_seconds,
            "must be at least twice storage.heartbeat_seconds",
        ),
        (
            not (grid and sweep.enqueue),
            "enqueue",
            sweep.enqueue,
            "goes without sampler.name=grid, which has every point already",
        ),
    ]
    positive = {
        "budget.trials": b.trials,
        "budget.hours": b.hours,
        "budget.device_hours": b.device_hours,
        "pruner.min_steps": p.min_steps,
        "storage.wait_seconds": s.wait_seconds,
        "storage.lock_seconds": s.lock_seconds,
        "storage.heartbeat_seconds": s.heartbeat_seconds,
        "stop_after_failures": sweep.stop_after_failures,
        "stop_after_deaths": sweep.stop_after_deaths,
    }
    rules += [(v is None or 0 < v < math.inf, key, v, "must be above 0") for key, v in positive.items()]
    rules += [(sweep.keep_models >= 0, "keep_models", sweep.keep_models, "must be 0 or more")]
    wrong = [f"{key}={value} {rule}" for holds, key, value, rule in rules if not holds]
    if wrong:
        raise UserError(f"{origin}: " + "; ".join(wrong) + ".")


def base_config(sweep: SweepConfig) -> Config:
    """The experiment with the sweep's settings: what all trials share."""
    values = {**sweep.settings, "run_dir": sweep.folder}
    config = load_config(sweep.experiment, values=values, given_by="settings")
    if config.data.validation is None and config.data.shots is None:
        raise UserError(f"{sweep.experiment} names no data.validation, by whose scores trials are compared; add it.")
    return config


def searched_config(sweep: SweepConfig) -> Config:
    """The settings all trials share, with the searched metric choosing the best checkpoint."""
    base = base_config(sweep)
    own = component.class_attribute("task", base.task.name, "Module", "monitor")
    base.trainer.monitor = sweep.metric or base.trainer.monitor or own
    return base


def with_values(base: Config, values: Mapping[str, Any], origin: str) -> Config:
    """The config with other values of some dotted keys, all of it checked."""
    other = in_long_form(nested(values), origin, Path.cwd())
    config = combined([Layer(origin, to_dict(base)), Layer(origin, other)], origin)
    check(config, origin)
    return config


def trial_config(sweep: SweepConfig, base: Config, number: int, values: Mapping[str, Any], seed: int) -> Config:
    """The config of one run of a trial, as `research train` would take it."""
    folder = trial_folder(sweep, number) / f"seed{seed}"
    own = {
        "seed": seed,
        "run_dir": str(folder),
        "wandb.group": base.wandb.group or sweep.name,
        "wandb.name": f"{sweep.name}/{number:04d}/seed{seed}",
    }
    return with_values(base, {**values, **own}, f"trial {number}")


def trial_folder(sweep: SweepConfig, number: int) -> Path:
    return Path(str(sweep.folder)) / "trials" / f"{number:04d}"


def to_yaml(sweep: SweepConfig) -> str:
    """The resolved sweep file; `load_sweep` reads it."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(sweep)))
