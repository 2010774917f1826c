"""Taking, continuing, giving back and telling trials; comparing a study with what is asked of it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from research.cluster.signals import Interrupted, StopFlag
from research.common.errors import UserError
from research.metrics.score import Score
from research.sweep.space import suggest
from research.sweep.storage import StorageLost
from research.sweep.study import Search, open_search, read_search
from research.sweep.sweepfile import BudgetConfig, Parameter, SweepConfig
from tests.sweep import dummy


def opened(sweep: SweepConfig, resume_anyway: bool = False, metric: str = "accuracy", **optim: Any) -> Search:
    base = dummy.base()
    for name, value in optim.items():
        setattr(base.optim, name, value)
    return open_search(sweep, base, Score(metric, metric, smaller_is_better=metric == "loss"), resume_anyway)


def finish_next(search: Search, value: float = 0.5) -> int:
    taken = search.next()
    assert taken is not None
    suggest(search.sweep.space, taken[0])
    search.finish(*taken, TrialState.COMPLETE, value)
    return taken[0].number


def test_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    first, second = (opened(dummy.sweep_in(tmp_path, 5)) for _ in range(2))
    assert [finish_next(search) for search in (first, second, second, first, second)] == [0, 1, 2, 3, 4]
    assert first.next() is None and second.next() is None and first.is_over()
    assert [t.state for t in first.trials()] == [TrialState.COMPLETE] * 5


def test_the_trial_of_another_is_not_taken(tmp_path: Path) -> None:
    first, second = (opened(dummy.sweep_in(tmp_path, 2)) for _ in range(2))
    a, b = first.next(), second.next()
    assert a is not None and b is not None and (a[0].number, b[0].number) == (0, 1)
    assert first.next() is None and not first.is_over()  # both run, on workers that live
    for search, taken in ((first, a), (second, b)):
        suggest(search.sweep.space, taken[0])
        search.finish(*taken, TrialState.COMPLETE, 0.1)


def test_a_trial_given_back_is_continued_as_it_was(tmp_path: Path) -> None:
    search = opened(dummy.sweep_in(tmp_path, 2))
    taken = search.next()
    assert taken is not None
    values = suggest(search.sweep.space, taken[0])
    taken[0].report(0.3, 5)
    search.give_back(*taken)
    assert search.trials()[0].state == TrialState.WAITING
    other = opened(dummy.sweep_in(tmp_path, 2))
    again = other.next()
    assert again is not None and again[0].number == 0
    assert other.trials()[0].state == TrialState.RUNNING
    assert suggest(other.sweep.space, again[0]) == values
    assert other.trials()[0].intermediate_values == {5: 0.3}
    other.finish(*again, TrialState.COMPLETE, 0.4)
    assert len(other.trials()) == 1


def test_enqueued_trials_come_first(tmp_path: Path) -> None:
    points = [{"optim.lr": 2e-5, "optim.warmup_ratio": 0.1}, {"optim.lr": 3e-5}]
    sweep = dummy.sweep_in(tmp_path, 3, enqueue=points)
    search = opened(sweep)
    drawn = []
    for _ in range(3):
        taken = search.next()
        assert taken is not None
        drawn.append(suggest(sweep.space, taken[0]))
        search.finish(*taken, TrialState.COMPLETE, 0.0)
    assert drawn[0] == points[0] and drawn[1]["optim.lr"] == 3e-5 and "optim.warmup_ratio" in drawn[1]
    assert drawn[2]["optim.lr"] not in (2e-5, 3e-5)


@pytest.mark.slow
def test_budgets_of_time(tmp_path: Path) -> None:
    search = opened(dummy.sweep_in(tmp_path, None, budget=BudgetConfig(hours=1.5 / 3600)))
    finished = 0
    began = time.monotonic()
    while (taken := search.next()) is not None:
        suggest(search.sweep.space, taken[0])
        time.sleep(0.2)
        search.finish(*taken, TrialState.COMPLETE, 0.0)
        finished += 1
    assert time.monotonic() - began > 1.4 and 1 <= finished <= 8
    assert len(search.trials()) == finished


def test_budget_of_device_hours(tmp_path: Path) -> None:
    search = opened(dummy.sweep_in(tmp_path, None, budget=BudgetConfig(device_hours=1.0)))
    while (taken := search.next()) is not None:
        suggest(search.sweep.space, taken[0])
        search.finish(*taken, TrialState.PRUNED, None, {"device_hours": 0.3})
    assert len(search.trials()) == 4


def test_a_score_reported_twice_counts_once(tmp_path: Path) -> None:
    """The answer to the first telling was lost with the connection."""
    search = opened(dummy.sweep_in(tmp_path, 1))
    taken = search.next()
    assert taken is not None
    suggest(search.sweep.space, taken[0])
    search.study.tell(0, 0.7)
    search.finish(*taken, TrialState.COMPLETE, 0.7)
    assert search.trials()[0].value == 0.7


def test_a_finished_trial_is_not_run_again_though_its_worker_died(tmp_path: Path) -> None:
    search = opened(dummy.sweep_in(tmp_path, 1))
    taken = search.next()
    assert taken is not None
    stale = opened(dummy.sweep_in(tmp_path, 1))
    suggest(search.sweep.space, taken[0])
    search.finish(*taken, TrialState.COMPLETE, 0.7)
    claim = stale.claims.take(0)
    assert claim is not None and stale._attached(claim) is None


def test_a_signal_ends_the_wait_for_others(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 1)
    search = opened(sweep)
    taken = search.next()
    assert taken is not None
    flag = StopFlag()
    waiting = open_search(sweep, dummy.base(), dummy.ACCURACY, False, flag)
    waiting.claims.is_alive = lambda number: False  # type: ignore[method-assign]
    flag.signal = 15
    with pytest.raises(Interrupted):
        waiting.next()
    search.give_back(*taken)


def test_failures_of_one_kind_stop_the_search(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 9)
    search = opened(sweep)
    for kind in ("diverged", "out of memory", "diverged", "diverged"):
        search.refuse_repeated_failures()
        taken = search.next()
        assert taken is not None
        search.finish(*taken, TrialState.FAIL, None, {"failed": {"kind": kind, "reason": f"It {kind}."}})
    with pytest.raises(UserError, match=r"3 trials failed alike \(diverged\).*It diverged\..*stop_after_failures=6"):
        search.refuse_repeated_failures()
    opened(dataclasses.replace(sweep, stop_after_failures=6)).refuse_repeated_failures()


def test_another_experiment_is_refused_with_the_difference(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 3)
    finish_next(opened(sweep))
    for changed, fragments in (
        ({"batch_size": 64}, ["experiment.optim.batch_size: 32 -> 64", "another name"]),
        ({"metric": "f1"}, ["metric: accuracy -> f1"]),
        ({"metric": "loss"}, ["direction: maximize -> minimize"]),
    ):
        with pytest.raises(UserError) as caught:
            opened(sweep, True, **changed)
        assert all(fragment in str(caught.value) for fragment in fragments)
    opened(sweep, lr=1.0)  # is searched: the experiment's own value counts for nothing
    with pytest.raises(UserError, match=r"seeds: \[0\] -> \[0, 1\]"):
        opened(dataclasses.replace(sweep, seeds=[0, 1]))
    assert len(opened(dataclasses.replace(sweep, budget=BudgetConfig(trials=9))).trials()) == 1


def test_another_space_is_refused_and_a_grown_one_on_request(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 3)
    finish_next(opened(sweep))
    wider = {**sweep.space, "optim.lr": Parameter(low=1e-6, high=1e-3, log=True)}
    grown = dataclasses.replace(sweep, space=wider)
    with pytest.raises(UserError, match=r"space\.optim\.lr\.low: 1e-05 -> 1e-06 .*--resume-anyway"):
        opened(grown)
    search = opened(grown, resume_anyway=True)
    assert finish_next(search) == 1
    opened(grown)
    with pytest.raises(UserError, match="another name"):
        opened(sweep, resume_anyway=True)  # narrower than what it has become


def test_looking_changes_nothing(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 3)
    with pytest.raises(UserError, match="There is no sweep yet"):
        read_search(sweep)
    assert list(tmp_path.iterdir()) == []
    finish_next(opened(sweep))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(read_search(sweep).trials()) == 1
    with pytest.raises(UserError, match="There is no sweep 'other'"):
        read_search(dataclasses.replace(sweep, name="other"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_storage_that_goes_away_stops_the_run_under_way(tmp_path: Path) -> None:
    flag = StopFlag()
    search = open_search(dummy.sweep_in(tmp_path, 3), dummy.base(), dummy.ACCURACY, False, flag)
    search.storage_lost(StorageLost("gone"))
    assert flag.signal == 15 and isinstance(search.lost, StorageLost)
