"""Whole searches by the real command on tiny models: what they leave, and that a trial is the run it claims to be."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from research.cli import main
from research.config.load import load_config
from research.sweep.study import Search, read_search
from research.sweep.sweepfile import load_sweep
from research.tracking.run import Run
from research.training.module import TaskModule
from tests.attempts import attempt
from tests.sweep.conftest import MakeSweep

pytestmark = pytest.mark.slow
ASHA = {"name": "asha", "reduction_factor": 2}


def search_of(path: Path) -> Search:
    return read_search(load_sweep(path))


def rows_of(search: Search) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(search.folder / "trials.parquet").to_pylist()
    return rows


def run_of(search: Search, number: int, seed: int = 0) -> Run:
    return Run.read(search.folder / "trials" / f"{number:04d}" / f"seed{seed}")


def sha256(run: Run) -> str:
    return hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()


def test_each_trial_is_bit_equal_to_the_same_run_by_train(make_sweep: MakeSweep, tmp_path: Path) -> None:
    """Also those that share data and weights with the trials before them."""
    path = make_sweep(keep_models=3, seeds=[0, 5], budget={"trials": 2})
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    for number, seed in ((1, 0), (1, 5)):
        run = run_of(search, number, seed)
        other = tmp_path / f"{number}-{seed}"
        code, output = attempt(["train", str(run.path / "config.yaml"), f"run_dir={other}"], tmp_path / "log")
        assert code == 0, output
        same = Run.read(other)
        assert sha256(same) == sha256(run)
        assert (same.result or {})["metrics"] == (run.result or {})["metrics"]
        tables = [pq.read_table(r.predictions / "validation.parquet") for r in (same, run)]
        assert tables[0].equals(tables[1])
    first, last = (run_of(search, n).config.optim.lr for n in (0, 1))
    assert first != last


def test_what_a_search_leaves(make_sweep: MakeSweep, tmp_path: Path) -> None:
    path = make_sweep(seeds=[0, 5])
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    rows = rows_of(search)
    assert [row["number"] for row in rows] == [0, 1, 2] and {row["state"] for row in rows} == {"complete"}
    for row in rows:
        runs = [run_of(search, row["number"], seed) for seed in (0, 5)]
        scores = [(run.result or {})["metrics"]["validation"]["accuracy"] for run in runs]
        assert row["scores"] == scores and row["score"] == pytest.approx(sum(scores) / 2)
        assert row["seeds"] == [0, 5] and row["steps"] == 20 and row["device_hours"] > 0
        assert [search.folder / place for place in row["runs"]] == [run.path for run in runs]
        assert runs[0].config.optim.lr == row["optim.lr"] and runs[0].config.wandb.group == "tiny"
        assert not any((run.path / "checkpoints").exists() for run in runs)
    top = max(rows, key=lambda row: (row["score"], -row["number"]))
    for row in rows:
        assert (run_of(search, row["number"]).path / "model").exists() is (row["number"] == top["number"])
    pdfs = {file.name: file.read_bytes()[:5] for file in search.folder.glob("*.pdf")}
    assert set(pdfs) >= {"best_so_far.pdf", "sweep-tiny.pdf", "parallel_coordinates.pdf"}
    assert set(pdfs.values()) == {b"%PDF-"}

    best = load_config(search.folder / "best.yaml")
    assert (best.optim.lr, best.optim.warmup_ratio) == (top["optim.lr"], top["optim.warmup_ratio"])
    assert main(["train", str(search.folder / "best.yaml"), f"run_dir={tmp_path / 'best'}"]) == 0
    result = Run.read(tmp_path / "best").result or {}
    assert result["metrics"]["validation"]["accuracy"] == top["scores"][0]


def cut_by_successive_halving(trials: list[FrozenTrial], rungs: tuple[int, ...]) -> dict[int, int]:
    """Which trials, run one after another, end where: at each rung the better half continues (Li et al. 2020)."""
    seen: dict[int, list[float]] = {rung: [] for rung in rungs}
    cut = {}
    for trial in trials:
        for rung in rungs:
            value = trial.intermediate_values[rung]
            seen[rung].append(value)
            if value > sorted(seen[rung])[max(0, len(seen[rung]) // 2 - 1)]:
                cut[trial.number] = rung
                break
    return cut


def test_pruned_trials(make_sweep: MakeSweep) -> None:
    path = make_sweep(pruner=ASHA, budget={"trials": 8}, metric="calibration_error")
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    pruned = [t for t in search.trials() if t.state == TrialState.PRUNED]
    assert {t.number: t.last_step for t in pruned} == cut_by_successive_halving(search.trials(), rungs=(3, 6))
    assert 1 <= len(pruned) <= 7
    for trial in search.trials():
        assert not trial.intermediate_values or min(trial.intermediate_values) >= 3  # int(0.3 * 10 steps)
        assert set(trial.intermediate_values) <= {3, 6, 9}
    rows = rows_of(search)
    for trial in pruned:
        run, step = run_of(search, trial.number), trial.last_step
        outcome = run.outcome or {}
        assert run.result is None and outcome["state"] == "pruned" and outcome["step"] == step
        assert outcome["cost"]["device_hours"] > 0 and outcome["cost"]["flops"] > 0
        assert not run.checkpoints.exists() and not run.model.exists()
        reason = rows[trial.number]["reason"]
        assert reason == outcome["reason"] == trial.user_attrs["pruned"]["reason"]
        value = trial.intermediate_values[step or 0]
        reported = [t.intermediate_values for t in search.trials()[: trial.number + 1]]
        seen = [values[step] for values in reported if step in values]
        least = f"the best of {len(seen)} there is {min(seen):.4f}"
        assert reason == f"asha at step {step}: calibration_error {value:.4f}, {least}"
        assert rows[trial.number]["steps"] == step and trial.value == value
        logged = [row for row in run.metrics() if "train/lr" in row]
        warmup = int(trial.params["optim.warmup_ratio"] * 10)  # of the whole run: its length is not cut
        expected = [min(s / warmup if warmup else 1, (10 - s) / (10 - warmup)) for s in range(step or 0)]
        assert [row["train/lr"] / trial.params["optim.lr"] for row in logged] == pytest.approx(expected)


def test_a_verdict_outlives_the_worker_that_heard_it(make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the pruner's answer and before the run ended: the next worker ends it there."""
    from research.sweep import pruning
    from research.sweep import trial as trials

    path = make_sweep(pruner={"name": "median", "startup_trials": 1}, budget={"trials": 2}, metric="loss")
    path.write_text(path.read_text().replace('"name": "random"', '"name": "grid"'))
    content = json.loads(path.read_text())
    content["space"] = {"optim.lr": {"choices": [1e-9, 1.0]}}
    content["sampler"] = {"name": "grid", "seed": 1}
    path.write_text(json.dumps(content))

    def dies(*arguments: Any, **keys: Any) -> str | None:
        answer = real(*arguments, **keys)
        if answer is not None:
            raise SystemExit(9)
        return answer

    real = pruning.verdict
    with monkeypatch.context() as patched:
        patched.setattr(pruning, "verdict", dies)
        patched.setattr(trials, "verdict", dies)
        with pytest.raises(SystemExit):
            main(["sweep", str(path)])
    search = search_of(path)
    assert [t.state for t in search.trials()] == [TrialState.COMPLETE, TrialState.WAITING]
    decided = search.trials()[1].user_attrs["pruned"]
    asked: list[int] = []
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda self: asked.append(1) or False)
    assert main(["sweep", str(path)]) == 0
    again = search_of(path).trials()[1]
    assert again.state == TrialState.PRUNED and again.user_attrs["pruned"] == decided and not asked
    assert (run_of(search, 1).outcome or {})["step"] == decided["step"]


def test_wilcoxon_compares_seed_by_seed(make_sweep: MakeSweep) -> None:
    seeds = list(range(5))
    path = make_sweep(
        pruner={"name": "wilcoxon", "p_threshold": 0.2}, seeds=seeds, metric="loss",
        space={"optim.lr": {"choices": [1e-9, 1.0]}}, sampler={"name": "grid", "seed": 0}, budget={},
    )  # fmt: skip
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    by_lr = {t.params["optim.lr"]: t for t in search.trials()}
    good, bad = by_lr[1e-9], by_lr[1.0]
    assert good.state == TrialState.COMPLETE and sorted(good.intermediate_values) == seeds
    if good.number < bad.number:
        assert bad.state == TrialState.PRUNED and 2 <= (bad.last_step or 0) < 4
        assert bad.user_attrs["pruned"]["reason"].startswith(f"wilcoxon at seed {bad.last_step}: loss")


def test_conditional_parameters_reach_the_runs_they_are_for(make_sweep: MakeSweep) -> None:
    space = {
        "optim.schedule": {"choices": ["linear", "constant"]},
        "optim.warmup_ratio": {"choices": [0.1, 0.2], "when": {"optim.schedule": "linear"}},
    }
    path = make_sweep(space=space, sampler={"name": "grid"}, budget={}, settings={"optim": {"max_steps": 3}})
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    configs = [run_of(search, n).config.optim for n in range(3)]
    assert sorted((c.schedule, c.warmup_ratio) for c in configs) == [
        ("constant", 0.1),
        ("linear", 0.1),
        ("linear", 0.2),
    ]
    assert [row["optim.warmup_ratio"] is None for row in rows_of(search)] == [c.schedule == "constant" for c in configs]


def test_a_search_over_the_rank_of_an_adapter(make_sweep: MakeSweep) -> None:
    """The matrices of 4 layers of width 128 have 2 x 128 weights more for each rank."""
    settings = {"adapter": "lora", "optim": {"max_steps": 2}}
    space = {"adapter.rank": {"choices": [1, 4]}}
    path = make_sweep(space=space, sampler={"name": "grid"}, budget={}, settings=settings)
    assert main(["sweep", str(path)]) == 0
    runs = [run_of(search_of(path), n) for n in range(2)]
    trained = {run.config.adapter.rank: (run.result or {})["trained_parameters"] for run in runs}
    assert trained[4] - trained[1] == 3 * 4 * 2 * 128
    ranks = [json.loads((run.path / "adapter" / "adapter_config.json").read_text())["r"] for run in runs]
    assert sorted(ranks) == sorted(trained) == [1, 4]


def test_a_trial_that_diverges_fails_and_the_search_goes_on(
    make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"optim.lr": {"choices": [1e30, 1e-3]}, "optim.warmup_ratio": {"choices": [0.0, 0.1]}}
    path = make_sweep(space=space, sampler={"name": "grid", "seed": 2}, budget={})
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    failed = [t for t in search.trials() if t.state == TrialState.FAIL]
    assert len(search.trials()) == 4 and {t.params["optim.lr"] for t in failed} == {1e30} and len(failed) == 2
    for trial in failed:
        note = trial.user_attrs["failed"]
        assert note["kind"] == "diverged" and " at step " in note["reason"]
        outcome = run_of(search, trial.number).outcome or {}
        assert outcome["state"] == "failed" and outcome["reason"] == note["reason"]
        assert rows_of(search)[trial.number]["reason"] == note["reason"]
    assert "failed (diverged)" in " ".join(capsys.readouterr().err.split())


def test_three_failures_of_a_kind_stop_it(make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(space={"optim.lr": {"low": 1e25, "high": 1e30, "log": True}}, budget={"trials": 9})
    assert main(["sweep", str(path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "3 trials failed alike (diverged), so the search stops. The last one: " in said
    assert len(search_of(path).trials()) == 3
    assert main(["sweep", str(path)]) == 2 and len(search_of(path).trials()) == 3


def test_out_of_memory(make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TaskModule.training_step

    def step(self: TaskModule, item: Any, batch_idx: int) -> None:
        if self.config.optim.lr > 1e-3:
            raise torch.OutOfMemoryError("Tried to allocate 5 TiB")
        real(self, item, batch_idx)

    monkeypatch.setattr(TaskModule, "training_step", step)
    space = {"optim.lr": {"choices": [1e-2, 1e-4]}}
    path = make_sweep(space=space, sampler={"name": "grid"}, budget={})
    assert main(["sweep", str(path)]) == 0
    states = {t.params["optim.lr"]: (t.state.name, t.user_attrs.get("failed")) for t in search_of(path).trials()}
    assert states[1e-4] == ("COMPLETE", None)
    assert states[1e-2][0] == "FAIL" and states[1e-2][1]["kind"] == "out of memory"
    assert "5 TiB" in states[1e-2][1]["reason"]


def test_a_full_disk_is_not_the_trials_fault(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(tensors: Any, path: Path, metadata: Any) -> None:
        raise OSError(28, "No space left on device")

    path = make_sweep(budget={"trials": 1})
    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", full)
        assert main(["sweep", str(path)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [t.state for t in search_of(path).trials()] == [TrialState.WAITING]
    assert main(["sweep", str(path)]) == 0
    assert [t.state for t in search_of(path).trials()] == [TrialState.COMPLETE]


def test_a_trial_that_kills_its_workers_is_given_up(make_sweep: MakeSweep) -> None:
    """As when the kernel ends whoever runs it for its memory."""
    path = make_sweep(budget={"trials": 2}, stop_after_deaths=2)
    sweep = load_sweep(path)
    trials = Path(str(sweep.folder)) / "trials" / "0000"
    trials.mkdir(parents=True)
    for number in (1, 2):
        header = {"host": "here", "process": 1, "boot": None, "progress": ""}
        (trials / f"claim-{number}").write_text(json.dumps(header) + "\n")
    assert main(["sweep", str(path), "storage.dead_after_seconds=0.5"]) == 0
    first, second = search_of(path).trials()
    assert first.state == TrialState.FAIL and second.state == TrialState.COMPLETE
    assert first.user_attrs["failed"]["kind"] == "worker died"
    assert "2 workers in a row died" in first.user_attrs["failed"]["reason"]


def test_a_metric_the_task_does_not_report(make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep("ner", metric="bleu")
    assert main(["sweep", str(path)]) == 2
    said = capsys.readouterr().err
    assert "trainer.monitor=bleu is not a score of task ner; it reports f1, precision, recall" in said
    assert not (path.with_suffix("") / "journal.log").exists()
    assert main(["show", str(path)]) == 2


def test_a_mistake_in_the_space_is_reported_before_anything_runs(
    make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_sweep()
    for override, said in (
        ("space.optim.lr.low=1", "low=1.0 is not below high=0.01"),
        ("space.optim.lr.low=0", "needs low above 0"),
        ("space.optim.warmup_ratio.high=2", "warmup_ratio=2.0 must be in [0, 1]"),
        ("space.optim.rl.low=2", "unknown key 'optim.rl'"),
    ):
        assert main(["sweep", str(path), override]) == 2
        assert said in capsys.readouterr().err
    assert not path.with_suffix("").exists()


def test_status_and_show(make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(pruner=ASHA, budget={"trials": 2}, enqueue=[{"optim.lr": 1e-3}])
    assert main(["sweep", "status", str(path)]) == 2
    assert "There is no sweep yet" in capsys.readouterr().err
    assert main(["sweep", "status"]) == 2

    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "space: optim.lr: 0.0001 to 0.01 (log)",
        "budget: 2 trials; 2 runs: 1 seed a trial",
        "run: 10 steps of the experiment, at most 10 in the space",
        "pruner: asha, at steps [3, 6, 9]; the largest warmup ends at step 3",
    ):
        assert line in shown
    assert re.search(r"cost: at most \d+\.\d\d device hours for 2 runs", shown)
    assert not path.with_suffix("").exists()

    assert main(["sweep", str(path)]) == 0
    capsys.readouterr()
    for target in (path, path.with_suffix("")):
        assert main(["sweep", "status", str(target)]) == 0
        reported = capsys.readouterr().err
        assert re.search(r"tiny: .*2 (complete|pruned)|tiny: 1 complete, 1 pruned", reported) and " of 2" in reported
        assert ("best: accuracy 0." in reported and "trial 0 (optim.lr=0.001" in reported) or "trial 1" in reported
    assert main(["sweep", str(path)]) == 0  # nothing is left: it says how it ended
    assert len(search_of(path).trials()) == 2


def test_a_search_of_something_else_is_refused(make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(budget={"trials": 1})
    assert main(["sweep", str(path)]) == 0
    capsys.readouterr()
    assert main(["sweep", str(path), "settings.optim.batch_size=5", "--resume-anyway"]) == 2
    assert "experiment.optim.batch_size: 4 -> 5" in capsys.readouterr().err
    assert main(["sweep", str(path), "space.optim.lr.high=0.1"]) == 2
    assert "add --resume-anyway" in capsys.readouterr().err
    assert main(["sweep", str(path), "space.optim.lr.high=0.1", "budget.trials=2", "--resume-anyway"]) == 0
    assert len(search_of(path).trials()) == 2


def test_a_pruner_that_will_never_act_is_reported(make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_sweep(pruner=ASHA, budget={"trials": 1}, settings={"optim": {"epochs": 1}})
    assert main(["sweep", str(path)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "pruner.name=asha will cut no trial: the largest warmup ends at step 3" in said


def test_each_trial_is_a_run_of_the_group_on_wandb(make_sweep: MakeSweep) -> None:
    from research.tracking.wandb_files import logs_of

    path = make_sweep(
        budget={"trials": 2}, settings={"optim": {"max_steps": 4}, "wandb": {"mode": "offline", "project": "p"}}
    )
    assert main(["sweep", str(path)]) == 0
    search = search_of(path)
    runs = [run_of(search, n) for n in range(2)]
    logs = [logs_of(run.path) for run in runs]
    assert [len(log) for log in logs] == [1, 1] and logs[0][0].run_id != logs[1][0].run_id
    assert all(log[0].exit_code == 0 and log[0].project == "p" for log in logs)
    assert [run.config.wandb.name for run in runs] == ["tiny/0000/seed0", "tiny/0001/seed0"]
    shutil.rmtree(search.folder)
