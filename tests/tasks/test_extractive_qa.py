"""Extractive QA: the best span over windows, answers that windows cut, the no-answer threshold, CMRC's rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.cli import main
from research.inference.evaluate import evaluate
from research.tasks.extractive_qa import CANDIDATES, best_spans, window_loss
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.metrics.scores import cmrc_scores, squad_v2_scores
from tests.tasks.conftest import Build

WORDS = ("Anna went to Oslo with Acme and was not very good in that river city " * 12).split()
CONTEXT = " ".join(WORDS)


def row(
    answer: str | None, start: int = -1, context: str = CONTEXT, question: str = "where is Anna?"
) -> dict[str, Any]:
    first = context.index(answer) if answer and start < 0 else start
    answers = {"text": [answer], "answer_start": [first]} if answer else {"text": [], "answer_start": []}
    return {"question": question, "context": context, "answers": answers}


@pytest.fixture
def task() -> str:
    return "qa"


# --- the best span


def brute_force(start: np.ndarray, end: np.ndarray, context: np.ndarray, longest: int) -> list[tuple[float, int, int]]:
    """Every span of a window, best first."""
    inside = np.flatnonzero(context)
    spans = [(float(start[i] + end[j]), int(i), int(j)) for i in inside for j in inside if i <= j < i + longest]
    return sorted(spans, reverse=True)


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_best_spans_equal_a_search_over_all(longest: int) -> None:
    rng = np.random.default_rng(longest)
    N, L = 40, 17
    start, end = rng.normal(size=(2, N, L)).astype(np.float32)
    context = np.zeros((N, L), dtype=bool)
    for n in range(N):
        context[n, rng.integers(1, 8) : rng.integers(8, L)] = True
    scores, firsts, lasts = best_spans(
        torch.from_numpy(start), torch.from_numpy(end), torch.from_numpy(context), longest
    )
    for n in range(N):
        expected = brute_force(start[n], end[n], context[n], longest)[: scores.shape[1]]
        got = [c for c in zip(*(x[n].tolist() for x in (scores, firsts, lasts)), strict=True) if np.isfinite(c[0])]
        assert [c[1:] for c in got] == [c[1:] for c in expected]
        assert [c[0] for c in got] == pytest.approx([c[0] for c in expected], rel=1e-6)


def test_a_window_without_context_has_no_span() -> None:
    scores, _, _ = best_spans(torch.zeros(1, 6), torch.zeros(1, 6), torch.zeros(1, 6, dtype=torch.bool), 30)
    assert torch.isinf(scores).all()


def test_the_answer_is_the_best_span_over_all_windows(build: Build) -> None:
    rows = [row("Oslo"), row("river", context="in that river"), row("Acme")]
    module = build(rows, "data.max_answer_tokens=4")
    store, data = module.data.stores["validation"], module.data
    micro = pack(store, np.arange(3), packed=False)
    assert len(micro.lengths) > 30
    generator = torch.Generator().manual_seed(0)
    flat = [torch.randn(micro.size, generator=generator) for _ in range(2)]
    start, end = (micro.pad(x, -torch.inf) for x in flat)
    table = data.table(data.splits["validation"], module.decode(micro, (start, end)))
    for example, text in enumerate(r["context"] for r in rows):
        best = (-np.inf, 0, 0)
        for n in np.flatnonzero(micro.examples == example):
            first_char, last_char = (micro.pad(micro.tokens[c], -1)[n].numpy() for c in ("char_start", "char_end"))
            spans = brute_force(start[n].numpy(), end[n].numpy(), first_char >= 0, 4)
            best = max(best, *((s, int(first_char[i]), int(last_char[j])) for s, i, j in spans[:1]))
        assert table["answer"][example] == text[best[1] : best[2]]
        n_best = table["n_best"][example]
        assert n_best[0]["score"] == pytest.approx(best[0], rel=1e-6)
        assert len(n_best) == CANDIDATES or example == 1
        assert [c["score"] for c in n_best] == sorted((c["score"] for c in n_best), reverse=True)


# --- targets and windows


@pytest.mark.in_check(1)
@pytest.mark.parametrize(("max_length", "stride"), [(24, 4), (32, 128), (64, 16), (128, 0)])
def test_every_window_with_the_complete_answer_is_trained_on_it(build: Build, max_length: int, stride: int) -> None:
    place = CONTEXT.index("Oslo", 400)
    rows = [row("Oslo with Acme", place), row(None), row("Anna", context="Anna")]
    module = build(rows, f"data.max_length={max_length}", f"data.stride={stride}")
    micro = pack(module.data.stores["train"], np.arange(3), packed=False)
    firsts, lasts = (micro.pad(micro.tokens[c], -1).tolist() for c in ("char_start", "char_end"))
    shown, covered = 0, set()
    for n, example in enumerate(micro.examples.tolist()):
        start, end = int(micro.sequences["start"][n]), int(micro.sequences["end"][n])
        inside = [i for i in range(int(micro.lengths[n])) if firsts[n][i] >= 0]
        assert micro.lengths[n] <= max_length
        if example == 0:
            covered |= {c for i in inside for c in range(firsts[n][i], lasts[n][i])}
            whole = firsts[n][inside[0]] <= place and lasts[n][inside[-1]] >= place + len("Oslo with Acme")
            assert (start > 0) is whole
        if start:
            shown += example == 0
            text = rows[example]["context"][firsts[n][start] : lasts[n][end]]
            assert text == rows[example]["answers"]["text"][0]
        else:
            assert example != 2 and end == 0  # cut by the window, or no answer: the first token
    assert shown >= 1
    assert covered == {i for i, c in enumerate(CONTEXT) if c != " "}  # the windows lose nothing


def test_targets_count_windows(build: Build) -> None:
    store = build([row("Oslo"), row("Anna", context="Anna")]).data.stores["train"]
    windows = [len(w) for w in store.streams["input"].windows.rows(np.arange(2))]
    assert windows[0] > 5 and windows[1] == 1
    assert store.targets.tolist() == windows


def test_an_answer_start_elsewhere_is_moved_to_the_nearest_place(build: Build) -> None:
    place = CONTEXT.index("Oslo", 300)
    right, moved = (
        pack(build([row("Oslo", start)]).data.stores["train"], np.arange(1)) for start in (place, place + 3)
    )
    assert right.sequences["start"].tolist() == moved.sequences["start"].tolist()
    assert sum(right.sequences["start"].tolist()) > 0


def test_a_long_question_leaves_room_for_the_context(build: Build) -> None:
    rows = [row("Oslo", question="why " * 500), row("Anna", context="Anna", question="")]
    micro = pack(build(rows).data.stores["train"], np.arange(2))
    assert micro.lengths.max() <= 32 and (micro.sequences["start"] > 0).any()


def test_chinese_japanese_and_german_answers_are_cut_from_the_context_itself(build: Build) -> None:
    rows = [
        row("北京大学", context="张三在北京大学读书。", question="张三在哪里读书？"),
        row("タワー", context="東京タワーに行く", question="どこに行く"),
        row("Groß-Gerau", context="Jürgen wohnt in Groß-Gerau.", question="Wo wohnt Jürgen?"),
    ]
    module = build(rows, "data.max_length=64")
    micro = pack(module.data.stores["validation"], np.arange(3), packed=False)
    start, end = (torch.full((3, int(micro.lengths.max())), -9.0) for _ in range(2))
    start[range(3), micro.sequences["start"]] = 9.0
    end[range(3), micro.sequences["end"]] = 9.0
    table = module.data.table(module.data.splits["validation"], module.decode(micro, (start, end)))
    answers = [r["answers"]["text"][0] for r in rows]
    assert [p for p, a in zip(table["prediction"], answers, strict=True) if a in p] == table["prediction"]
    assert table["prediction"][0] == answers[0] and table["prediction"][2] == answers[2]


# --- the loss


def test_window_loss_is_cross_entropy_over_the_tokens_of_a_window() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 7), torch.tensor([0, 4, 2])
    lengths = [7, 5, 3]
    padded = logits.clone()
    for n, length in enumerate(lengths):
        padded[n, length:] = -torch.inf
    for smoothing in (0.0, 0.1):
        expected = sum(
            torch.nn.functional.cross_entropy(logits[n, :length], target[n], label_smoothing=smoothing)
            for n, length in enumerate(lengths)
        )
        assert float(window_loss(padded, target, smoothing)) == pytest.approx(float(expected), rel=1e-6)
    padded.requires_grad_()
    window_loss(padded, target, 0.1).backward()
    assert padded.grad is not None and torch.isfinite(padded.grad).all()


@pytest.mark.slow
def test_label_smoothing_trains_on_windows_of_unequal_length(build: Build, tmp_path: Path) -> None:
    build([row("Oslo"), row("Anna", context="Anna")])
    assert main(["train", str(tmp_path / "qa.yaml"), "optim.label_smoothing=0.1"]) == 0
    assert all(np.isfinite(r["train/loss"]) for r in Run.read(tmp_path / "run").metrics() if "train/loss" in r)


# --- questions without an answer


@pytest.fixture
def v2_run(build: Build, tmp_path: Path) -> Run:
    """A finished run on questions of which every other has no answer, its test split answerable throughout."""
    rows = [
        row("Oslo" if i % 2 else None, question=f"what is {WORDS[i]}?", context=" ".join(WORDS[i : i + 14]))
        for i in range(11)
    ]
    build(rows)
    test = write_jsonl(tmp_path / "test.jsonl", [r for r in rows if r["answers"]["text"]] * 2)
    assert main(["train", str(tmp_path / "qa.yaml"), f"data.test={test}"]) == 0
    return Run.read(tmp_path / "run")


def test_the_threshold_is_found_on_validation_and_used_on_test(v2_run: Run, tmp_path: Path) -> None:
    result = v2_run.result
    assert result is not None
    threshold = result["metrics"]["validation"]["no_answer_threshold"]
    assert threshold != 0 and "f1" in result["metrics"]["test"]

    tables = {name: predictions.read(v2_run.predictions / f"{name}.parquet") for name in ("validation", "test")}
    assert predictions.settings(tables["validation"])["threshold"] == 0
    assert predictions.settings(tables["test"]) == {"scorer": "squad", "rules": "squad_v2", "threshold": threshold}

    rows = tables["test"].to_pylist()
    for r in rows:
        assert r["prediction"] == ("" if r["no_answer_score"] > threshold else r["answer"])
    expected = squad_v2_scores(
        {r["id"]: r["answer"] for r in rows},
        {r["id"]: r["gold"] for r in rows},
        {r["id"]: r["no_answer_score"] for r in rows},
        threshold,
    )
    assert {name: result["metrics"]["test"][name] for name in expected} == expected


@pytest.mark.slow
def test_evaluate_and_predict_go_by_the_threshold(v2_run: Run, tmp_path: Path) -> None:
    result = v2_run.result
    assert result is not None
    for split in ("test", "validation"):
        assert evaluate(v2_run, split) == result["metrics"][split]
    tested = predictions.read(v2_run.predictions / "test.parquet").to_pylist()
    unlabelled = [{"id": r["id"], "question": r["question"], "context": r["context"]} for r in tested]
    source, target = write_jsonl(tmp_path / "new.jsonl", unlabelled), tmp_path / "out.jsonl"
    for threshold in (None, -1e9, 1e9):  # what validation found, withhold all, withhold none
        if threshold is not None:
            result["metrics"]["validation"]["no_answer_threshold"] = threshold
            (v2_run.path / "result.json").write_text(json.dumps(result))
        assert main(["predict", str(v2_run.path), "--input", str(source), "--output", str(target)]) == 0
        predicted = [json.loads(line)["prediction"] for line in target.read_text().splitlines()]
        if threshold is None:
            assert predicted == [r["prediction"] for r in tested]
        else:
            assert predicted == ["" if threshold < 0 else r["answer"] for r in tested]


# --- rules


@pytest.mark.slow
def test_cmrc_is_scored_by_characters(build: Build, tmp_path: Path) -> None:
    build([row("北京大学", context="张三在北京大学读书。"), row("读书", context="张三在北京大学读书。")])
    assert main(["train", str(tmp_path / "qa.yaml"), "data.scorer=cmrc"]) == 0
    run = Run.read(tmp_path / "run")
    table = predictions.read(run.predictions / "validation.parquet")
    assert predictions.settings(table)["rules"] == "cmrc"
    rows = table.to_pylist()
    expected = cmrc_scores({r["id"]: r["prediction"] for r in rows}, {r["id"]: r["gold"] for r in rows})
    result = run.result
    assert result is not None
    assert {k: result["metrics"]["validation"][k] for k in ("exact_match", "f1")} == expected


def test_rules_follow_the_data(build: Build) -> None:
    assert build([row("Oslo")]).data.score_settings()["rules"] == "squad"
    assert build([row("Oslo"), row(None)]).data.score_settings()["rules"] == "squad_v2"
