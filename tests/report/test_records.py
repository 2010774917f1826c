"""Run folders as records: what they say, how they end, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.report.records import read_records, status_counts
from research.tracking import predictions

MakeRun = Callable[..., Path]


def test_a_record_holds_what_the_run_wrote(make_run: MakeRun) -> None:
    path = make_run("a", task="ner", data_set="news", seed=3, config={"optim.lr": 3e-5})
    (record,) = read_records([path])
    assert (record.task, record.seed, record.data_set, record.monitor) == ("ner", 3, "news", "f1")
    assert record.status == "finished"
    assert record.config["optim"]["lr"] == 3e-5
    assert record.scores("test") == json.loads((path / "result.json").read_text())["metrics"]["test"]
    assert record.fingerprint("test") is not None and record.fingerprint("test")[1] == 60
    assert record.splits == ["test", "validation"]
    assert predictions.score(record.predictions("test"))["f1"] == record.scores("test")["f1"]
    assert [row["step"] for row in record.metrics() if "validation/f1" in row] == [20, 40, 60]


def test_runs_are_found_at_any_depth_once_and_nothing_inside_a_run_counts(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run("b/seed0"), make_run("a/deep/seed1", seed=1)]
    nested = paths[0] / "wandb" / "run" / "files"
    nested.mkdir(parents=True)
    (nested / "config.yaml").write_text("task: not a run\n")
    records = read_records([tmp_path, paths[0]])
    assert [record.path for record in records] == [paths[1], paths[0]]


def test_every_ending_has_its_state(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, state in enumerate(("finished", "finished", "unfinished", "pruned", "failed")):
        make_run(state + str(seed), seed=seed, status=state)
    records = read_records([tmp_path])
    assert status_counts(records) == {"finished": 2, "unfinished": 1, "pruned": 1, "failed": 1}
    failed = next(record for record in records if record.status == "failed")
    assert failed.outcome is not None and failed.outcome["reason"] == "out of memory"
    assert failed.scores("test") == {}


def test_keys_younger_than_a_run_have_their_defaults(make_run: MakeRun) -> None:
    path = make_run("old")
    lines = (path / "config.yaml").read_text().splitlines(keepends=True)
    (path / "config.yaml").write_text(
        "".join(line for line in lines if "seed_init" not in line and "beta1" not in line)
    )
    (record,) = read_records([path])
    assert record.config["seed_init"] is None
    assert record.config["optim"]["beta1"] == 0.9


def test_predictions_edited_after_the_run_are_refused(make_run: MakeRun) -> None:
    path = make_run("a")
    table = predictions.read(path / "predictions" / "test.parquet")
    predictions.write(table.slice(1), path / "predictions" / "test.parquet")
    (record,) = read_records([path])
    with pytest.raises(UserError, match=r"test.parquet is not the file the run wrote: its sha256 differs"):
        record.predictions("test")
    assert len(record.predictions("validation")) == 60


def test_predictions_of_runs_without_hashes_are_read_unchecked(make_run: MakeRun) -> None:
    (record,) = read_records([make_run("a", hashed=False)])
    assert record.files == {}
    assert len(record.predictions("test")) == 60


def test_missing_predictions_are_reported_with_those_there_are(make_run: MakeRun) -> None:
    path = make_run("a")
    (path / "predictions" / "test.parquet").unlink()
    (record,) = read_records([path])
    with pytest.raises(UserError, match=r"has no predictions of 'test' \(it has those of validation\)"):
        record.predictions("test")


def test_a_torn_parquet_file_is_reported(make_run: MakeRun) -> None:
    path = make_run("a", hashed=False)
    file = path / "predictions" / "test.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"test.parquet is not an intact Parquet file"):
        read_records([path])[0].predictions("test")


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "task: [", "config.yaml is not valid YAML"),
        ("config.yaml", "model: x", "it names no task"),
        ("result.json", '{"task": ', "result.json is not valid JSON"),
        ("result.json", "[1]", "result.json is damaged: it holds no JSON object"),
        ("result.json", "{}", "result.json is damaged: 'metrics' is missing"),
        ("result.json", '{"metrics": {"test": 3}}', "result.json is damaged: 'metrics.test' is no JSON object"),
        ("result.json", '{"metrics": {}, "metric": {"scores": [1]}}', "'metric' is not as training writes it"),
        ("provenance.json", "7", "provenance.json is damaged: it holds no JSON object"),
        ("provenance.json", '{"data": []}', "provenance.json is damaged: 'data' is missing or no JSON object"),
        ("provenance.json", '{"data": {"test": {"sha256": "a"}}}', "'data.test' lacks examples"),
        ("outcome.json", '{"reason": "x"}', "outcome.json is damaged: 'state' is not pruned or failed"),
    ],
)
def test_damaged_files_are_named(make_run: MakeRun, name: str, content: str, message: str) -> None:
    path = make_run("a")
    (path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_records([path])


def test_lines_of_another_shape_in_metrics_are_counted_and_passed_over(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_run("a")
    before = read_records([path])[0].metrics()
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('[1]\n7\n{"loss": 1.0}\n')
    assert read_records([path])[0].metrics() == before
    assert f"{path / 'metrics.jsonl'} has 3 damaged lines" in caplog.text


def test_no_runs_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        read_records([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="holds no run folder"):
        read_records([tmp_path])
    with pytest.raises(UserError, match="No runs were given"):
        read_records([])


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"data.test": "/x/wnut17/test.conll"}, "wnut17"),
        ({"data.test": None, "data.validation": "/x/squad/dev.json"}, "squad"),
        ({"data.test": "/x/research_in_memory/0123456789abcdef/test.jsonl"}, "rows in memory"),
        ({"data.name": "nyu-mll/glue", "data.config": "sst2"}, "glue/sst2"),
    ],
)
def test_data_sets_go_by_their_hub_name_or_folder(make_run: MakeRun, keys: dict[str, str], name: str) -> None:
    (record,) = read_records([make_run("a", config=keys)])
    assert record.data_set == name


def test_rows_in_memory_are_told_apart_where_they_differ(make_run: MakeRun, tmp_path: Path) -> None:
    for digest, examples in (("0123456789abcdef", 100), ("0199999999abcdef", 120)):
        make_run(digest, examples=examples, config={"data.test": f"/x/research_in_memory/{digest}/test.jsonl"})
    assert [record.data_set for record in read_records([tmp_path])] == ["rows in memory 0123", "rows in memory 0199"]


def test_a_trial_knows_its_sweep(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("sweeps/lr/trials/0007/seed1", seed=1)
    (tmp_path / "runs" / "sweeps" / "lr" / "sweep.yaml").write_text("sampler: random\n")
    assert read_records([path])[0].sweep == (tmp_path / "runs" / "sweeps" / "lr").absolute()
    assert read_records([make_run("alone")])[0].sweep is None
    beside = make_run("sweeps/lr/runs/grid/seed1", seed=1)  # of a folder that has a search in it, too
    assert read_records([beside])[0].sweep is None


def test_links_that_lead_back_are_followed_once(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a")
    for name in ("up", "around"):
        (tmp_path / "runs" / name).symlink_to(tmp_path / "runs", target_is_directory=True)
    assert [record.path.name for record in read_records([tmp_path / "runs"])] == ["a"]


def evaluated_on(make_run: MakeRun, name: str, file: str, examples: str, **data: str) -> Path:
    path = make_run(name, config={f"data.{key}": value for key, value in {"test": file, **data}.items()})
    record = json.loads((path / "provenance.json").read_text())
    record["data"]["test"]["sha256"] = examples * 64
    (path / "provenance.json").write_text(json.dumps(record))
    return path


def test_two_test_files_in_one_folder_are_two_data_sets(make_run: MakeRun) -> None:
    paths = [evaluated_on(make_run, n, f"/data/{place}.jsonl", n) for n, place in (("a", "x/hard"), ("b", "x/easy"))]
    assert [record.data_set for record in read_records(paths)] == ["x/hard", "x/easy"]
    elsewhere = evaluated_on(make_run, "c", "/other/x/hard.jsonl", "a")  # the examples of the first
    assert [record.data_set for record in read_records([paths[0], elsewhere])] == ["x", "x"]
    same_name = evaluated_on(make_run, "d", "/other/x/hard.jsonl", "d")
    assert [record.data_set for record in read_records([paths[0], same_name])] == ["data/x/hard", "other/x/hard"]


def test_a_data_set_is_called_by_its_title(make_run: MakeRun) -> None:
    path = evaluated_on(make_run, "a", "/data/x/hard.jsonl", "a", title="Hard questions")
    assert read_records([path])[0].data_set == "Hard questions"
