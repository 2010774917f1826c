"""A report is written whole or not at all, and touches nothing in its folder that is not its own."""

import errno
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.report.output import SCRATCH, sha256, written_report


def test_files_take_their_places_when_all_are_written(tmp_path: Path) -> None:
    (tmp_path / "paper.tex").write_text("mine")
    with written_report(tmp_path, {}) as scratch:
        (scratch / "tables").mkdir()
        (scratch / "tables" / "scores.md").write_text("new")
        assert not (tmp_path / "tables").exists()
    assert (tmp_path / "tables" / "scores.md").read_text() == "new"
    assert (tmp_path / "paper.tex").read_text() == "mine"
    assert not (tmp_path / SCRATCH).exists()


def test_a_full_disk_leaves_the_earlier_report(tmp_path: Path) -> None:
    (tmp_path / "scores.md").write_text("old")
    reported = r"cannot be written: No space left on device\. Nothing in it was changed"
    with pytest.raises(UserError, match=reported), written_report(tmp_path, {}) as scratch:
        (scratch / "scores.md").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.md"]
    assert (tmp_path / "scores.md").read_text() == "old"


def test_a_report_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    with pytest.raises(UserError, match="of two tasks"), written_report(tmp_path / "papers" / "a" / "b", {}):
        raise UserError("of two tasks")
    assert list(tmp_path.rglob("*")) == [tmp_path / "papers"]


def test_files_of_the_earlier_report_go_unless_they_were_edited(tmp_path: Path) -> None:
    for name in ("gone.pdf", "edited.pdf"):
        (tmp_path / name).write_text(name)
    earlier = {name: sha256(tmp_path / name) for name in ("gone.pdf", "edited.pdf")}
    (tmp_path / "edited.pdf").write_text("by hand")
    with written_report(tmp_path, earlier):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["edited.pdf"]
