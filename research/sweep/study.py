"""A sweep's study as one worker uses it: open it, compare it, take trials, record how they ended.

A trial is taken by its claim (`research.sweep.claims`); the study is the record. A worker takes the first unfinished
trial whose claim is free, be it new, given back or left by a dead worker, and continues it where it stopped; where
there is none and the budget allows, it claims the next number and adds that trial. So the trials of a budget are made
one at a time, never more than asked for.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from research.cluster.signals import Interrupted, StopFlag
from research.common import compat
from research.common.console import console
from research.common.errors import UserError
from research.common.files import write_atomically
from research.config import component
from research.config.schema import Config
from research.config.tree import differences, result_keys, to_dict, with_canonical_names
from research.metrics import metric_class
from research.metrics.score import LOSS, Score
from research.sweep.claims import Claim, Claims
from research.sweep.samplers import enqueued, make_sampler, trials_asked
from research.sweep.space import as_dict, grew
from research.sweep.storage import Patience, StorageLost, open_storage
from research.sweep.sweepfile import SweepConfig, to_yaml

KEY = "sweep"  # of the study's attribute that says what was searched
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 1.0


def identity(sweep: SweepConfig, base: Config, score: Score) -> dict[str, Any]:
    """The settings by which two sweeps are the same search."""
    experiment = result_keys(to_dict(base))
    for key, parameter in sweep.space.items():
        if not parameter.when:  # elsewhere the experiment's own value counts
            *sections, name = key.split(".")
            place = experiment
            for section in sections:
                place = place.get(section, {})
            place.pop(name, None)
    experiment.pop("seed")
    return {
        "experiment": experiment,
        "metric": score.name,
        "direction": direction(score),
        "seeds": sweep.seeds,
        "space": as_dict(sweep.space),
    }


def direction(score: Score) -> Literal["minimize", "maximize"]:
    return "minimize" if score.smaller_is_better else "maximize"


class Search:
    """The study of a sweep. Every call waits for a storage that does not answer."""

    def __init__(
        self, sweep: SweepConfig, study: optuna.Study, patience: Patience, flag: StopFlag | None = None
    ) -> None:
        self.sweep, self.study, self.flag = sweep, study, flag
        s = sweep.storage
        self.folder = Path(str(sweep.folder))
        self.claims = Claims(self.folder / "trials", s.heartbeat_seconds, s.dead_after_seconds)
        self.patience = patience
        self.lost: StorageLost | None = None  # while a trial was running
        self.asked = trials_asked(sweep)

    @property
    def metric(self) -> str:
        return str(self.study.user_attrs[KEY]["metric"])

    @property
    def smaller_is_better(self) -> bool:
        return bool(self.study.user_attrs[KEY]["direction"] == "minimize")

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number; not to be changed."""
        return self.patience(lambda: self.study.get_trials(deepcopy=False))

    def next(self, progress: Callable[[int], str] = lambda number: "") -> tuple[Trial, Claim] | None:
        """Take a trial; None when there is none left for this worker.

        Waits while it is not known whether the process of an unfinished trial still lives. Raises Interrupted when a
        signal comes meanwhile.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            trials = self.trials()
            more = self._allows_another(trials)
            unfinished = [trial.number for trial in trials if not trial.state.is_finished()]
            for number in [*unfinished, *([len(trials)] if more else [])]:
                claim = self.claims.take(number, progress)
                if claim is not None:
                    trial = self._attached(claim)
                    if trial is not None:
                        return trial, claim
            if not more and all(map(self.claims.is_alive, unfinished)):
                return None
            if self.flag is not None and self.flag.signal is not None:
                raise Interrupted
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _allows_another(self, trials: list[FrozenTrial]) -> bool:
        """Is there a budget for one more trial?"""
        budget = self.sweep.budget
        began = min((t.datetime_start for t in trials if t.datetime_start), default=None)
        hours = (time.time() - began.timestamp()) / 3600 if began else 0.0
        device_hours = sum(t.user_attrs.get("device_hours", 0.0) for t in trials)
        return (
            (self.asked is None or len(trials) < self.asked)
            and (budget.hours is None or hours < budget.hours)
            and (budget.device_hours is None or device_hours < budget.device_hours)
        )

    def _attached(self, claim: Claim) -> Trial | None:
        """The claimed trial, added to the study where it is new; None, and the claim ended, where it is finished."""
        number, storage = claim.number, compat.study_storage(self.study)
        try:
            self.patience(lambda: self._add(number))
            frozen = self.trials()[number]
            if frozen.state.is_finished():
                claim.end()
                return None
            if frozen.state == TrialState.WAITING:
                self.patience(lambda: storage.set_trial_state_values(compat.trial_id(frozen), TrialState.RUNNING))
            self.study.sampler = make_sampler(self.sweep, number)
            return self.patience(lambda: Trial(self.study, compat.trial_id(frozen)))
        except BaseException:
            claim.give_back()
            raise

    def is_over(self) -> bool:
        """Has every trial ended, and is there a budget for no other?"""
        trials = self.trials()
        return all(trial.state.is_finished() for trial in trials) and not self._allows_another(trials)

    def _add(self, number: int) -> None:
        """Make trial `number` unless it is there; only the holder of its claim may."""
        if len(self.study.get_trials(deepcopy=False)) == number:
            self.study.enqueue_trial(dict(enqueued(self.sweep, number)))

    def report(self, trial: Trial, value: float, step: int) -> None:
        """Record a value of the trial's course."""
        self.patience(lambda: trial.report(value, step))

    def note(self, trial: Trial, name: str, content: Any) -> None:
        """Record an attribute of the trial."""
        self.patience(lambda: trial.set_user_attr(name, content))

    def give_back(self, trial: Trial, claim: Claim) -> None:
        """Let the next worker continue the trial."""
        with suppress(StorageLost, Interrupted):  # it then stays marked as running, but its claim is free
            storage, state = compat.study_storage(self.study), TrialState.WAITING
            self.patience(lambda: storage.set_trial_state_values(compat.trial_id(trial), state))
        claim.give_back()

    def finish(
        self,
        trial: Trial,
        claim: Claim,
        state: TrialState,
        value: float | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Record how the trial ended; `notes` become its attributes."""
        for name, content in (notes or {}).items():
            self.note(trial, name, content)
        self.patience(lambda: self._tell(trial.number, state, value))
        claim.end()

    def _tell(self, number: int, state: TrialState, value: float | None) -> None:
        if not self.study.get_trials(deepcopy=False)[number].state.is_finished():  # reported before the answer was lost
            self.study.tell(number, value, state)

    def storage_lost(self, error: StorageLost) -> None:
        """Note that the storage went away while a trial runs: the step under way ends, and the run is saved."""
        self.lost = error
        if self.flag is not None:
            self.flag.signal = signal.SIGTERM

    def refuse_repeated_failures(self) -> None:
        """Raise UserError when so many trials have failed in one way that more would, too."""
        failed = [t.user_attrs["failed"] for t in self.trials() if "failed" in t.user_attrs]
        for kind, count in Counter(f["kind"] for f in failed).items():
            if count >= self.sweep.stop_after_failures:
                last = next(f["reason"] for f in reversed(failed) if f["kind"] == kind)
                raise UserError(
                    f"{count} trials failed alike ({kind}), so the search stops. The last one: {last} "
                    f"Fix that or narrow the space; to continue as it is, set stop_after_failures={count + 3}."
                )


def open_search(
    sweep: SweepConfig, base: Config, score: Score, resume_anyway: bool, flag: StopFlag | None = None
) -> Search:
    """Open the sweep's study, or begin it. Raises UserError when it holds another search or cannot be reached."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    patience = Patience(sweep.storage.wait_seconds, lambda: flag is not None and flag.signal is not None)
    folder = Path(str(sweep.folder))
    storage = patience(lambda: open_storage(sweep.storage, folder, create=True))
    study = patience(
        lambda: optuna.create_study(
            storage=storage, study_name=sweep.name, direction=direction(score), load_if_exists=True
        )
    )
    new = identity(sweep, base, score)
    old = patience(lambda: study.user_attrs).get(KEY)
    if old is not None:  # an earlier version recorded the task's name as it was given
        old = {**old, "experiment": with_canonical_names(old["experiment"])}
    if old is not None and old != new:
        _refuse_another(sweep, old, new, resume_anyway)
    if old != new:
        patience(lambda: study.set_user_attr(KEY, new))
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / "sweep.yaml") as temporary:
        temporary.write_text(to_yaml(sweep), encoding="utf-8")
    return Search(sweep, study, patience, flag)


def refuse_another_search(sweep: SweepConfig, base: Config, resume_anyway: bool) -> None:
    """Raise UserError where the sweep's folder holds another search, before anything slow is imported."""
    metric = component.class_attribute("task", base.task.name, "Data", "metric")
    begun = (Path(str(sweep.folder)) / "sweep.yaml").is_file()
    if not isinstance(metric, str) or component.is_users(metric) or resume_anyway or not begun:
        return
    score = next((score for score in (*metric_class(metric).scores, LOSS) if score.name == base.trainer.monitor), None)
    if score is None:
        return
    try:
        old = read_search(sweep).study.user_attrs[KEY]
    except UserError:  # begun, and its study is not to be had now
        return
    old, new = {**old, "experiment": with_canonical_names(old["experiment"])}, identity(sweep, base, score)
    if old != new:
        _refuse_another(sweep, old, new, resume_anyway=False)


def read_search(sweep: SweepConfig) -> Search:
    """The study of a sweep that has begun, read-only. Raises UserError where there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    patience = Patience(min(10.0, sweep.storage.wait_seconds))
    storage = patience(lambda: open_storage(sweep.storage, Path(str(sweep.folder)), create=False))
    try:
        study = patience(lambda: optuna.load_study(storage=storage, study_name=str(sweep.name)))
        _ = study.user_attrs[KEY]
    except KeyError:
        raise UserError(f"There is no sweep '{sweep.name}' in {sweep.storage.url} yet.") from None
    return Search(sweep, study, patience)


def _refuse_another(sweep: SweepConfig, old: dict[str, Any], new: dict[str, Any], resume_anyway: bool) -> None:
    changed = "; ".join(differences(old, new))
    only_space = {**old, "space": None} == {**new, "space": None}
    if only_space and grew(old["space"], new["space"]):
        if resume_anyway:
            console.print(f"The space has grown: {changed}. Its earlier trials stay.")
            return
        remedy = "Its space only grew: add --resume-anyway to continue with the trials it has"
    else:
        remedy = "Give this search another name (name=...), or remove the folder and study of the old one"
    raise UserError(
        f"The sweep '{sweep.name}' in {sweep.storage.url} searches something else: {changed} (there -> here). {remedy}."
    )
