"""optuna-dashboard, as it is installed, reads a sweep's storage."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from research.sweep.study import read_search
from tests.sweep import dummy


def test_it_lists_the_study_and_its_trials(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    from optuna_dashboard._app import create_app
    from optuna_dashboard._storage_url import get_storage

    sweep = dummy.sweep_in(tmp_path, 3)
    dummy.work(sweep)
    search = read_search(sweep)
    assert dashboard.__version__
    app = create_app(get_storage(str(tmp_path / "journal.log")))
    status: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    body = b"".join(app({**environ, "wsgi.url_scheme": "http"}, lambda line, headers: status.append(line)))
    assert status == ["200 OK"] and b'"study_name": "dummy"' in body
    assert [t.state for t in search.trials()] == [TrialState.COMPLETE] * 3
