"""`research compare`: what it pairs, which tests it makes, what it says, and what it refuses."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from research.cli import main
from research.common.errors import UserError
from research.config.component import choose
from research.report.compare import ComparedRuns, compare_runs, comparison_text
from research.report.figures.scores import figures
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.statistics import paired_tests
from research.report.statistics.comparison import Comparison
from research.report.statistics.power import seeds_needed
from research.report.statistics.summary import pools, summarise
from research.tracking import predictions

MakeRun = Callable[..., Path]


def pick(folder: Path, rate: str, data_set: str = "*") -> list[Path]:
    return sorted(folder.glob(f"{data_set}-{rate}-*"))


def all_said(first: list[Path], second: list[Path], **options: object) -> ComparedRuns:
    return compare_runs(read_records(first), read_records(second), resamples=500, **options)  # type: ignore[arg-type]


def compared(first: list[Path], second: list[Path], **options: object) -> list[Comparison]:
    return all_said(first, second, **options).comparisons


def test_each_data_set_is_a_comparison_of_equal_seeds(grid: Path) -> None:
    found = compared(pick(grid, "3e-05"), pick(grid, "0.0001"))
    assert [c.first.data_set for c in found] == ["news", "reviews", "wiki"]
    for c in found:
        assert c.examples == 60 and len(c.scores) == len(c.other_scores) == 5
        assert c.difference == pytest.approx(c.scores.mean() - c.other_scores.mean(), abs=1e-12)
        assert c.difference in c.interval and c.interval.over == "examples and seeds"
        assert c.interval_over_examples.over == "examples"
        assert [test.name for test in c.tests] == [
            "bootstrap over seeds and examples",
            "paired bootstrap over examples",
            "approximate randomisation over examples",
            "almost stochastic order over seeds",
        ]
        assert all(test.assumes for test in c.tests)
        assert c.seeds_needed and c.examples_needed
    assert found[0].tests[0].p_value < 0.05


@pytest.mark.slow
def test_a_few_shot_sample_counts_once(make_run: MakeRun) -> None:
    """By the mean of its seeds, wherever the spread over runs is judged."""
    sides = [
        [
            make_run(None, seed=seed, quality=quality, config={"optim.lr": rate, "data.shots": 8, "data.shots_seed": k})
            for k in range(3)
            for seed in (0, 1)
        ]
        for rate, quality in ((3e-5, 0.9), (1e-4, 0.88))
    ]
    (c,) = compared(*sides)
    means = [scores.reshape(3, 2).mean(1) for scores in (c.scores, c.other_scores)]
    assert c.interval.over == "examples and samples"
    assert c.tests[-1] == paired_tests.almost_stochastic_order(means[0], means[1], over="samples")
    assert "over samples" in c.tests[-1].name and "3 samples are too few" in c.tests[-1].detail
    assert c.seeds_needed == seeds_needed(*means) != seeds_needed(c.scores, c.other_scores)
    drawn = dict((name, caption) for name, caption, _ in figures(group_runs(read_records(sides[0])), []))
    assert all("each dot is a few-shot sample" in caption for caption in drawn.values()) and drawn


def test_bleu_is_that_of_the_corpora_and_not_of_sentences(make_run: MakeRun) -> None:
    """The tests recompute it too, from the sums of each resample."""
    first, second = (
        make_run(None, task="translation", quality=quality, config={"optim.lr": rate})
        for rate, quality in ((3e-5, 0.8), (1e-4, 0.6))
    )
    (c,) = compared([first], [second])
    tables = [predictions.read(run / "predictions" / "test.parquet") for run in (first, second)]
    own, other = (
        BLEU().corpus_score(each["prediction"].to_pylist(), [*zip(*each["gold"].to_pylist(), strict=True)]).score / 100
        for each in tables
    )
    assert c.difference == pytest.approx(own - other, abs=1e-12) and c.difference in c.interval
    sentences = [predictions.metric(each).example_scores(each).mean() for each in tables]
    assert abs(sentences[0] - sentences[1] - c.difference) > 0.01
    assert [test.name.split(" (")[0] for test in c.tests] == [
        "paired bootstrap over examples", "approximate randomisation over examples",
    ]  # fmt: skip
    assert all("the metric recomputed on each" in test.detail and test.p_value < 0.05 for test in c.tests)


def test_runs_of_an_adapter_are_compared_with_those_of_another(make_run: MakeRun) -> None:
    """Each has keys that the other has not."""
    lora = {"adapter": asdict(choose("adapter", "lora"))}
    adapted = [make_run(None, seed=seed, config=lora) for seed in range(2)]
    [found] = compared(adapted, [make_run(None, seed=seed) for seed in range(2)])
    assert [side.settings["adapter.name"] for side in (found.first, found.second)] == ["lora", "full"]


def test_swapping_the_sides_turns_the_difference(grid: Path) -> None:
    (forth,) = compared(pick(grid, "3e-05", "news"), pick(grid, "0.0001", "news"))
    (back,) = compared(pick(grid, "0.0001", "news"), pick(grid, "3e-05", "news"))
    assert back.difference == pytest.approx(-forth.difference, abs=1e-12)
    assert back.interval.low == pytest.approx(-forth.interval.high, abs=0.02)


def test_single_runs_of_a_classifier_get_mcnemar(grid: Path) -> None:
    (c,) = compared(pick(grid, "3e-05", "reviews")[:1], pick(grid, "0.0001", "reviews")[:1])
    assert [test.name.split(" (")[0] for test in c.tests] == [
        "paired bootstrap over examples", "approximate randomisation over examples", "McNemar's test",
    ]  # fmt: skip
    assert c.interval.over == "examples" and c.seeds_needed is None
    tables = [read_records([pick(grid, rate, "reviews")[0]])[0].predictions("test") for rate in ("3e-05", "0.0001")]
    right, other = (
        np.array(t.column("gold").to_pylist()) == np.array(t.column("prediction").to_pylist()) for t in tables
    )
    assert c.tests[2].detail.startswith(f"right in one run alone: {(right & ~other).sum()} examples here")


def test_spans_get_no_mcnemar_but_exact_match_does(grid: Path) -> None:
    first, second = pick(grid, "3e-05", "wiki")[:1], pick(grid, "0.0001", "wiki")[:1]
    assert not any("McNemar" in test.name for test in compared(first, second)[0].tests)
    assert any("McNemar" in test.name for test in compared(first, second, metric="exact_match")[0].tests)
    news = compared(pick(grid, "3e-05", "news")[:1], pick(grid, "0.0001", "news")[:1], metric="accuracy")
    assert not any("McNemar" in test.name for test in news[0].tests)  # accuracy of words, not of examples


def test_unequal_numbers_of_runs_get_no_randomisation(grid: Path) -> None:
    (c,) = compared(pick(grid, "3e-05", "news"), pick(grid, "0.0001", "news")[:3])
    assert not any("randomisation" in test.name for test in c.tests)
    assert c.interval.over == "examples and seeds"


@pytest.mark.slow
def test_p_values_are_corrected_over_all_comparisons(grid: Path) -> None:
    sides = pick(grid, "3e-05"), pick(grid, "0.0001")
    raw, holm = compared(*sides, correction="none"), compared(*sides, correction="holm")
    values = np.array([c.tests[1].p_value for c in raw])
    assert [c.corrected[1] for c in raw] == values.tolist()
    ordered = np.sort(values)
    expected = np.minimum(1, np.maximum.accumulate(ordered * [3, 2, 1]))
    assert sorted(c.corrected[1] for c in holm) == pytest.approx(expected, abs=1e-12)
    assert all(c.corrected[3] is None for c in holm)


def test_a_run_against_itself_differs_by_nothing(grid: Path) -> None:
    runs = pick(grid, "3e-05", "news")
    (c,) = compared(runs, runs)
    assert c.difference == 0.0 and 0.0 in c.interval
    assert [test.p_value for test in c.tests[:3]] == [1.0, 1.0, 1.0]
    said = comparison_text(ComparedRuns([c], "holm", []))
    assert "A - B = 0.00 points" in said and "power: there is no difference to find" in said
    assert "does not dominate" in said


def test_several_systems_against_one(make_run: MakeRun) -> None:
    paths = {rate: [make_run(None, seed=s, config={"optim.lr": rate}) for s in range(2)] for rate in (1e-5, 2e-5, 3e-5)}
    found = compared(paths[1e-5], paths[2e-5] + paths[3e-5])
    assert [c.second.system for c in found] == ["lr 2e-5", "lr 3e-5"]
    with pytest.raises(UserError, match=r"before --against are 2 systems on 'reviews' \(lr 1e-5 \| lr 2e-5\)"):
        compared(paths[1e-5] + paths[2e-5], paths[3e-5])


def test_the_command_says_everything(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [*map(str, pick(grid, "3e-05"))], [*map(str, pick(grid, "0.0001"))]
    assert main(["compare", *sides[0], "--against", *sides[1], "--resamples", "500", "--correct", "bh"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"news, test micro F1, per cent\n  A  \d+\.\d ± \d\.\d  lr 3e-5 \(5 runs\)\n  B  \d+\.\d ± ", said)
    assert re.search(
        r"A - B = \+\d+\.\d\d points, 95 % interval [+-]\d+\.\d\d to \+\d+\.\d\d over examples and seeds;", said
    )
    assert len(re.findall(r"60 test examples, paired by id \(sha256 of the data [0-9a-f]{12}…\)", said)) == 3
    assert "Benjamini-Hochberg over 3: p = " in said
    assert said.count("assumes:") == 12
    assert "almost stochastic order over seeds: epsilon" in said
    assert re.search(r"found with probability 80 % by \d+ seeds of each system .* or [\d,]+ test examples", said)


def test_other_tasks_and_data_sets_are_refused(grid: Path, make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"no data set in common: news \(ner\) against wiki \(extractive_qa\)"):
        compared(pick(grid, "3e-05", "news"), pick(grid, "0.0001", "wiki"))
    other = make_run("other", task="sentiment", data_set="news")
    with pytest.raises(UserError, match=r"is a run of task ner and .* one of task classification, both on 'news'"):
        compared(pick(grid, "3e-05", "news"), [other])


def test_two_names_of_one_task_are_compared_and_no_difference(make_run: MakeRun) -> None:
    first = [make_run(None, seed=seed, config={"optim.lr": 1e-5}) for seed in range(2)]
    second = [make_run(None, seed=seed) for seed in range(2)]
    for path in second:
        stored = (path / "config.yaml").read_text()
        assert "name: sentiment\n" in stored
        (path / "config.yaml").write_text(stored.replace("name: sentiment\n", "name: classification\n"))
    (c,) = compared(first, second)
    assert (c.first.system, c.second.system) == ("lr 1e-5", "lr 5e-5")
    assert {g.task for g in (c.first, c.second)} == {"classification"}


def test_other_test_examples_are_refused(make_run: MakeRun) -> None:
    first, second = make_run("a", examples=60), make_run("b", examples=50, config={"optim.lr": 1e-4})
    with pytest.raises(UserError, match=r"different test examples of 'reviews' \(60 and 50 examples"):
        compared([first], [second])


def test_ids_that_differ_are_refused(make_run: MakeRun) -> None:
    """The same data by its fingerprint, but other rows: only the ids can tell."""
    first, second = make_run("a", hashed=False), make_run("b", hashed=False, config={"optim.lr": 1e-4})
    table = predictions.read(second / "predictions" / "test.parquet").slice(1)
    predictions.write(table, second / "predictions" / "test.parquet")
    with pytest.raises(UserError, match=r"cannot be paired: their ids differ, 'test-0' occurs in one alone"):
        compared([first], [second])


def test_edited_predictions_are_refused(make_run: MakeRun) -> None:
    first, second = make_run("a"), make_run("b", config={"optim.lr": 1e-4})
    (second / "predictions" / "test.parquet").write_bytes(b"edited")
    with pytest.raises(UserError, match="is not the file the run wrote"):
        compared([first], [second])


def test_unfinished_sides_are_refused_and_unfinished_runs_counted(make_run: MakeRun) -> None:
    done = [make_run(f"a{seed}", seed=seed) for seed in range(2)]
    failed = make_run("a2", seed=2, status="failed")
    other = [make_run(f"b{seed}", seed=seed, config={"optim.lr": 1e-4}) for seed in range(2)]
    with pytest.raises(UserError, match=r"None of the runs is finished \(1 failed\)"):
        compared([failed], other)
    assert "lr 5e-5 (2 runs); 1 more not finished" in comparison_text(all_said([*done, failed], other))


def test_a_metric_that_cannot_be_resampled_or_is_lacking_is_refused(grid: Path) -> None:
    sides = pick(grid, "3e-05", "wiki"), pick(grid, "0.0001", "wiki")
    with pytest.raises(UserError, match="has no test score 'bleu'; it has exact_match, f1, loss"):
        compared(*sides, metric="bleu")
    with pytest.raises(UserError, match="Resampling 'loss' is not possible"):
        compared(*sides, metric="loss")


def test_too_few_resamples_are_refused(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(grid), "--against", str(grid), "--resamples", "10"]) == 2
    assert "--resamples 10 is too few for a test; take at least 100." in capsys.readouterr().err


@pytest.mark.process
def test_nothing_of_torch_is_imported(grid: Path, tmp_path: Path) -> None:
    """In a process of its own, since this one may have it already."""
    import subprocess
    import sys

    program = (
        "import sys, json; from research.cli import main; "
        f"codes = [main(['compare', *{[str(p) for p in pick(grid, '3e-05')]}, '--against', "
        f"*{[str(p) for p in pick(grid, '0.0001')]}, '--resamples', '100']), "
        f"main(['report', {str(grid)!r}, '--output', {str(tmp_path / 'paper')!r}])]; "
        "heavy = [m for m in ('torch', 'lightning', 'transformers', 'datasets') if m in sys.modules]; "
        "print(json.dumps([codes, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 0], []], done.stderr


def test_a_data_set_of_one_side_alone_is_said(grid: Path) -> None:
    both, more = pick(grid, "3e-05", "news"), pick(grid, "3e-05", "wiki")
    said = comparison_text(all_said(both + more, pick(grid, "0.0001", "news")))
    assert (
        "Not compared: the 5 finished runs of lr 3e-5 on wiki (extractive_qa) before --against, for the "
        "other side has none on it." in said
    )


def test_the_last_line_is_a_verdict(make_run: MakeRun) -> None:
    good = [make_run(f"g{seed}", seed=seed, quality=0.95, examples=200) for seed in range(3)]
    bad = [make_run(f"b{s}", seed=s, quality=0.6, examples=200, config={"optim.lr": 1e-4}) for s in range(3)]
    last = comparison_text(all_said(bad, good)).splitlines()[-1]
    assert last.startswith("Verdict: on reviews (test accuracy) lr 5e-5 is better than lr 1e-4 (95 % interval")
    last = comparison_text(all_said(good[:1], good[1:2])).splitlines()[-1]
    assert "no difference between encoder-a, seed 0 and encoder-a, seed 1 is shown" in last
    assert last.endswith("A single run: other seeds may differ.")


def test_a_report_and_a_comparison_give_the_same_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    """Of three systems; the resamples of one pair do not depend on what else is in the report."""
    for rate, quality in ((1e-5, 0.9), (2e-5, 0.8), (3e-5, 0.7)):
        for seed in range(2):
            make_run(f"{rate}-{seed}", seed=seed, quality=quality, config={"optim.lr": rate})
    records = read_records([tmp_path / "runs"])
    grid = group_runs(records)
    summaries = summarise(grid, pools(grid)[0])
    best = next(s.group for s in summaries if s.mark == "best")
    raw = {}
    for other in (g for g in grid.groups if g is not best):
        (c,) = compare_runs(best.runs, other.runs, correction="none").comparisons
        raw[other.system] = c.tests[0].p_value
    expected = paired_tests.corrected(list(raw.values()), "holm")
    reported = {s.group.system: s.p_value for s in summaries if s.p_value is not None}
    assert reported == pytest.approx(dict(zip(raw, expected, strict=True)), abs=1e-12)


def test_systems_whose_paths_end_alike_have_different_names(make_run: MakeRun) -> None:
    sides = [[make_run(None, config={"model.name": f"/models/{name}/bert"})] for name in ("small", "large")]
    (c,) = compared(*sides)
    assert (c.first.system, c.second.system) == ("small/bert", "large/bert")
