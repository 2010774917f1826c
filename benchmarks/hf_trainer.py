"""The Hugging Face Trainer on the same task, data and weights: what this harness is measured against.

    python benchmarks/hf_trainer.py sentiment --model DIR --train train.jsonl --bf16 --max-steps 100
    python benchmarks/hf_trainer.py ner --model DIR --train train.conll --validation validation.conll --evaluate
    python benchmarks/hf_trainer.py qa --model DIR --train train.json --batch-size 12 --naive

The recipe of the library's own example scripts: dynamic padding, fused AdamW, linear schedule with warmup.
`--group-by-length` and `--compile` are its faster settings; `--naive` is the script most tutorials show: every
text padded to `max_length`, float32, AdamW neither fused nor batched. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import psutil
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

Rows = list[dict[str, Any]]
MAX_LENGTH = {"sentiment": 128, "ner": 128, "qa": 384}


def read(path: Path, limit: int | None) -> Rows:
    """Rows of a JSONL, CoNLL or SQuAD file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()[:limit]]
    elif path.suffix == ".json":
        paragraphs = [p for article in json.loads(text)["data"] for p in article["paragraphs"]]
        rows = [{"context": p["context"], **question} for p in paragraphs for question in p["qas"]]
    else:
        sentences = [block.splitlines() for block in text.strip().split("\n\n")]
        pairs = [[line.split() for line in sentence] for sentence in sentences]
        rows = [{"tokens": [p[0] for p in sentence], "tags": [p[-1] for p in sentence]} for sentence in pairs]
    return rows[:limit]


class Sentiment:
    auto_class, collator = AutoModelForSequenceClassification, DataCollatorWithPadding

    def __init__(self, train: Rows) -> None:
        self.labels = sorted({row["label"] for row in train})

    def encode(self, tokenizer: Any, rows: Rows, **truncate: Any) -> Dataset:
        tokens = tokenizer([row["text"] for row in rows], truncation=True, **truncate)
        return Dataset.from_dict({**tokens, "labels": [self.labels.index(row["label"]) for row in rows]})

    def score(self, outputs: Any) -> dict[str, float]:
        return {"accuracy": float((outputs.predictions.argmax(-1) == outputs.label_ids).mean())}


class Ner:
    auto_class, collator = AutoModelForTokenClassification, DataCollatorForTokenClassification

    def __init__(self, train: Rows) -> None:
        self.labels = sorted({tag for row in train for tag in row["tags"]})

    def encode(self, tokenizer: Any, rows: Rows, **truncate: Any) -> Dataset:
        """A word's tag stands at its first token; the other tokens are no targets (-100)."""
        tokens = tokenizer([row["tokens"] for row in rows], is_split_into_words=True, truncation=True, **truncate)
        ids = {tag: i for i, tag in enumerate(self.labels)}
        labels = []
        for i, row in enumerate(rows):
            words = tokens.word_ids(i)
            first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            labels.append([ids.get(row["tags"][w], 0) if new else -100 for w, new in zip(words, first, strict=True)])
        return Dataset.from_dict({**tokens, "labels": labels})

    def score(self, outputs: Any) -> dict[str, float]:
        from seqeval.metrics import f1_score

        target = outputs.label_ids != -100
        gold, guessed = (
            [[self.labels[i] for i in row[keep]] for row, keep in zip(ids, target, strict=True)]
            for ids in (outputs.label_ids, outputs.predictions.argmax(-1))
        )
        return {"f1": float(f1_score(gold, guessed))}


class Qa:
    auto_class, collator, labels = AutoModelForQuestionAnswering, DataCollatorWithPadding, None

    def __init__(self, train: Rows) -> None:
        pass

    def encode(self, tokenizer: Any, rows: Rows, **truncate: Any) -> Dataset:
        """Windows of 128 tokens overlap; a window that does not show its complete answer points at its first token."""
        tokens = tokenizer(
            [row["question"].strip() for row in rows],
            [row["context"] for row in rows],
            truncation="only_second",
            stride=128,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            **truncate,
        )
        self.rows, self.example = rows, tokens.pop("overflow_to_sample_mapping")
        self.spans = [
            [span if part == 1 else None for span, part in zip(offsets, tokens.sequence_ids(i), strict=True)]
            for i, offsets in enumerate(tokens.pop("offset_mapping"))
        ]
        places = [_place(spans, rows[e]["answers"]) for spans, e in zip(self.spans, self.example, strict=True)]
        starts, ends = zip(*places, strict=True)
        return Dataset.from_dict({**tokens, "start_positions": starts, "end_positions": ends})

    def score(self, outputs: Any) -> dict[str, float]:
        """Exact match and F1 of the best span of at most 30 tokens over the windows of each question."""
        from torchmetrics.functional.text import squad

        best: dict[int, tuple[float, str]] = {}
        for window, example in enumerate(self.example):
            spans = self.spans[window]
            start, end = (x[window, : len(spans)] for x in outputs.predictions[:2])
            starts, ends = (np.argsort(-x)[:20].tolist() for x in (start, end))
            for a in starts:
                for b in ends:
                    if a <= b < a + 30 and spans[a] and spans[b] and start[a] + end[b] > best.get(example, (-1e9,))[0]:
                        best[example] = start[a] + end[b], self.rows[example]["context"][spans[a][0] : spans[b][1]]
        guesses = [{"prediction_text": best.get(i, (0, ""))[1], "id": str(i)} for i in range(len(self.rows))]
        answers = [{k: [a[k] for a in row["answers"]] for k in ("text", "answer_start")} for row in self.rows]
        golds: Any = [{"answers": answer, "id": str(i)} for i, answer in enumerate(answers)]
        return {name: float(value) / 100 for name, value in squad(guesses, golds).items()}


def _place(spans: list[Any], answers: Rows) -> tuple[int, int]:
    context = [i for i, span in enumerate(spans) if span]
    if not answers or not context:
        return 0, 0
    first, last = answers[0]["answer_start"], answers[0]["answer_start"] + len(answers[0]["text"])
    if spans[context[0]][0] > first or spans[context[-1]][1] < last:
        return 0, 0
    return max(i for i in context if spans[i][0] <= first), min(i for i in context if spans[i][1] >= last)


TASKS: dict[str, Any] = {"sentiment": Sentiment, "ner": Ner, "qa": Qa}


class Counter:
    """A collator that notes the examples and the real tokens of each batch, in the order they are trained on."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.examples, self.tokens = collator, [], []  # type: ignore[var-annotated]

    def __call__(self, features: Rows) -> Any:
        self.examples.append(len(features))
        self.tokens.append(sum(sum(row["attention_mask"]) for row in features))
        return self.collator(features)


class Clock(TrainerCallback):
    """Notes the time when steps end; `began` is the moment the warm-up steps are over."""

    def __init__(self, warmup_steps: int) -> None:
        self.warmup_steps, self.first_step = warmup_steps, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self.ended = time.perf_counter()
        if state.global_step == 1:
            self.first_step = time.time() - psutil.Process().create_time()
        if state.global_step == self.warmup_steps:
            self.began = self.ended


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--evaluate", action="store_true", help="score the validation file after training")
    parser.add_argument("--max-train-examples", type=int)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--warmup-steps", type=int, default=0, help="steps before the clock starts")
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--naive", action="store_true")
    return parser


def make_trainer(args: argparse.Namespace, clock: Clock, folder: str) -> tuple[Trainer, Counter]:
    """The Trainer on encoded data; the counter knows what its batches held."""
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = read(args.train, args.max_train_examples)
    task = TASKS[args.task](rows)
    length: dict[str, Any] = {"max_length": args.max_length or MAX_LENGTH[args.task]}
    if args.naive:
        length["padding"] = "max_length"
    train = task.encode(tokenizer, rows, **length)
    valid = task.encode(tokenizer, read(args.validation, None), **length) if args.validation else None
    counter = Counter(task.collator(tokenizer))
    steps = args.max_steps if args.max_steps > 0 else int(args.epochs * -(-len(train) // args.batch_size))
    trainer = Trainer(
        model=task.auto_class.from_pretrained(args.model, **({"num_labels": len(task.labels)} if task.labels else {})),
        args=TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=64,
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            learning_rate=args.lr,
            warmup_steps=steps // 10,
            weight_decay=0.01,
            optim="adamw_torch" if args.naive else "adamw_torch_fused",
            bf16=args.bf16 and not args.naive,
            torch_compile=args.compile,
            train_sampling_strategy="group_by_length" if args.group_by_length else "random",
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=train,
        eval_dataset=valid,
        data_collator=counter,
        compute_metrics=task.score,
        callbacks=[clock],
    )
    return trainer, counter


def peak_mib() -> int:
    """Of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run(args: argparse.Namespace, clock: Clock, folder: str) -> dict[str, Any]:
    """Train, evaluate if asked, and say how fast."""
    trainer, counter = make_trainer(args, clock, folder)
    trainer.train()
    seconds, timed = clock.ended - clock.began, slice(args.warmup_steps, trainer.state.global_step)
    result: dict[str, Any] = {
        "task": args.task,
        "steps": trainer.state.global_step,
        "examples_per_second": sum(counter.examples[timed]) / seconds,
        "tokens_per_second": sum(counter.tokens[timed]) / seconds,
        "loop_seconds": seconds,
        "first_step_seconds": clock.first_step,
        "peak_mib": peak_mib(),
    }
    if args.evaluate:
        trainer.args.train_sampling_strategy = "random"  # grouping would reorder the evaluation too
        began = time.perf_counter()
        scores = trainer.evaluate()
        result["evaluation_examples_per_second"] = len(trainer.eval_dataset) / (time.perf_counter() - began)  # type: ignore[arg-type]
        result["scores"] = {k: v for k, v in scores.items() if k in ("eval_accuracy", "eval_f1", "eval_exact_match")}
    return result


def main() -> None:
    args = make_parser().parse_args()
    clock = Clock(args.warmup_steps)
    with tempfile.TemporaryDirectory() as folder:
        result = run(args, clock, folder)
    result["process_seconds"] = time.time() - psutil.Process().create_time()
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
