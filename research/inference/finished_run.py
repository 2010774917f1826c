"""What a finished run must be to be evaluated or to predict; nothing here imports torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.config.load import completed
from research.config.schema import Config
from research.data.parallel_files import parallel_files
from research.data.source import file_sha256, missing_file, sliced
from research.data.split import share_of
from research.tracking.run import Run


def refuse_evaluation(run: Run, split: str) -> None:
    """Raise UserError for a run that is not finished, a split it has not, and a file that is gone."""
    finished_result(run)
    data = completed(run.stored_config, str(run.path))["data"]
    refuse_other_split(run, _split_names(data), split)
    value = data["train"] if share_of(data[split]) is not None or not data[split] else data[split]
    name = sliced(str(value))[0]
    for path in map(Path, (name,) if Path(name).exists() else parallel_files(name) or (name,)):
        if data["name"] is None and not path.exists():
            raise UserError(missing_file(path))


def refuse_prediction(run: Run, source: str | None) -> None:
    """Raise UserError for a run that is not finished or of several tasks, and for new text whose file is not there."""
    finished_result(run)
    refuse_several(run)
    if source not in (None, "-") and not Path(str(source)).exists():
        raise UserError(missing_file(Path(str(source))))


def refuse_several(run: Run) -> None:
    """Raise UserError for a run of several tasks, which names the runs of each."""
    if run.parts:
        said = ", ".join(map(str, run.parts.values()))
        raise UserError(f"{run.path} is of several tasks; name the run of one of them: {said}.")


def refuse_unknown_split(run: Run, config: Config, split: str) -> None:
    """Raise UserError for a split that the run was not given."""
    refuse_other_split(run, _split_names(asdict(config.data)), split)


def _split_names(data: dict[str, Any]) -> list[str]:
    """The splits that a `data` section names, or has cut from its training data."""
    drawn = {"test": data["folds"], "validation": data["shots"]}
    return [name for name in ("train", "validation", "test") if data[name] or drawn.get(name)]


def refuse_other_split(run: Run, names: list[str], split: str) -> None:
    if split not in names:
        raise UserError(f"The run {run.path} has no split '{split}'; it has {', '.join(names)}.")


def refuse_changed_model(run: Run) -> None:
    """Raise UserError unless each file of `model/` is the one that training exported."""
    recorded = finished_result(run).get("files") or {}
    changed = [name for name in recorded if name.startswith("model/") and not is_intact(run, name)]
    if changed:
        raise UserError(
            f"{run.path / changed[0]} is missing or not the file that training wrote (its sha256 differs from that "
            "in result.json); restore the folder, or train again."
        )


def is_intact(run: Run, name: str) -> bool:
    """Whether a file of the run is the one whose hash its result records."""
    path, recorded = run.path / name, (finished_result(run).get("files") or {}).get(name)
    return path.is_file() and recorded is not None and file_sha256(path) == recorded


def finished_result(run: Run) -> dict[str, Any]:
    """The result of a finished run. Raises UserError for one that is not finished."""
    result = run.result
    if result is None:
        raise UserError(f"The run {run.path} is not finished; run its training command again to finish it.")
    if missing := sorted({"task", "metrics", "learned"} - set(result)):
        raise UserError(f"{run.path / 'result.json'} is damaged: it lacks {', '.join(missing)}.")
    return result
