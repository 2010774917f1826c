"""Grouping: what differs is found, seeds alone may differ inside a group, and nothing is dropped in silence."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from research.common.errors import UserError
from research.config.component import choose
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.settings import columns_of, distinct_texts, key_text, system_name, value_text
from research.report.statistics.summary import pools, summarise
from research.report.tables.scores import main_table

MakeRun = Callable[..., Path]


def test_what_differs_names_the_systems_and_what_does_not_is_constant(grid: Path) -> None:
    table = group_runs(read_records([grid]))
    assert table.by == ["optim.lr"]
    assert table.systems == [{"optim.lr": 3e-5}, {"optim.lr": 1e-4}]
    assert sorted(table.data_sets) == ["news", "reviews", "wiki"]
    assert {len(g.runs) for g in table.groups} == {5}
    assert [run.seed for run in table.groups[0].runs] == [0, 1, 2, 3, 4]
    assert table.constant["optim.batch_size"] == 32
    assert "optim.lr" not in table.constant and "seed" not in table.constant
    assert {g.data_set: g.metric for g in table.groups} == {"news": "f1", "reviews": "accuracy", "wiki": "f1"}


def test_a_methods_own_key_goes_by_the_methods_name_too() -> None:
    keys = ("optim.weight_decay", "adapter.name", "adapter.rank", "methods.r_drop.alpha", "methods.mixup.alpha")
    assert [key_text(key) for key in keys] == ["weight decay", "adapter", "rank", "r drop alpha", "mixup alpha"]


def test_several_methods_share_a_column(make_run: MakeRun, tmp_path: Path) -> None:
    """Which says those that a system has; one method alone has a column of its own."""
    own = {name: asdict(choose("method", name)) for name in ("fgm", "mixup", "ema")}
    for names in ((), ("fgm",), ("mixup",), ("fgm", "ema")):
        make_run(None, config={"methods": {name: own[name] for name in names}})
    table = group_runs(read_records([tmp_path]))
    shown = main_table(table, summarise(table, pools(table)[0]))
    assert list(shown.columns)[:2] == ["methods", "runs"]
    expected = ["none", "mixup alpha 0.4", "fgm epsilon 0.1", "fgm epsilon 0.1, ema decay 0.999"]
    assert sorted(row[0].text for row in shown.rows) == sorted(expected)
    assert sorted(group.system for group in table.groups) == sorted(["no methods", *expected[1:]])
    assert columns_of(["optim.lr", "methods.fgm.epsilon"]) == [
        ("lr", ["optim.lr"]), ("fgm epsilon", ["methods.fgm.epsilon"]),
    ]  # fmt: skip


def test_keys_that_only_one_adapter_or_method_has_do_not_name_the_others(make_run: MakeRun, tmp_path: Path) -> None:
    fgm: dict[str, Any] = {"fgm": asdict(choose("method", "fgm"))}
    for adapter, methods in (("full", {}), ("lora", {}), ("full", fgm)):
        make_run(None, config={"adapter": asdict(choose("adapter", adapter)), "methods": methods})
    table = group_runs(read_records([tmp_path]))
    assert table.by == ["adapter.name", "methods.fgm.epsilon"]
    names = ["adapter full, fgm epsilon none", "adapter full, fgm epsilon 0.1", "adapter lora, fgm epsilon none"]
    assert [group.system for group in table.groups] == names
    make_run(None, config={"adapter": {**asdict(choose("adapter", "lora")), "rank": 4}})
    table = group_runs(read_records([tmp_path]))
    names = ["adapter lora, rank 4, fgm epsilon none", "adapter lora, rank 8, fgm epsilon none"]
    assert table.by[:2] == ["adapter.name", "adapter.rank"] and [g.system for g in table.groups][2:] == names


def test_runs_that_begin_with_those_of_their_own_seeds_are_one_system(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(None, seed=seed, config={"model.name": f"runs/mlm/seed{seed}/model"})
        make_run(None, seed=seed, config={"model.name": "runs/one/seed0/model"})  # both with the same
    table = group_runs(read_records([tmp_path]))
    assert table.systems == [{"model.name": "runs/mlm"}, {"model.name": "runs/one/seed0/model"}]
    assert [[run.seed for run in each.runs] for each in table.groups] == [[0, 1], [0, 1]]


def test_settings_of_a_data_set_do_not_part_systems(make_run: MakeRun, tmp_path: Path) -> None:
    for data_set, epochs in (("news", 3.0), ("wiki", 5.0)):
        for rate in (1e-5, 2e-5):
            make_run(None, data_set=data_set, config={"optim.lr": rate, "optim.epochs": epochs})
    table = group_runs(read_records([tmp_path]))
    assert table.by == ["optim.lr"]
    assert table.by_data_set == {"news": {"optim.epochs": 3.0}, "wiki": {"optim.epochs": 5.0}}


def test_place_layout_and_logging_are_no_difference(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"trainer.devices": 1, "wandb.project": "x"})
    make_run("b", seed=1, config={"trainer.devices": 8, "wandb.project": "y"})
    table = group_runs(read_records([tmp_path]))
    assert table.by == ["model.name"] and len(table.groups) == 1


def test_a_group_that_differs_in_more_than_the_seed_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"optim.lr": 3e-5})
    make_run("b", seed=1, config={"optim.lr": 1e-4, "model.dropout": 0.2})
    message = (
        r"2 runs of encoder-a on reviews differ in more than the seed: model.dropout: none \| 0.2; "
        r"optim.lr: 3e-5 \| 1e-4. Group by"
    )
    with pytest.raises(UserError, match=message):
        group_runs(read_records([tmp_path]), by=["model.name"])


def test_a_group_on_other_training_data_or_weights_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a")
    edit(make_run("b", seed=1), "provenance.json", ("data", "train", "sha256"), "f" * 64)
    edit(tmp_path / "runs" / "b", "provenance.json", ("weights", "model.safetensors"), "e" * 64)
    with pytest.raises(
        UserError, match=r"the train examples: .* \(600\) \| ffffffffffff… \(600\); the pretrained weights"
    ):
        group_runs(read_records([tmp_path]))


def test_the_same_seed_twice_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", seed=1)
    make_run("b", seed=1)
    with pytest.raises(
        UserError, match=r"a and .*b are the same run twice \(seed 1, encoder-a on reviews\); leave one"
    ):
        group_runs(read_records([tmp_path]))


def test_split_seeds_make_different_runs(make_run: MakeRun, tmp_path: Path) -> None:
    for init in (0, 1):
        for order in (0, 1):
            make_run(f"{init}{order}", config={"seed_init": init, "seed_order": order})
    table = group_runs(read_records([tmp_path]))
    assert [len(g.runs) for g in table.groups] == [4]


def test_failed_pruned_unfinished_and_missing_runs_are_kept_in_view(make_run: MakeRun, tmp_path: Path) -> None:
    for rate in (1e-5, 2e-5):
        for seed in range(4):
            state = {(2e-5, 1): "failed", (2e-5, 2): "pruned"}.get((rate, seed), "finished")
            if (rate, seed) != (2e-5, 3):
                make_run(None, seed=seed, status=state, config={"optim.lr": rate})
    small, large = group_runs(read_records([tmp_path])).groups
    assert (len(small.runs), small.others, small.missing) == (4, [], [])
    assert [run.seed for run in large.runs] == [0]
    assert [run.status for run in large.others] == ["failed", "pruned"]
    assert large.missing == [3]


def test_different_test_sets_of_one_name_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"optim.lr": 1e-5})
    edit(make_run("b", config={"optim.lr": 2e-5}), "provenance.json", ("data", "test", "sha256"), "d" * 64)
    with pytest.raises(UserError, match=r"were scored on different test examples of 'reviews' \(60 and 60 examples"):
        group_runs(read_records([tmp_path]))


def test_different_tasks_on_one_data_set_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", task="sentiment", config={"optim.lr": 1e-5})
    make_run("b", task="ner", config={"optim.lr": 2e-5})
    with pytest.raises(UserError, match=r"is a run of task classification and .* one of task ner, both on 'reviews'"):
        group_runs(read_records([tmp_path]))


def test_tasks_of_one_metric_are_systems_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    """Fine-tuning beside SetFit, say: by default the task tells them apart, and it is their name."""
    for seed in (0, 1):
        own, other = make_run(f"a{seed}", seed=seed), make_run(f"b{seed}", seed=seed, quality=0.7)
        (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("sentiment", "setfit"))
        for run in (own, other):
            edit(run, "result.json", ("metric",), {"name": "classification", "scores": []})
    grid = group_runs(read_records([tmp_path]))
    assert [g.system for g in grid.groups] == ["classification", "setfit"]
    assert [(list(g.settings), len(g.runs)) for g in grid.groups] == [(["task.name"], 2)] * 2


def test_one_system_with_and_one_without_test_data_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"optim.lr": 1e-5})
    make_run("b", splits=("validation",), config={"optim.lr": 2e-5})
    with pytest.raises(UserError, match=r"a was scored on its test data and .*b on its validation data"):
        group_runs(read_records([tmp_path]))


def test_no_finished_run_is_reported_with_what_there_is(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", status="unfinished")
    make_run("b", seed=1, status="failed")
    with pytest.raises(UserError, match=r"None of the runs is finished \(1 unfinished, 1 failed\)"):
        group_runs(read_records([tmp_path]))


def test_an_unknown_key_names_the_nearest(grid: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be grouped by 'optim.rl'.*Did you mean optim.lr\?"):
        group_runs(read_records([grid]), by=["optim.rl"])


@pytest.mark.slow
def test_a_metric_that_a_run_lacks_is_reported_with_those_it_has(grid: Path) -> None:
    table = group_runs(read_records([grid]), metric="exact_match")
    reviews = next(g for g in table.groups if g.data_set == "reviews")
    with pytest.raises(UserError, match=r"has no test score 'exact_match'; it has accuracy, f1, precision"):
        reviews.scores("test")


def test_trials_stand_beside_the_table_unless_alone(make_run: MakeRun, tmp_path: Path) -> None:
    for number, quality in enumerate((0.6, 0.95, 0.7)):
        for seed in (0, 1):
            where = f"sweeps/lr/trials/{number:04d}/seed{seed}"
            make_run(where, seed=seed, quality=quality, config={"optim.lr": 1e-5 * (number + 1)})
    (tmp_path / "runs" / "sweeps" / "lr" / "sweep.yaml").write_text("sampler: random\n")
    best = group_runs(read_records([tmp_path]))
    assert [run.path.parent.name for g in best.groups for run in g.runs] == ["0001", "0001"]
    make_run("final", config={"optim.lr": 2e-5})
    assert [run.path.name for g in group_runs(read_records([tmp_path])).groups for run in g.runs] == ["final"]


def test_each_setting_of_a_sweep_over_lists_of_values_is_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    for number, (schedule, quality) in enumerate(
        (("linear", 0.6), ("cosine", 0.9), ("linear", 0.8))
    ):  # one drawn twice
        make_run(f"sweeps/s/trials/{number:04d}/seed0", quality=quality, config={"optim.schedule": schedule})
    sweep = tmp_path / "runs" / "sweeps" / "s" / "sweep.yaml"
    sweep.write_text("space: {optim.schedule: {choices: [linear, cosine]}}\n")
    table = group_runs(read_records([tmp_path]))
    assert table.by == ["optim.schedule"]
    assert [[run.path.parent.name for run in g.runs] for g in table.groups] == [["0001"], ["0000"]]
    sweep.write_text("space: {optim.schedule: {choices: [linear, cosine]}, optim.lr: {low: 0.1, high: 0.2}}\n")
    assert [run.path.parent.name for g in group_runs(read_records([tmp_path])).groups for run in g.runs] == ["0001"]


def test_the_best_trial_of_a_minimised_score_has_the_smallest(make_run: MakeRun, tmp_path: Path) -> None:
    for number, error in enumerate((0.3, 0.1, 0.2)):
        path = make_run(f"sweeps/lr/trials/{number:04d}/seed0", quality=0.6 + error, config={"optim.lr": 1e-5 * number})
        result = json.loads((path / "result.json").read_text())
        result["monitor"] = "calibration_error"
        result["metrics"]["validation"]["calibration_error"] = error
        (path / "result.json").write_text(json.dumps(result))
    (tmp_path / "runs" / "sweeps" / "lr" / "sweep.yaml").write_text("sampler: random\n")
    best = group_runs(read_records([tmp_path]))
    assert [run.path.parent.name for g in best.groups for run in g.runs] == ["0001"]
    assert best.groups[0].metric == "accuracy"  # of the table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-5, "3e-5"),
        (0.0001, "1e-4"),
        (0.1, "0.1"),
        (1e10, "1e10"),
        (32, "32"),
        (None, "none"),
        (True, "true"),
        ("/models/bert-base", "bert-base"),
        ("/runs/sst2/seed0/model", "sst2/seed0/model"),
        ("model", "model"),
        ({"a": 1}, '{"a": 1}'),
    ],
)
def test_values_read_as_written(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_labels_are_short() -> None:
    assert system_name({"model.name": "bert", "optim.warmup_ratio": "0.1"}) == "bert, warmup ratio 0.1"
    assert list(distinct_texts(["/a/bert", "/b/bert", "gpt", None]).values()) == ["a/bert", "b/bert", "gpt", "none"]


def edit(path: Path, name: str, keys: tuple[str, ...], value: Any) -> None:
    content = json.loads((path / name).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (path / name).write_text(json.dumps(content))
