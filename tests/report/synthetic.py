"""Run folders as training writes them, made without training: the files, keys and columns are those of real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from research.config.component import choose
from research.config.schema import Config, ModelConfig
from research.tracking import predictions
from tests.conftest import WORDS

KINDS = ("PER", "LOC", "ORG")
SCORERS = {"sentiment": "classification", "ner": "entities", "qa": "squad", "translation": "text"}
MONITORS = {"sentiment": "accuracy", "ner": "f1", "qa": "f1", "translation": "bleu"}
STEPS_PER_EPOCH, EPOCHS = 20, 3
COST = {"device_hours": 0.25, "wall_seconds": 900.0, "flops": 1e13, "mfu": None, "energy_joules": None, "devices": 1}

MakeRun = Callable[..., Path]  # of the fixture `make_run`


def write_run(
    folder: Path,
    *,
    task: str = "sentiment",
    data_set: str = "reviews",
    seed: int = 0,
    quality: float = 0.8,
    examples: int = 60,
    status: str = "finished",
    config: Mapping[str, Any] | None = None,
    labels: tuple[str, ...] = ("negative", "positive"),
    splits: tuple[str, ...] = ("validation", "test"),
    keep_predictions: bool = False,
    hashed: bool = True,
) -> Path:
    """Write the folder of one run and return it.

    `quality` is the chance that a prediction (a word's tag, a word, an answer) is right; it rises over the epochs. The
    gold answers and texts depend on `data_set`, split and `examples` alone, the predictions on `config` (dotted keys,
    as in {"optim.lr": 3e-5}) and `seed` too. Validation has as many examples as test.
    """
    full = _config(folder, task, data_set, seed, splits, config or {})
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.dump(full, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    write_json(folder / "provenance.json", _provenance(full, examples, splits))
    source = {"config": config or {}, "seed": seed}  # not the keys with their defaults, of which others may come
    history, rows = [], _train_rows(seed)
    for epoch in range(1, EPOCHS + 1):
        step = epoch * STEPS_PER_EPOCH
        right = quality * (0.7 + 0.1 * epoch)
        table = make_table(task, data_set, "validation", examples, right, labels, {**source, "step": step})
        scores = {**predictions.score(table), "loss": 1.2 - right}
        history.append((scores[MONITORS[task]], step, scores, table))
        rows.append({"step": step, **{f"validation/{name}": value for name, value in scores.items()}})
        if keep_predictions:
            predictions.write(table, folder / "predictions" / f"validation-{step:08d}.parquet")
    lines = sorted(rows, key=lambda row: (row["step"], "validation/loss" in row))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    _, best_step, best_scores, best_table = max(history, key=lambda entry: entry[0])
    predictions.write(best_table, folder / "predictions" / "validation.parquet")
    if status in ("pruned", "failed"):
        outcome = {"state": status, "reason": "pruned by median" if status == "pruned" else "out of memory"}
        write_json(folder / "outcome.json", {**outcome, "step": best_step, "cost": COST})
    if status != "finished":
        return folder
    test_scores: dict[str, float] = {}
    if "test" in splits:
        table = make_table(task, data_set, "test", examples, quality, labels, source)
        predictions.write(table, folder / "predictions" / "test.parquet")
        test_scores = {**predictions.score(table), "loss": 1.3 - quality}
    result = _result(full, best_scores, test_scores, best_step)
    if hashed:
        files = sorted((folder / "predictions").glob("*.parquet"))
        result["files"] = {f"predictions/{path.name}": sha256(path.read_bytes()) for path in files}
    write_json(folder / "result.json", result)
    return folder


def make_table(
    task: str, data_set: str, split: str, examples: int, right: float, labels: tuple[str, ...], source: Any
) -> pa.Table:
    """A predictions table with the columns of the task; `source` is what the predictions depend on."""
    gold_rng = _generator([task, data_set, split, examples])
    rng = _generator([task, data_set, split, source])
    make = {"sentiment": _classification, "ner": _tagging, "qa": _answering, "translation": _writing}[task]
    columns, settings = make(gold_rng, rng, examples, right, labels)
    ids = [f"{split}-{i}" for i in range(examples)]
    metadata = json.dumps({"scorer": SCORERS[task], **settings}).encode()
    return pa.table({"id": ids, **columns}).replace_schema_metadata({predictions.KEY: metadata})


def _classification(
    gold_rng: np.random.Generator, rng: np.random.Generator, examples: int, right: float, labels: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    gold = gold_rng.integers(len(labels), size=examples)
    hard = gold_rng.random(examples)  # the same examples are hard for every system, as with real data
    texts = [" ".join(gold_rng.choice(WORDS, size=gold_rng.integers(3, 20))) for _ in range(examples)]
    hit = 0.5 * hard + 0.5 * rng.random(examples) < _threshold(right)
    prediction = np.where(hit, gold, (gold + 1 + rng.integers(len(labels) - 1, size=examples)) % len(labels))
    confidence = rng.uniform(1 / len(labels) + 0.01, 1, examples)
    probabilities = np.repeat((1 - confidence)[:, None] / (len(labels) - 1), len(labels), axis=1)
    probabilities[np.arange(examples), prediction] = confidence
    columns = {
        "gold": [labels[i] for i in gold],
        "prediction": [labels[i] for i in prediction],
        "probabilities": probabilities.tolist(),
        "text": texts,
        "label": [labels[i] for i in gold],
    }
    return columns, {"labels": list(labels)}


def _threshold(right: float) -> float:
    """The t for which the mean of two uniform numbers is below t with probability `right`."""
    return float(np.sqrt(right / 2) if right <= 0.5 else 1 - np.sqrt((1 - right) / 2))


def _tagging(
    gold_rng: np.random.Generator, rng: np.random.Generator, examples: int, right: float, labels: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    columns: dict[str, Any] = {name: [] for name in ("gold", "prediction", "confidence", "tokens", "tags")}
    for _ in range(examples):
        length = int(gold_rng.integers(4, 15))
        tokens = gold_rng.choice(WORDS, size=length).tolist()
        gold = ["O"] * length
        place = int(gold_rng.integers(0, 3))
        while place < length:
            kind, size = gold_rng.choice(KINDS), int(gold_rng.integers(1, 4))
            for offset in range(min(size, length - place)):
                gold[place + offset] = f"{'I' if offset else 'B'}-{kind}"
            place += size + int(gold_rng.integers(1, 5))
        wrong = rng.choice(["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in KINDS)], size=length)
        hit = rng.random(length) < right
        columns["gold"].append(gold)
        columns["prediction"].append([g if h else str(w) for g, h, w in zip(gold, hit, wrong, strict=True)])
        columns["confidence"].append(rng.uniform(0.3, 1, length).tolist())
        columns["tokens"].append(tokens)
        columns["tags"].append(gold)
    return columns, {"labels": sorted([*(f"{prefix}-{kind}" for prefix in "BI" for kind in KINDS), "O"])}


def _answering(
    gold_rng: np.random.Generator, rng: np.random.Generator, examples: int, right: float, labels: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    names = ("gold", "prediction", "answer", "no_answer_score", "n_best", "question", "context", "answers")
    columns: dict[str, Any] = {name: [] for name in names}
    for _ in range(examples):
        words = gold_rng.choice(WORDS, size=30).tolist()
        context, start, size = " ".join(words), int(gold_rng.integers(0, 25)), int(gold_rng.integers(1, 5))
        gold = " ".join(words[start : start + size])
        shift = 0 if rng.random() < right else int(rng.integers(1, 4))
        answer = " ".join(words[start + shift : start + shift + size])
        columns["gold"].append([gold])
        columns["prediction"].append(answer)
        columns["answer"].append(answer)
        columns["no_answer_score"].append(float(rng.normal(-8, 2)))
        columns["n_best"].append([{"text": answer, "score": 9.0}, {"text": words[0], "score": 1.5}])
        columns["question"].append(f"{gold_rng.choice(['who', 'where', 'when', 'what'])} is in {words[start - 1]} ?")
        columns["context"].append(context)
        columns["answers"].append({"text": [gold], "answer_start": [len(" ".join(words[:start])) + (start > 0)]})
    return columns, {"rules": "squad", "threshold": 0.0}


def _writing(
    gold_rng: np.random.Generator, rng: np.random.Generator, examples: int, right: float, labels: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    names = ("gold", "prediction", "ended", "stopped_by", "source")
    columns: dict[str, Any] = {name: [] for name in names}
    for i in range(examples):
        words = gold_rng.choice(WORDS, size=int(gold_rng.integers(4, 15)))
        others = np.where(gold_rng.random(len(words)) < 0.8, words, gold_rng.choice(WORDS, size=len(words)))
        output = np.where(rng.random(len(words)) < right, words, rng.choice(WORDS, size=len(words)))
        columns["gold"].append([" ".join(words), " ".join(others)])
        columns["prediction"].append(" ".join(output))
        columns["ended"].append(i % 7 > 0)
        columns["stopped_by"].append("end" if i % 7 else "limit")
        columns["source"].append(f"source {i} " + " ".join(words[::-1]))
    settings = {"bleu_tokenizer": "13a", "rouge_tokenizer": "english", "rouge_stemmer": True, "bertscore": None}
    return columns, {"metrics": ["bleu", "chrf"], "references": 2, **settings}


def _config(
    folder: Path, task: str, data_set: str, seed: int, splits: tuple[str, ...], changed: Mapping[str, Any]
) -> dict[str, Any]:
    model = ModelConfig(name="models/encoder-a")
    full = asdict(Config(task=choose("task", task), seed=seed, run_dir=str(folder), model=model))
    for split in ("train", *splits):
        full["data"][split] = f"/data/{data_set}/{split}.jsonl"
    for key, value in changed.items():
        *sections, name = key.split(".")
        place = full
        for section in sections:
            place = place[section]
        place[name] = value
    return full


def _provenance(config: Mapping[str, Any], examples: int, splits: tuple[str, ...]) -> dict[str, Any]:
    code = {"commit": "4e08262418790360c9101d712e8cb7509b8d3922", "remote": None, "uncommitted_diff": ""}
    hardware = {"processor": "AMD EPYC", "cores": 2, "threads": 1, "memory_mib": 24105, "gpus": []}
    attempt = {
        "started": "2026-11-22T07:28:10+0000",
        "resumed_from_step": None,
        "command": ["research", "train", "experiments/mine.yaml", f"seed={config['seed']}"],
        "ranks": 1,
        "code": {**code, "source_sha256": sha256(b"source")},
        "host": "vm",
        "slurm": None,
        "hardware": {**hardware, "python": "3.11.7", "system": "Linux-6.18-x86_64-with-glibc2.36"},
    }
    sizes = {"train": 10 * examples, **dict.fromkeys(splits, examples)}
    data = {
        split: {
            "origin": config["data"][split] or config["data"]["train"],
            "sha256": sha256(f"{config['data'][split]} {size}".encode()),
            "examples": size,
            "tokens": 20 * size,
        }
        for split, size in sizes.items()
    }
    return {
        "attempts": [attempt],
        "data": data,
        "weights": {"model.safetensors": sha256(b"weights")},
        "parameters": 22570381,
        "batching": "packed: equal to padded to the bit",
        "packages": {"numpy": "2.4.6", "research": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
    }


def _result(
    config: Mapping[str, Any], validation: dict[str, float], test: dict[str, float], best_step: int
) -> dict[str, Any]:
    steps = EPOCHS * STEPS_PER_EPOCH
    labels = [name.removeprefix("support/") for name in validation if name.startswith("support/")]
    return {
        "task": config["task"]["name"],
        "seed": config["seed"],
        "metrics": {"validation": validation, "test": test},
        "learned": {"labels": labels},
        "monitor": MONITORS[config["task"]["name"]],
        "steps": steps,
        "best_step": best_step,
        "stopped_early": False,
        "examples": 32 * steps,
        "tokens": 640 * steps,
        "train_seconds": 600.0,
        "device_hours": 600 / 3600,
        "examples_per_second": 32 * steps / 600,
        "tokens_per_second": 640 * steps / 600,
        "train_flops": 1e13,
        "peak_memory_mib": 1870,
        "parameters": 22570381,
        "batching": "packed: equal to padded to the bit",
        "cost": COST,
    }


def _train_rows(seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "step": step,
            "train/loss": float(1 / (1 + step / 10) + 0.05 * rng.random()),
            "train/grad_norm": float(rng.random()),
            "train/lr": 5e-5 * (1 - step / (EPOCHS * STEPS_PER_EPOCH)),
            "train/epoch": step / STEPS_PER_EPOCH,
            "time/examples_per_second": 44.0,
            "time/tokens_per_second": 1373.0,
            "time/step_seconds": 0.7,
        }
        for step in range(5, EPOCHS * STEPS_PER_EPOCH + 1, 5)
    ]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _generator(source: Any) -> np.random.Generator:
    """The same numbers for the same source, on every machine."""
    return np.random.default_rng(list(hashlib.sha256(json.dumps(source, sort_keys=True).encode()).digest()))
