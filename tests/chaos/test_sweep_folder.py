"""Damaged and foreign files in a sweep's folder are passed over or set aside: workers continue."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from research.sweep.claims import Claims, newest
from research.sweep.storage import open_storage
from research.sweep.sweepfile import StorageConfig


def claims(folder: Path) -> Claims:
    return Claims(folder, heartbeat_seconds=60.0, dead_after_seconds=0.0)


@pytest.mark.parametrize("content", [b"", b"\n", b"{", b"[]", b"1", b"\xff\xfe", b'{"host": "a"}\n..'])
def test_damaged_claim_is_free_after_its_silence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "0007").mkdir()
    (tmp_path / "0007" / "claim-1").write_bytes(content)
    own = claims(tmp_path)
    assert own.deaths(7, "step 3") == 0 and not own.is_alive(7)
    taken = own.take(7)
    assert taken is not None and taken.path.name == "claim-2"
    taken.give_back()


def test_files_beside_the_claims_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "0003"
    folder.mkdir()
    for name in ("claim-1.swp", "claim-x", "claim-", "claim-2~", "notes", ".claim-5"):
        (folder / name).write_text("mine")
    (folder / "claim-9").mkdir()
    assert newest(folder) is None
    taken = claims(tmp_path).take(3)
    assert taken is not None and taken.path.name == "claim-1"
    taken.give_back()
    assert (folder / "claim-x").read_text() == "mine"


DAMAGE = [
    b"[]", b"1", b'"text"', b"null", b"{}", b"\xff\xff", b"[" * 9000, b'{"op_code": 99}', b'{"op_code": 0}',
    b'{"op_code": "4", "study_id": 0}',
    b'{"op_code": 6, "worker_id": "a", "trial_id": 0, "state": 77, "values": null}',
]  # fmt: skip


@pytest.mark.parametrize("create", [True, False])  # a worker, and a look at the state
def test_journal_lines_that_are_no_records_are_set_aside(create: bool, tmp_path: Path) -> None:
    storage = StorageConfig(url=str(tmp_path / "journal.log"))
    study = optuna.create_study(storage=open_storage(storage, tmp_path, create=True), study_name="s")
    for value in (0.25, 0.5):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    journal = tmp_path / "journal.log"
    lines = journal.read_bytes().splitlines()
    for i, damaged in enumerate(DAMAGE):
        lines.insert(1 + i % (len(lines) - 1), damaged)
    journal.write_bytes(b"\n".join(lines) + b"\n")
    again = optuna.load_study(storage=open_storage(storage, tmp_path, create=create), study_name="s")
    assert [trial.value for trial in again.trials] == [0.25, 0.5]
    assert all(isinstance(json.loads(line), dict) for line in journal.read_bytes().splitlines())
    [kept] = tmp_path.glob("journal.log.damaged-*")
    assert kept.read_bytes() == b"\n".join(lines) + b"\n"
