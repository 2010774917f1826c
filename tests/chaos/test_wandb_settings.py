"""W&B settings that W&B is known to refuse are refused before training, with the other keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.common.errors import UserError
from research.config.load import load_config
from research.tracking.run import Run
from research.tracking.sync import has_arrived, sync


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (f"wandb.tags=[ok,{'x' * 65}]", "must have tags of 1 to 64 characters each"),
        ("wandb.tags=['']", "must have tags of 1 to 64 characters each"),
        ("wandb.project=a/b", "must have 1 to 128 characters, none of them"),
        ("wandb.project=a?b", "must have 1 to 128 characters, none of them"),
        (f"wandb.project={'x' * 129}", "must have 1 to 128 characters"),
        ("wandb.project=", "must have 1 to 128 characters"),
        (f"wandb.name={'x' * 129}", "must have 1 to 128 characters, or be null"),
        ("wandb.entity=a/b", "must be the name of a user or team"),
    ],
)
def test_refused_before_training(override: str, said: str, experiment: Path) -> None:
    with pytest.raises(UserError, match=said):
        load_config(experiment, [override])


@pytest.mark.slow
def test_longest_settings_are_taken_by_wandb_too(experiment: Path) -> None:
    import wandb

    tags, project, group = ["x" * 64, "y"], "p" * 128, "g" * 128
    config = load_config(
        experiment, [f"wandb.tags=[{','.join(tags)}]", f"wandb.project={project}", f"wandb.group={group}"]
    )
    settings = wandb.Settings(
        project=config.wandb.project, run_tags=tuple(config.wandb.tags), run_group=config.wandb.group
    )
    assert settings.project == project
    with pytest.raises(Exception, match="exceeded 128 characters"):
        wandb.Settings(project=project + "p")
    with pytest.raises(Exception, match="between 1 and 64"):
        wandb.Settings(run_tags=("x" * 65,))


def test_sync_of_a_run_without_the_log_it_asked_for_fails(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.tracking.sync.complete", lambda run: None)  # as when W&B refuses the settings
    outcomes: dict[Path, str] = {}
    for mode in ("offline", "online", "disabled"):
        config = load_config(experiment, [f"run_dir={tmp_path / mode}", f"wandb.mode={mode}"])
        run = Run.open(config)
        run.close()
        started = sync([run.path], timeout_seconds=5, attempts=1, workers=1)[run.path]
        assert started == "nothing to send: it has not trained yet" and has_arrived(started)
        (run.path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
        outcomes |= sync([tmp_path / mode], timeout_seconds=5, attempts=1, workers=1)
    said = {path.name: outcome for path, outcome in outcomes.items()}
    assert said["offline"].startswith("failed: wandb.mode=offline, but there is no W&B log")
    assert said["online"].startswith("failed: wandb.mode=online, but there is no W&B log")
    assert said["disabled"] == "nothing to send: wandb.mode=disabled"
    assert [has_arrived(said[mode]) for mode in ("offline", "online", "disabled")] == [False, False, True]
