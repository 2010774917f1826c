"""Soups and ensembles of a few small runs: their arithmetic, what validation chooses, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from research.cli import main
from research.report.ensemble import chosen_weights, ensemble_of, ensemble_text, mean_table, probabilities_of
from research.report.records import read_records
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    task_data: dict[str, dict[str, str]],
    request: pytest.FixtureRequest,
) -> tuple[SmallRuns, list[Run]]:
    folder = tmp_path_factory.mktemp("soup") / "runs"
    folder.mkdir()
    small = SmallRuns(folder, tiny_model, task_data, request)
    rates = ("optim.lr=5e-3", "optim.lr=1e-3", "optim.lr=2e-2")
    return small, [small.train("sentiment", rate, f"seed_order={i}") for i, rate in enumerate(rates)]


@pytest.mark.slow
def test_a_uniform_soup_is_the_mean_of_the_weights(runs: tuple[SmallRuns, list[Run]], tmp_path: Path) -> None:
    _, members = runs
    paths = [str(run.path) for run in members]
    assert main(["soup", *paths, "--kind", "uniform", "--output", str(tmp_path / "soup")]) == 0
    states = [load_file(run.model / "model.safetensors") for run in members]
    got = load_file(tmp_path / "soup" / "model" / "model.safetensors")
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, torch.stack([state[name] for state in states]).mean(0), atol=1e-6, rtol=1e-5)
    said = json.loads((tmp_path / "soup" / "soup.json").read_text())
    assert sorted(said["members"]) == sorted(paths)
    for split, scores in said["scores"].items():
        table = pq.read_table(tmp_path / "soup" / "predictions" / f"{split}.parquet")
        assert predictions.score(table)["accuracy"] == scores["accuracy"]
    assert set(said["scores"]) == {"validation", "test"}


@pytest.mark.slow
def test_a_greedy_soup_is_no_worse_on_validation(runs: tuple[SmallRuns, list[Run]], tmp_path: Path) -> None:
    _, members = runs
    paths = [str(run.path) for run in members]
    assert main(["soup", *paths, "--output", str(tmp_path / "soup")]) == 0
    said = json.loads((tmp_path / "soup" / "soup.json").read_text())
    best = max((run.result or {})["metrics"]["validation"]["accuracy"] for run in members)
    assert said["scores"]["validation"]["accuracy"] >= best
    assert main(["soup", *paths, "--output", str(tmp_path / "soup")]) == 2  # nothing is overwritten


@pytest.mark.slow
def test_a_greedy_soup_begins_with_the_lowest_loss(
    runs: tuple[SmallRuns, list[Run]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, _ = runs
    rates = ("optim.lr=1e-4", "optim.lr=5e-3")
    members = [small.train("sentiment", rate, "trainer.monitor=loss") for rate in rates]
    losses = [(run.result or {})["metrics"]["validation"]["loss"] for run in members]
    paths = [str(run.path) for run in members]
    assert main(["soup", *paths, "--output", str(tmp_path / "soup")]) == 0
    said = json.loads((tmp_path / "soup" / "soup.json").read_text())
    assert said["members"][0] == paths[losses.index(min(losses))]
    assert said["scores"]["validation"]["loss"] <= min(losses) + 1e-6
    prompted = [small.train("sentiment", f"seed_order={i}", adapter={"name": "prompt", "tokens": 2}) for i in (0, 1)]
    capsys.readouterr()
    assert main(["soup", *(str(run.path) for run in prompted), "--output", str(tmp_path / "other")]) == 2
    assert "has the adapter prompt, whose weights are not in model/" in capsys.readouterr().err


@pytest.mark.slow
def test_soups_of_other_models_data_or_too_few_runs_are_refused(
    runs: tuple[SmallRuns, list[Run]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, members = runs
    other = make_tiny_model(tmp_path / "wide", intermediate_size=96)
    wide = small.train("sentiment", f"model.name={other}")
    tagged = small.train("ner")
    turned = small.train("sentiment", 'data.labels=["positive","negative"]', "optim.max_steps=1")
    thin = small.train("sentiment", "model.keep_layers=[0]", "optim.max_steps=1")
    for path, said in {
        str(wide.path): "differ in their pretrained model",
        str(tagged.path): "differ in their task (classification and ner)",
        str(turned.path): "differ in their labels (negative, positive and positive, negative)",
        str(thin.path): "have other architectures or heads: bert.encoder.layer.1.attention.output.LayerNorm.bias is "
        "(32,) and missing.",
    }.items():
        assert main(["soup", str(members[0].path), path, "--output", str(tmp_path / "none")]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["soup", str(members[0].path), "--output", str(tmp_path / "none")]) == 2
    assert "two finished runs or more" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["ensemble", str(tagged.path), str(members[0].path)]) == 2
    assert main(["ensemble", str(tagged.path), str(tagged.path)]) == 2
    assert "two finished runs or more" in capsys.readouterr().err
    again = small.train("ner", "optim.max_steps=1")
    for pair, said in {
        (tagged.path, again.path): f"The predictions of {tagged.path} hold no probabilities to average: task 'ner' has",
        (members[0].path, turned.path): "have other labels (['negative', 'positive'] and ['positive', 'negative']); "
        "give data.labels to both and train them again.",
    }.items():
        assert main(["ensemble", *map(str, pair)]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_soup_of_heads_that_began_with_other_seeds_warns(
    runs: tuple[SmallRuns, list[Run]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, members = runs
    other = small.train("sentiment", "seed_init=1", "optim.max_steps=1")
    warning = "The runs' new heads began with other seeds (seed_init): their mean may be a poor head."
    for last, warned in ((members[1], False), (other, True)):
        output = tmp_path / f"soup-{warned}"
        assert main(["soup", str(members[0].path), str(last.path), "--kind", "uniform", "--output", str(output)]) == 0
        said = capsys.readouterr()
        assert (warning in " ".join((said.out + said.err).split())) is warned


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_the_probabilities(runs: tuple[SmallRuns, list[Run]], tmp_path: Path) -> None:
    _, members = runs
    records = read_records([run.path for run in members])
    found = ensemble_of(records, uniform=True, resamples=200)
    assert found.split == "test" and set(found.members.values()) == {1 / 3}
    tables = [pq.read_table(run.predictions / "test.parquet") for run in members]
    mean = np.mean([probabilities_of(table) for table in tables], axis=0)
    labels = predictions.settings(tables[0])["labels"]
    assert found.tables["test"].column("prediction").to_pylist() == [labels[i] for i in mean.argmax(1)]
    right = np.mean([labels[i] == gold for i, gold in zip(mean.argmax(1), tables[0]["gold"].to_pylist(), strict=True)])
    assert found.scores["test"]["ensemble"] == pytest.approx(right)
    [best, average] = found.gains
    member_scores = [found.scores["test"][str(run.path)] for run in members]
    assert average.difference == pytest.approx(right - np.mean(member_scores))
    assert best.difference == pytest.approx(right - found.scores["test"][found.best])
    assert average.interval.low <= average.difference <= average.interval.high
    assert "over the mean member" in ensemble_text(found)
    assert main(["ensemble", *(str(run.path) for run in members), "--output", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "ensemble.json").read_text())
    chosen = np.array([written["members"][str(run.path)] for run in members])
    assert chosen.sum() == pytest.approx(1)
    held = [pq.read_table(run.predictions / "validation.parquet") for run in members]
    assert np.array_equal(chosen, chosen_weights(held, "accuracy", 1.0))
    best_alone = max(predictions.score(table)["accuracy"] for table in held)
    assert predictions.score(mean_table(held, chosen))["accuracy"] >= best_alone
