"""The service over HTTP, in this process: answers, refusals, health, metrics."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from research.common.errors import UserError
from research.deploy.app import make_app
from research.deploy.keys import Keys, add_key, read_keys
from research.deploy.service import Limits, Service
from research.inference.predictor import Question, Row
from research.tracking.run import Run

pytestmark = pytest.mark.slow
LIMITS = Limits(body_bytes=100_000, texts=8, waiting_tokens=2000, timeout_seconds=60)


@pytest.fixture(scope="module")
def service(served_runs: dict[str, Run]) -> Iterator[Service]:
    made = Service({task: served_runs[task].path for task in ("sentiment", "ner")}, limits=LIMITS)
    yield made
    made.close()


def ask(app: Any, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """The answers to requests made at the same time."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=60) as client:
            return await asyncio.gather(*[client.request(method, path, **about) for method, path, about in requests])

    return asyncio.run(all_of_them())


def predict(app: Any, content: Any, run: str = "sentiment") -> httpx.Response:
    return ask(app, ("POST", f"/v1/predict/{run}", {"json": content}))[0]


def test_predictions_and_descriptions_of_the_runs(service: Service) -> None:
    app = make_app(service, None)
    answer = predict(app, {"inputs": [{"text": "good"}, {"text": "bad"}]})
    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert set(first["probabilities"]) == {"negative", "positive"} and first["prediction"] in first["probabilities"]
    assert sum(second["probabilities"].values()) == pytest.approx(1)
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good", "bad"]}
    (infer,) = ask(app, ("POST", "/v2/models/sentiment/infer", {"json": {"id": "7", "inputs": [tensor]}}))
    outputs = {output["name"]: output for output in infer.json()["outputs"]}
    assert infer.json()["id"] == "7" and outputs["prediction"]["data"] == [first["prediction"], second["prediction"]]
    assert outputs["probabilities"]["shape"] == [2, 2]
    runs, live, ready, page, schema = ask(
        app, *[("GET", path, {}) for path in ("/v1/runs", "/live", "/ready", "/", "/openapi.json")]
    )
    assert [(run["name"], run["required"]) for run in runs.json()["runs"]] == [
        ("sentiment", ["text"]), ("ner", ["tokens"]),
    ]  # fmt: skip
    assert live.json() == {"live": True} and ready.json() == {"ready": True}
    assert "<title>research serve</title>" in page.text
    assert_described(schema.json())


def assert_described(schema: dict[str, Any]) -> None:
    """Each POST has an example of its body with all required fields, one of its answer, and what is refused."""
    assert schema["security"] == [{"key": []}] and schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    posts = {path: about["post"] for path, about in schema["paths"].items() if "post" in about}
    assert {"/v1/predict/{run}", "/v1/chat/completions", "/v2/models/{run}/infer"} <= posts.keys() and len(posts) == 5
    for path, post in posts.items():
        body = post["requestBody"]["content"]["application/json"]
        assert {*body["schema"]["required"]} <= body["example"].keys() <= body["schema"]["properties"].keys(), path
        assert post["responses"]["200"]["content"]["application/json"]["example"], path
        assert {"401", "422", "429", "503", "504"} <= post["responses"].keys(), path
    assert posts["/v1/chat/completions"]["requestBody"]["content"]["application/json"]["schema"]["required"] == [
        "model", "messages",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not UTF-8"),
        (b"[" * 1000, "nested deeper than 50 levels"),
        (b"3", 'give {"inputs"'),
        (b'{"inputs": []}', 'give {"inputs"'),
        (b'{"inputs": ["a"]}', 'inputs[0]: must be an object such as {"text": "..."}'),
        (b'{"inputs": [{"text": "a"}, {"text": 1}]}', "inputs[1]: 'text' must be text"),
        (b'{"inputs": [{"text": NaN}]}', "inputs[0]: 'text' must be text"),
        (json.dumps({"inputs": [{"text": "a"}] * 9}).encode(), "9 inputs; at most 8 in one request"),
        (json.dumps({"inputs": [{"text": "a" * 50_000}]}).encode(), "has 50000 characters"),
    ],
    ids=["syntax", "codec", "depth", "number", "empty", "row", "second", "nan", "rows", "characters"],
)
def test_wrong_requests(content: bytes, reason: str, service: Service) -> None:
    (answer,) = ask(make_app(service, None), ("POST", "/v1/predict/sentiment", {"content": content}))
    assert answer.status_code == 422 and reason in answer.json()["error"]


def test_refusals(service: Service) -> None:
    app = make_app(service, None)
    unknown = predict(app, {"inputs": [{"text": "a"}]}, "other")
    assert unknown.status_code == 404
    assert unknown.json()["error"] == "no run 'other' is served here; there is sentiment, ner"
    assert predict(app, {"inputs": [{"text": "a" * 200_000}]}).status_code == 413

    async def parts() -> Any:
        for _ in range(30):
            yield b"a" * 10_000

    (chunked,) = ask(app, ("POST", "/v1/predict/sentiment", {"content": parts()}))
    assert chunked.status_code == 413 and chunked.json()["error"] == "the body may have 100000 bytes"


def test_a_body_that_comes_drop_by_drop_is_given_up_while_others_are_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drops() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.1)

    monkeypatch.setattr(service, "limits", replace(LIMITS, timeout_seconds=5))
    slow = ("POST", "/v1/predict/sentiment", {"content": drops()})
    good = ("POST", "/v1/predict/sentiment", {"json": {"inputs": [{"text": "good film"}]}})
    dropped, *others = ask(make_app(service, None), slow, *[good] * 3)
    assert dropped.status_code == 408 and dropped.json()["error"] == "the body did not come within 5 s"
    assert [answer.status_code for answer in others] == [200] * 3


def test_one_bad_request_fails_alone(service: Service) -> None:
    good = ("POST", "/v1/predict/sentiment", {"json": {"inputs": [{"text": "good film"}]}})
    bad = ("POST", "/v1/predict/sentiment", {"json": {"inputs": [{"text": ["good"]}]}})
    answers = ask(make_app(service, None), *[good] * 16, bad)
    assert [answer.status_code for answer in answers] == [200] * 16 + [422]


def test_a_flood_is_refused_and_what_was_accepted_is_answered(service: Service) -> None:
    """The engine is held until a request was refused."""
    engine, refused = service.runs["sentiment"].engine, threading.Event()
    plain, count = engine.answer, service.monitor.requests.labels("sentiment", 503).inc

    def held(questions: Sequence[Question]) -> list[Row]:
        assert refused.wait(60)
        return plain(questions)

    def counted_and_signalled() -> None:
        count()
        refused.set()

    long = ("POST", "/v1/predict/sentiment", {"json": {"inputs": [{"text": "good film " * 40}] * 8}})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "answer", held)
        patched.setattr(service.monitor.requests.labels("sentiment", 503), "inc", counted_and_signalled)
        answers = ask(make_app(service, None), *[long] * 20)
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 503} and codes.count(200) >= 5
    assert {answer.headers.get("retry-after") for answer in answers} == {None, "1"}
    assert engine.waiting_tokens == 0


def test_weights_that_give_no_numbers(service: Service, served_runs: dict[str, Run]) -> None:
    broken = Service({"broken": served_runs["sentiment"].path}, limits=LIMITS)
    with torch.no_grad():
        model: Any = broken.runs["broken"].predictor.module.backbone.model
        model.classifier.bias.fill_(torch.nan)
    answer = predict(make_app(broken, None), {"inputs": [{"text": "good"}]}, "broken")
    broken.close()
    assert answer.status_code == 500 and "NaN" in answer.json()["error"]
    text = broken.monitor.text().decode()
    assert 'research_failures_total{reason="not a number",run="broken"} 1.0' in text
    with pytest.raises(UserError, match=r"a number that is none .*; its weights are damaged"):
        broken.runs["broken"].warm()  # as at the start, so that it never becomes ready


def test_time_is_over(served_runs: dict[str, Run]) -> None:
    slow = Service({"slow": served_runs["sentiment"].path}, limits=Limits(timeout_seconds=1e-9))
    answer = predict(make_app(slow, None), {"inputs": [{"text": "good"}]}, "slow")
    slow.close()
    assert answer.status_code == 504 and answer.json()["error"] == "no answer within 1e-09 s"


def test_keys_and_rates(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    token, slow = add_key(path, "one"), add_key(path, "two", per_second=0.001)
    assert path.stat().st_mode & 0o777 == 0o600 and token not in path.read_text()
    app = make_app(service, Keys(read_keys(path)))

    def status(header: str | None) -> int:
        headers = {} if header is None else {"Authorization": header}
        body = {"json": {"inputs": [{"text": "a"}]}, "headers": headers}
        return ask(app, ("POST", "/v1/predict/sentiment", body))[0].status_code

    assert [status(None), status(token), status("Bearer "), status(f"Bearer {token}x")] == [401] * 4
    assert [status(f"Bearer {token}"), status(f"bearer {token}")] == [200, 200]
    assert [status(f"Bearer {slow}"), status(f"Bearer {slow}"), status(f"Bearer {token}")] == [200, 429, 200]
    assert ask(app, ("GET", "/ready", {}))[0].status_code == 200


def test_metrics_hold_labels_and_no_text(service: Service) -> None:
    app = make_app(service, None)
    before = counted(app, "research_predictions_total", 'run="sentiment"')
    predict(app, {"inputs": [{"text": "something secret"}, {"text": "good"}]})
    assert counted(app, "research_predictions_total", 'run="sentiment"') == before + 2
    text = ask(app, ("GET", "/metrics", {}))[0].text
    assert "secret" not in text and 'research_run_info{run="' in text
    assert counted(app, "research_waiting_tokens", 'run="sentiment"') == 0


def counted(app: Any, name: str, labels: str) -> float:
    """The sum of a metric over what it is labelled with beside `labels`."""
    lines = ask(app, ("GET", "/metrics", {}))[0].text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{") and labels in line)


def test_feedback_is_scored_and_keeps_no_text(served_runs: dict[str, Run], tmp_path: Path) -> None:
    limits = Limits(texts=8, timeout_seconds=60, feedback=tmp_path / "kept")
    runs = {task: served_runs[task].path for task in ("sentiment", "ner", "qa")}
    served = Service(runs, limits=limits)
    app = make_app(served, None)
    answers = predict(app, {"inputs": [{"text": "good secret"}] * 4}).json()["predictions"]
    golds = [answers[0]["prediction"]] * 3 + [
        {"positive": "negative", "negative": "positive"}[answers[0]["prediction"]]
    ]
    entries = [{"id": answer["id"], "gold": gold} for answer, gold in zip(answers, golds, strict=True)]

    def give(run: str, entries: Any) -> httpx.Response:
        return ask(app, ("POST", f"/v1/feedback/{run}", {"json": {"feedback": entries}}))[0]

    assert give("sentiment", entries).json() == {"counted": 4}
    assert give("sentiment", entries[:1]).json() == {"counted": 1}  # the last one counts
    (found,) = ask(app, ("GET", "/v1/feedback/sentiment", {}))
    assert found.json()["examples"] == 4
    accuracy = found.json()["scores"]["accuracy"]
    assert accuracy["value"] == 0.75 and 0.1 < accuracy["low"] < 0.4 and 0.9 < accuracy["high"] < 1
    words = ["Anna", "saw", "Oslo"]
    (tagged,) = predict(app, {"inputs": [{"tokens": words}]}, "ner").json()["predictions"]
    assert give("ner", [{"id": tagged["id"], "gold": tagged["prediction"]}]).json() == {"counted": 1}
    (answered,) = predict(app, {"inputs": [{"question": "who", "context": "Anna Smith"}]}, "qa").json()["predictions"]
    assert give("qa", [{"id": answered["id"], "gold": ["Anna Smith"]}]).json() == {"counted": 1}
    context = "Anna Smith"
    if answered["prediction"]:
        assert context[answered["start"] : answered["end"]] == answered["prediction"]
    for run, wrong, reason in (
        ("sentiment", [{"id": "none", "gold": "positive"}], "feedback[0]: there is no answer 'none' here"),
        ("sentiment", [{"id": answers[0]["id"], "gold": "maybe"}], "gold must be one of negative, positive"),
        ("sentiment", [{"id": answers[0]["id"], "gold": ["positive"]}], "gold must be one of negative, positive"),
        ("sentiment", ["x"], 'must be an object such as {"id"'),
        ("ner", [{"id": tagged["id"], "gold": ["O"]}], "gold must be a list of 3"),
        ("ner", [{"id": tagged["id"], "gold": ["O", "O", "what"]}], "gold does not fit the prediction"),
        ("sentiment", [], 'give {"feedback"'),
    ):
        refused = give(run, wrong)
        assert refused.status_code == 422 and reason in refused.json()["error"]
    served.close()
    kept = "".join(path.read_text() for path in sorted((tmp_path / "kept").iterdir()))
    assert kept.count("\n") == 7 and not any(text in kept for text in ("secret", "Anna"))
    again = Service({"sentiment": runs["sentiment"]}, limits=limits)
    assert again.runs["sentiment"].feedback.scores()["scores"]["accuracy"] == accuracy
    again.close()


def test_drift_is_reported(service: Service) -> None:
    app = make_app(service, None)
    assert counted(app, "research_drift_p", 'of="labels",run="sentiment"') == 1.0  # too few answers to tell
