"""Text that is streamed while it is generated: that of `research predict`, ended when nobody listens."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from research.cli import main
from research.common.errors import UserError
from research.deploy.app import make_app
from research.deploy.export import export
from research.deploy.growing_text import GrowingText
from research.deploy.service import Limits, Service
from research.inference.predict import predict
from research.models.generate import Output
from research.models.generation_steps import stable_beginning
from research.tracking.run import Run
from tests.conftest import copied, write_experiment, write_jsonl
from tests.deploy.conftest import listening
from tests.deploy.test_app import ask
from tests.tasks.test_translation import make_model
from tests.tasks.text_experiments import CHAT

TURNS = [{"role": "user", "content": "good film"}]
WORDS = ["good", "bad", "film", "book", "city", "river"]


def trained(folder: Path, task: dict[str, Any], rows: list[dict[str, Any]]) -> Run:
    """A small decoder trained for a few steps in bf16."""
    file = write_jsonl(folder / "rows.jsonl", rows)
    model, keys = make_model(folder / "model", "llama"), {"max_new_tokens": 24, **task}
    talkative = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    for p in talkative.parameters():  # so that its weights say something
        p.data += 0.2 * torch.randn_like(p)
    talkative.save_pretrained(model)
    data = {"train": str(file), "validation": copied(file), "max_length": 40, "max_overlap": 1.0}
    steps = {"max_steps": 2, "batch_size": 4}
    write_experiment(folder / "e.yaml", keys, model, data, optim=steps, trainer={"precision": "bf16"})
    assert main(["train", str(folder / "e.yaml")]) == 0
    return Run.read(folder / "run")


@pytest.fixture(scope="module")
def text_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("chat")
    (folder / "chat.jinja").write_text(CHAT)
    answers = [*TURNS, {"role": "assistant", "content": "a book"}]
    chat = {"name": "dialogue", "temperature": 1.0, "chat_template": str(folder / "chat.jinja")}
    stories = [{"prompt": f"{word} film", "completion": f"bad {word}"} for word in WORDS]
    other = tmp_path_factory.mktemp("story")
    return {
        "chat": trained(folder, chat, [{"messages": answers}] * 6),
        "story": trained(other, {"name": "generation", "stop": ["river"]}, stories),
    }


@pytest.fixture(scope="module")
def service(text_runs: dict[str, Run]) -> Iterator[Service]:
    made = Service({name: run.path for name, run in text_runs.items()}, limits=Limits(timeout_seconds=100))
    yield made
    made.close()


def events(answer: httpx.Response) -> list[Any]:
    """What the server-sent events of a response hold."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.slow
def test_streamed_text_is_that_of_predict_alone_and_among_others(
    service: Service, text_runs: dict[str, Run], tmp_path: Path
) -> None:
    app = make_app(service, None)
    prompts = [f"{word} film" for word in WORDS]
    asked = [{"json": {"model": "story", "prompt": prompt, "stream": True}} for prompt in prompts]
    alone = [events(ask(app, ("POST", "/v1/completions", each))[0]) for each in asked]
    among = [events(answer) for answer in ask(app, *[("POST", "/v1/completions", each) for each in asked])]
    texts = [["".join(part["choices"][0]["text"] for part in parts) for parts in found] for found in (alone, among)]
    reasons = [[part["choices"][0]["finish_reason"] for part in parts] for parts in alone]
    assert texts[0] == texts[1] and not any("river" in text for text in texts[0])
    assert max(map(len, alone)) > 5 and all(set(each[:-1]) <= {None} for each in reasons)  # part by part
    for prompt, text, ends in zip(prompts[:2], texts[0], reasons, strict=False):
        predict(text_runs["story"], None, str(tmp_path / "a.jsonl"), texts=[prompt])
        row = json.loads((tmp_path / "a.jsonl").read_text())
        assert text == row["prediction"] and ends[-1] == ("stop" if row["ended"] else "length")
    whole = ask(app, ("POST", "/v1/completions", {"json": {"model": "story", "prompt": prompts[0]}}))[0].json()
    assert whole["choices"][0]["text"] == texts[0][0] and whole["object"] == "text_completion"
    (scored,) = ask(app, ("POST", "/v1/predict/story", {"json": {"inputs": [{"prompt": prompts[0]}]}}))
    assert scored.json()["predictions"][0]["prediction"] == texts[0][0]


@pytest.mark.slow
def test_a_chat(service: Service) -> None:
    app = make_app(service, None)
    body = {"model": "chat", "messages": TURNS}
    path = "/v1/chat/completions"
    whole, streamed, short, models = ask(
        app,
        ("POST", path, {"json": body}),
        ("POST", path, {"json": {**body, "stream": True}}),
        ("POST", path, {"json": {**body, "max_tokens": 3}}),
        ("GET", "/v1/models", {}),
    )
    (choice,) = whole.json()["choices"]
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] in ("stop", "length")
    parts = events(streamed)
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    assert "".join(part["choices"][0]["delta"]["content"] for part in parts) == choice["message"]["content"]
    begun = short.json()["choices"][0]["message"]["content"]
    assert choice["message"]["content"].startswith(begun) and len(begun.split()) <= 3
    assert [model["id"] for model in models.json()["data"]] == ["chat", "story"]
    gold = {"feedback": [{"id": parts[-1]["id"], "gold": choice["message"]["content"]}]}
    assert ask(app, ("POST", "/v1/feedback/chat", {"json": gold}))[0].json() == {"counted": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ("chat/completions", {"temperature": 0.5}, "'temperature' does not act here: the run decides"),
        ("chat/completions", {"max_tokens": 0}, "'max_tokens' must be a positive integer"),
        ("chat/completions", {"stream": "yes"}, "'stream' must be true or false"),
        ("chat/completions", {"messages": []}, "there is no chat"),
        ("chat/completions", {"messages": [{"role": "bot", "content": "a"}]}, "the role 'bot' is unknown"),
        ("chat/completions", {"model": 3}, 'give {"model": "..."'),
        ("chat/completions", {"model": "story"}, "ask 'story' at /v1/completions"),
        ("completions", {}, "ask 'chat' at /v1/chat/completions"),
        ("completions", {"model": "none"}, "no run 'none' is served here"),
    ],
)
def test_refusals(path: str, change: dict[str, Any], reason: str, service: Service) -> None:
    content = {"model": "chat", "messages": TURNS, **change}
    (answer,) = ask(make_app(service, None), ("POST", f"/v1/{path}", {"json": {**content, "stream": True, **change}}))
    assert answer.status_code == (404 if "no run" in reason else 422) and reason in answer.json()["error"]


@pytest.mark.slow
def test_nothing_more_is_generated_once_the_client_is_gone_or_the_time_is_over(
    service: Service, text_runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real connection that the client closes at the first word; the generating thread waits for that."""
    app, bodies = make_app(service, None), [{"model": "story", "prompt": f"{word} film"} for word in WORDS]
    answers = ask(app, *[("POST", "/v1/completions", {"json": body}) for body in bodies])
    lengths = [len(answer.json()["choices"][0]["text"].split()) for answer in answers]
    longest = bodies[lengths.index(max(lengths))]
    assert max(lengths) > 6
    seen, closed = list[int](), threading.Event()
    watch = GrowingText.watch

    def slowly(growing: GrowingText, output: Output) -> bool:
        seen.append(len(output.tokens))
        if len(seen) > 3:
            assert closed.wait(100)
            while not growing.is_over:
                time.sleep(0.01)
        return watch(growing, output)

    monkeypatch.setattr(GrowingText, "watch", slowly)
    with listening(make_app(service, None)) as port:
        url = f"http://127.0.0.1:{port}/v1/completions"
        with httpx.stream("POST", url, json={**longest, "stream": True}, timeout=100) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
        closed.set()
        monkeypatch.undo()
        assert httpx.post(url, json=longest, timeout=100).status_code == 200  # the thread is free again
    assert seen == [1, 2, 3, 4][: len(seen)]

    hurried = Service({"story": text_runs["story"].path}, limits=Limits(timeout_seconds=1e-9))
    late = ask(make_app(hurried, None), ("POST", "/v1/completions", {"json": {**longest, "stream": True}}))[0]
    hurried.close()
    assert late.status_code == 504


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_programs_of_models_that_generate_are_refused(format: str, text_runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'generation' generates text: --format {format} is two programs"):
        export(text_runs["story"], tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_parts_join_to_the_text_and_hold_back_what_may_change() -> None:
    assert stable_beginning("a caf\ufffd", []) == "a caf"
    assert stable_beginning("one\nUs", ["\nUser:"]) == "one"
    assert stable_beginning("one two ", ["three"]) == "one two"

    async def parts() -> list[str]:
        growing = GrowingText(100, most_tokens=3)
        assert not growing.watch(Output("one", [1], "limit")) and not growing.watch(Output("one two", [1, 2], "limit"))
        assert growing.watch(Output("one two three", [1, 2, 3], "limit"))
        return [str(await growing.next_part()) for _ in range(3)] + [growing.rest_of("one two three four")]

    assert asyncio.run(parts()) == ["one", " two", " three", " four"]
