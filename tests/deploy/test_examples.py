"""The two services of docs/examples: their scripts, over HTTP, on the data that is shipped with them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from research.cli import main
from research.deploy.app import make_app
from research.deploy.service import Service
from research.tracking.run import Run
from tests.deploy.conftest import listening

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "examples"))
import intent_bot
import market_mood
from client import Client

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, served_runs: dict[str, Run]
) -> Iterator[tuple[Path, int]]:
    """The bot's run, and the port where it is served beside one of moods."""
    run = tmp_path_factory.mktemp("bot") / "run"
    small = [f"model.name={tiny_model}", "optim.epochs=1", "wandb.mode=disabled", f"run_dir={run}"]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        assert main(["train", "docs/examples/intents.yaml", *small]) == 0
    service = Service({"intents": run, "mood": served_runs["sentiment"].path})
    with listening(make_app(service, None)) as port:
        yield run, port
    service.close()


@pytest.mark.slow
def test_the_bot_hands_over_what_it_is_not_sure_of(
    shop: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, port = shop
    messages = [json.loads(line) for line in (EXAMPLES / "messages.jsonl").read_text().splitlines()]
    client = Client(f"http://127.0.0.1:{port}")
    answers = client.predict("intents", [message["text"] for message in messages])
    sure = sorted(max(answer["probabilities"].values()) for answer in answers)
    monkeypatch.setattr(intent_bot, "threshold_of", lambda run, wanted: sure[3])  # three messages are below it
    monkeypatch.setattr(sys, "stdin", (EXAMPLES / "messages.jsonl").open())
    monkeypatch.setattr(sys, "argv", ["intent_bot.py", str(run), "--url", client.url])
    intent_bot.main()
    said = capsys.readouterr().out
    assert said.count("A colleague will answer you.") == 3
    right = sum(a["prediction"] == m["intent"] for a, m in zip(answers, messages, strict=True))
    assert f"feedback on 8 answers: accuracy {{'value': {round(right / 8, 2)}" in said
    assert "like the test data: {" in said


@pytest.mark.slow
def test_the_threshold_is_the_lowest_at_which_answers_are_right_often_enough(
    shop: tuple[Path, int], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "predictions").mkdir()
    confidence, right = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0]
    columns = {"gold": ["a"] * 5, "prediction": ["a" if r else "b" for r in right],
               "probabilities": [[p, 1 - p] for p in confidence]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "predictions" / "validation.parquet")
    assert intent_bot.threshold_of(tmp_path, 1.0) == 0.8
    assert intent_bot.threshold_of(tmp_path, 0.75) == 0.6  # 3 of 4
    assert intent_bot.threshold_of(tmp_path, 0.0) == 0.5
    assert 0.0 < intent_bot.threshold_of(shop[0], 0.95) <= 1.01


def test_an_hour_is_worse_by_fishers_test() -> None:
    """7 of 8 against 2 of 8: (36 * 7 + 9) / 12870 = 0.020; 5 of 8 against 2 of 8: 2025 / 12870 = 0.157."""
    before, now = datetime(2026, 3, 9, 10), datetime(2026, 3, 10, 10)
    for negative, worse in ((7, True), (5, False)):
        labels = ["negative"] * 2 + ["positive"] * 6 + ["negative"] * negative + ["positive"] * (8 - negative)
        first, second = market_mood.moods([before] * 8 + [now.replace(minute=5)] * 8, labels)
        assert second == market_mood.Hour(now, negative, 8, 2, 8)
        assert second.is_worse is worse and not first.is_worse


@pytest.mark.slow
def test_the_mood_of_each_hour(
    shop: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(EXAMPLES / "posts.jsonl"), "--url", f"http://127.0.0.1:{shop[1]}"]
    monkeypatch.setattr(sys, "argv", ["market_mood.py", *arguments])
    market_mood.main()
    said = capsys.readouterr().out
    assert len(re.findall(r"^2026-03-\d\d \d\dh  \d of 8 negative", said, flags=re.MULTILINE)) == 6
    assert said.count("the day before no posts") == 3
