"""Checks of an experiment's arguments that need no torch: a mistake is reported within a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from research.common.errors import UserError
from research.config import component
from research.config.schema import Config
from research.config.tree import to_dict
from research.data.parallel_files import parallel_files
from research.data.source import missing_file, sliced
from research.data.split import share_of, shares_asked
from research.metrics import metric_class
from research.metrics.score import LOSS, Score
from research.tracking.run import Run


def refuse_wrong_arguments(config: Config) -> None:
    """Raise UserError for files that are missing, an unknown monitor, and a run folder of another experiment."""
    refuse_wrong_experiment(config)
    Run(str(config.run_dir)).refuse_another_experiment(to_dict(config))


def refuse_wrong_experiment(config: Config) -> None:
    """Raise UserError for files that are missing, shares that cannot be, and an unknown monitor."""
    refuse_missing_files(config)
    metric = component.class_attribute("task", config.task.name, "Data", "metric")
    of_one = "." in (config.trainer.monitor or "")  # of several tasks, whose scores are known with their data
    if isinstance(metric, str) and not component.is_path(metric) and not of_one:
        refuse_unknown_monitor(config, metric_class(metric).scores_with(config.task))


def refuse_missing_files(config: Config) -> None:
    """Raise UserError where `data` names a local file that is not there, or shares that cannot be."""
    shares_asked(config.data)
    if config.data.name is not None:
        return
    for split in ("train", "validation", "test", "unlabelled"):
        value = getattr(config.data, split)
        if value is None or share_of(value) is not None:
            continue
        name = sliced(value)[0]
        for path in map(Path, (name,) if Path(name).exists() else parallel_files(name) or (name,)):
            if not path.exists():
                raise UserError(missing_file(path))


def refuse_unknown_monitor(config: Config, scores: Sequence[Score]) -> None:
    """Raise UserError unless one of a metric's scores is what `trainer.monitor` names."""
    names = [score.name for score in (*scores, LOSS)]
    monitor = config.trainer.monitor
    if monitor is not None and monitor.split("/")[0] not in names:
        raise UserError(
            f"trainer.monitor={monitor} is not a score of task {config.task.name}; it reports {', '.join(names)}."
        )
