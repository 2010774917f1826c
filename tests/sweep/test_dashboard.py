"""optuna-dashboard, as it is installed, reads a sweep's journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from optuna_dashboard._app import create_app
from optuna_dashboard._storage_url import get_storage

from research.sweep.study import read_search
from tests.sweep import dummy


def test_it_lists_the_study_and_its_trials(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 3)
    dummy.work(sweep)
    app = create_app(get_storage(str(tmp_path / "journal.log")))

    def answer(path: str) -> Any:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = b"".join(app(environ, lambda line, headers, error=None: status.append(line)))
        assert status[0].startswith("200"), body
        return json.loads(body)

    [study] = answer("/api/studies")["study_summaries"]
    assert study["study_name"] == "dummy" and study["directions"] == ["maximize"]
    shown = answer(f"/api/studies/{study['study_id']}")["trials"]
    trials = read_search(sweep).trials()
    assert [trial["state"] for trial in shown] == ["Complete"] * 3
    assert [trial["values"] for trial in shown] == [[trial.value] for trial in trials]
