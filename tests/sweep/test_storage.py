"""The journal survives what happens to files; other storages are taken or refused with a reason; patience ends."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from research.cluster.signals import Interrupted
from research.common.errors import UserError
from research.sweep.storage import Patience, RepairingLock, StorageLost, cut_torn_end, open_storage
from research.sweep.sweepfile import StorageConfig


def opened(folder: Path, url: str | None = None, create: bool = True) -> Any:
    return open_storage(StorageConfig(url=url or str(folder / "journal.log"), lock_seconds=3), folder, create)


def study_in(folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=opened(folder), study_name="s", load_if_exists=True)


def run_trials(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(0.5, 1)
        study.tell(trial, 0.25)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("journal")
    run_trials(study_in(folder), 2)
    return (folder / "journal.log").read_bytes()


@pytest.mark.slow
def test_cut_at_any_byte_of_its_last_records(journal: bytes, tmp_path: Path) -> None:
    """Opening and writing again lose the torn record and no other."""
    begin = journal.rstrip(b"\n").rfind(b"\n", 0, -120)
    for size in [*range(begin, len(journal), 9), *range(len(journal) - 3, len(journal) + 1)]:
        folder = tmp_path / str(size)
        folder.mkdir(exist_ok=True)
        path = folder / "journal.log"
        path.write_bytes(journal[:size])
        whole = journal[:size].rfind(b"\n") + 1
        study = study_in(folder)
        run_trials(study, 1)
        assert path.read_bytes().startswith(journal[:whole])
        copies = list(folder.glob("journal.log.torn-*"))
        assert [copy.read_bytes() for copy in copies] == ([journal[whole:size]] if whole < size else [])
        again = optuna.load_study(storage=opened(folder), study_name="s")
        assert [t.state for t in again.trials][-1] == TrialState.COMPLETE
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_torn_while_open_is_repaired_before_the_next_record(journal: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(journal)
    study = study_in(tmp_path)
    with open(tmp_path / "journal.log", "ab") as file:
        file.write(b'{"op_code":7,"worker_id":"someone el')
    run_trials(study, 1)
    assert len(optuna.load_study(storage=opened(tmp_path), study_name="s").trials) == 3
    assert b"someone el" not in (tmp_path / "journal.log").read_bytes()


def test_a_record_glued_to_a_torn_one_is_saved(journal: bytes, tmp_path: Path) -> None:
    """What a writer that does not repair the journal leaves behind."""
    lines = journal.splitlines(keepends=True)
    glued = b"".join([*lines[:-1], b'{"op_code":9,"worker', lines[-1]])
    (tmp_path / "journal.log").write_bytes(glued)
    study = study_in(tmp_path)
    assert [t.value for t in study.trials] == [0.25, 0.25]
    assert (tmp_path / "journal.log").read_bytes().startswith(journal)
    assert (tmp_path / f"journal.log.damaged-{len(glued)}").read_bytes() == glued


def test_zeros_after_a_power_failure(journal: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(journal + b"\0" * 5000)
    cut_torn_end(tmp_path / "journal.log")
    assert (tmp_path / "journal.log").read_bytes() == journal


def test_an_intact_journal_is_not_changed(journal: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(journal)
    opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.log"]


@pytest.mark.slow
def test_the_lock_of_a_dead_worker_is_taken_after_a_while(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    (tmp_path / "journal.log.lock").touch()
    began = time.monotonic()
    run_trials(study, 1)
    assert time.monotonic() - began >= 3
    assert not (tmp_path / "journal.log.lock").exists()


def test_it_is_optunas_own_format(tmp_path: Path) -> None:
    run_trials(study_in(tmp_path), 3)
    plain = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    assert len(optuna.load_study(storage=plain, study_name="s").trials) == 3


def test_a_failed_repair_frees_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journal.log").write_bytes(b"{torn")
    lock = RepairingLock(tmp_path / "journal.log", 3)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            lock.acquire()
    assert not (tmp_path / "journal.log.lock").exists()


def test_there_must_be_something_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no sweep yet: .*journal\.log does not exist"):
        opened(tmp_path, create=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:secret@host/db", r"holds a password.*~/\.pgpass"),
        ("mysql://host/db", r"choose a file \(the default\), postgresql"),
        ("postgresql//host://", "neither a file nor a URL"),
    ],
)
def test_urls_that_are_refused(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        opened(tmp_path, url)
    assert "secret" not in str(caught.value)


def _second_worker(folder: str, url: str, answer: Any) -> None:
    try:
        opened(Path(folder), url)
        answer.send("taken")
    except UserError as error:
        answer.send(str(error))


@pytest.mark.slow
def test_sqlite_is_for_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    run_trials(optuna.create_study(storage=opened(tmp_path, url)), 1)
    context: Any = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_second_worker, args=(str(tmp_path), url, there))
    process.start()
    said = here.recv()
    process.join()
    assert "another worker is using it" in said and "journal" in said and "postgresql://" in said


@pytest.mark.slow
def test_patience_waits_says_so_and_returns_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[float] = []

    def call() -> str:
        calls.append(time.monotonic())
        if len(calls) < failures + 1:
            raise OSError(5, "Input/output error")
        return "here"

    failures = 2
    assert Patience(5)(call) == "here" and len(calls) == 3
    assert capsys.readouterr().err == ""  # a hiccup
    calls, failures = [], 5
    assert Patience(5)(call) == "here" and len(calls) == 6
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("does not answer") == 1 and "Input/output error" in said and "answers again" in said


@pytest.mark.slow
def test_patience_ends() -> None:
    def call() -> None:
        raise optuna.exceptions.StorageInternalError("gone")

    began = time.monotonic()
    with pytest.raises(StorageLost, match=r"has not answered for 0\.5 s .*gone.*start the worker again"):
        Patience(0.5)(call)
    assert time.monotonic() - began >= 0.5


def test_a_signal_ends_the_waiting() -> None:
    def call() -> None:
        raise OSError("gone")

    with pytest.raises(Interrupted):
        Patience(60, lambda: True)(call)


def test_a_mistake_is_not_waited_for() -> None:
    def call() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        Patience(60)(call)
