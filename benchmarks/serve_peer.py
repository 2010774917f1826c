"""A peer of `serve.py`: a `transformers` pipeline, on one thread, behind FastAPI or LitServe.

    python benchmarks/serve_peer.py fastapi MODEL PORT TASK MAX_LENGTH

The pipeline of questions is gone from `transformers`: that of QA is a plain loop of tokenizer, model and best span.
LitServe takes up to 32 requests, or those of 5 ms, and its pipeline pads them.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import torch
import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

Row = dict[str, Any]


def pipeline_of(task: str, model: str, max_length: int) -> Callable[[Sequence[Row]], list[Any]]:
    """What answers the rows of a request, together."""
    torch.set_num_threads(1)
    if task == "qa":
        return best_spans(model, max_length)
    if task == "ner":
        tag: Any = pipeline("token-classification", model=model, aggregation_strategy="simple")
        return lambda rows: [
            [{**entity, "score": float(entity["score"])} for entity in entities]
            for entities in tag([" ".join(row["tokens"]) for row in rows], batch_size=len(rows))
        ]
    label: Any = pipeline("text-classification", model=model, top_k=None, truncation=True, max_length=max_length)
    return lambda rows: list(label([row["text"] for row in rows], batch_size=len(rows)))


def best_spans(name: str, max_length: int) -> Callable[[Sequence[Row]], list[Any]]:
    """A loop over rows: one window, the best start and the best end from there on."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForQuestionAnswering.from_pretrained(name).eval()

    @torch.inference_mode()
    def answer(row: Row) -> dict[str, Any]:
        inputs = tokenizer(
            row["question"], row["context"], truncation="only_second", max_length=max_length, return_tensors="pt",
            return_offsets_mapping=True,
        )  # fmt: skip
        offsets = inputs.pop("offset_mapping")[0]
        outputs = model(**inputs)
        start = int(outputs.start_logits[0].argmax())
        end = start + int(outputs.end_logits[0, start:].argmax())
        return {"prediction": row["context"][int(offsets[start, 0]) : int(offsets[end, 1])]}

    return lambda rows: [answer(row) for row in rows]


def fastapi(answer: Callable[[Sequence[Row]], list[Any]], port: int) -> None:
    """As tutorials have it: the pipeline in the thread pool."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/predict/run")
    async def predict(body: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": await run_in_threadpool(answer, body["inputs"])}

    uvicorn.run(app, port=port, log_level="error")


LitAPI: Any = import_module("litserve").LitAPI if find_spec("litserve") else object


class Api(LitAPI):
    """One worker that answers the requests of 5 ms together; a process of its own, so that it is pickled."""

    about: tuple[str, str, int]

    def setup(self, device: str) -> None:
        self.answer = pipeline_of(*self.about)

    def decode_request(self, request: Request) -> Any:  # LitServe gives it the JSON, and reads the annotation
        return request["inputs"][0]

    def predict(self, rows: list[Row]) -> list[Any]:
        return self.answer(rows)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"predictions": [output]}


def litserve(about: tuple[str, str, int], port: int) -> None:
    api = Api(max_batch_size=32, batch_timeout=0.005, api_path="/v1/predict/run")
    api.about = about
    server = import_module("litserve").LitServer(api, accelerator="cpu", workers_per_device=1, timeout=300)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False)


def main() -> None:
    kind, model, port, task, max_length = sys.argv[1:]
    about = task, model, int(max_length)
    if kind == "litserve":
        litserve(about, int(port))
    else:
        fastapi(pipeline_of(*about), int(port))


if __name__ == "__main__":
    main()
