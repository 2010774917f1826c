"""Tokens per second and share of the matrix rate on a GPU: packed batches against the Trainer.

    python benchmarks/gpu.py                      bert-base and bert-large, three mixes of lengths, both step sizes
    python benchmarks/gpu.py --systems packed grouped --models bert-large --mixes squad
    python benchmarks/gpu.py --tiny               a small model for a few steps, on a CPU too: shows that it works

Random weights and tokens, lengths distributed as in SST-2, CoNLL-2003 and SQuAD; bf16. It needs torch,
transformers, datasets and accelerate alone. One line of JSON per measurement.

Shapes: T tokens of a step, N sequences.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the harness need not be installed
from rates import layer_parameters, layer_rate, training_flops

from research.batching.pack import MicroBatch, make_stream
from research.batching.store import INPUT
from research.models.backbone import Backbone
from research.models.dropout import swap_dropout
from research.training.optimizer import clip, make_optimizer, use_row_embedding

MIXES = {"sst2": (13.1, 30, 66), "conll": (20.4, 50, 172), "squad": (175, 301, 384)}  # mean, 95th percentile, longest
SHAPES = {  # layers, width, heads
    "bert-base": (12, 768, 12),
    "bert-large": (24, 1024, 16),
    "tiny": (2, 64, 2),
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "packed": {},
    "dynamic": {},
    "grouped": {"train_sampling_strategy": "group_by_length"},
    "compile": {"torch_compile": True},
}
LABELS = 9
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPTIM: Any = SimpleNamespace(lr=5e-5, weight_decay=0.01, beta1=0.9, beta2=0.999, eps=1e-8, max_grad_norm=1.0)


@dataclass
class Job:
    """One measurement's model and data: `examples[i]` are token ids, `labels` follow from them."""

    config: Any
    examples: list[np.ndarray]
    batch_size: int
    steps: int
    warmup: int

    def model(self) -> BertForTokenClassification:
        torch.manual_seed(0)
        return BertForTokenClassification(copy.deepcopy(self.config))  # a model writes into its config


def draw_lengths(mix: str, count: int, seed: int = 0) -> np.ndarray:
    """Log-normal lengths with a mix's mean and 95th percentile, cut at its longest."""
    mean, p95, longest = MIXES[mix]
    sigma = 1.645 - math.sqrt(1.645**2 - 2 * math.log(p95 / mean))
    drawn = np.random.default_rng(seed).lognormal(math.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(np.round(drawn), 3, longest).astype(np.int64)


def make_job(model: str, mix: str, step_tokens: int | None, steps: int, warmup: int) -> Job:
    """`step_tokens` tokens a step on average, or 32 examples where it is None."""
    layers, width, heads = SHAPES[model]
    settings: dict[str, Any] = dict(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width,
        num_labels=LABELS,
    )  # fmt: skip
    config = BertConfig(**settings)
    batch_size = 32 if step_tokens is None else max(1, round(step_tokens / MIXES[mix][0]))
    lengths = draw_lengths(mix, batch_size * (steps + warmup))
    ids = np.random.default_rng(1).zipf(1.2, int(lengths.sum())) % (config.vocab_size - 5) + 5
    return Job(config, np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1]), batch_size, steps, warmup)


def micro_batch(examples: list[np.ndarray]) -> MicroBatch:
    """One row of these examples, longest first."""
    examples = sorted(examples, key=len, reverse=True)
    lengths = np.array([len(e) for e in examples])
    ids = torch.from_numpy(np.concatenate(examples))
    return MicroBatch({INPUT: make_stream({"input_ids": ids, "label": ids % LABELS}, lengths)})


def batches(job: Job) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(job.examples), job.batch_size):
        yield job.examples[start : start + job.batch_size]


def run_packed(job: Job) -> float:
    """Seconds of the steps after the warm-up, in a bare loop over this harness's backbone and optimiser."""
    model = job.model()
    if DEVICE.type == "cpu":
        swap_dropout(model)
    backbone = Backbone(model).train()
    rows = use_row_embedding(model, OPTIM)
    backbone.to(DEVICE)
    optimizer = make_optimizer(backbone, OPTIM)
    began = 0.0
    for step, examples in enumerate(batches(job)):
        if step == job.warmup:
            began = now()
        item = micro_batch(examples)
        vocabulary = torch.unique(item.tokens["input_ids"]).to(DEVICE, non_blocking=True)
        item = item.to(DEVICE)
        optimizer.zero_grad(set_to_none=True)
        leaf = rows.begin(vocabulary) if rows is not None else None
        with torch.autocast(DEVICE.type, torch.bfloat16):
            logits = backbone.token_logits(item)["logits"]
            loss = F.cross_entropy(logits, item.tokens["label"])
        loss.backward()
        gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
        clip([*gradients, leaf.grad] if leaf is not None and leaf.grad is not None else gradients, OPTIM.max_grad_norm)
        optimizer.step()
        if rows is not None:
            rows.step(OPTIM.lr)
    return now() - began


def now() -> float:
    """The time when the device has done all it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class _Clock(TrainerCallback):
    def __init__(self, warmup: int) -> None:
        self.warmup, self.began = warmup, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step == self.warmup:
            self.began = now()

    def on_train_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self.ended = now()


def run_trainer(job: Job, settings: dict[str, Any]) -> float:
    """Seconds of the Trainer's steps after the warm-up."""
    multiple = 64 if settings.get("torch_compile") else 8

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        L = -(-max(len(row["input_ids"]) for row in rows) // multiple) * multiple
        ids, labels = torch.zeros(len(rows), L, dtype=torch.int64), torch.full((len(rows), L), -100)
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            ids[i, :n] = torch.from_numpy(row["input_ids"])
            labels[i, :n] = ids[i, :n] % LABELS
        return {"input_ids": ids, "attention_mask": (labels >= 0).long(), "labels": labels}

    clock = _Clock(job.warmup)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=job.batch_size, max_steps=job.steps + job.warmup,
            learning_rate=OPTIM.lr, weight_decay=OPTIM.weight_decay, bf16=True, use_cpu=DEVICE.type == "cpu",
            dataloader_pin_memory=DEVICE.type == "cuda", dataloader_num_workers=2 if DEVICE.type == "cuda" else 0,
            save_strategy="no", logging_steps=10**6, disable_tqdm=True, report_to="none", remove_unused_columns=False,
            **settings,
        )  # fmt: skip
        data: Any = [{"input_ids": ids} for ids in job.examples]
        Trainer(job.model(), arguments, data_collator=collate, train_dataset=data, callbacks=[clock]).train()
    return clock.ended - clock.began


def measure(system: str, job: Job, rate: float) -> dict[str, float]:
    """Rates of one system; tokens are real ones, MFU is of the matrix rate measured on this device."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = run_packed(job) if system == "packed" else run_trainer(job, SYSTEMS[system])
    # Grouping draws its own order: its batches hold the mean tokens.
    lengths = np.array([len(e) for e in job.examples])
    share = job.steps / (job.steps + job.warmup) if system != "packed" else 1.0
    lengths = lengths if system != "packed" else lengths[job.warmup * job.batch_size :]
    flops = share * training_flops(
        layer_parameters(job.model()), job.config.num_hidden_layers, job.config.hidden_size, lengths
    )
    return {
        "steps_per_second": job.steps / seconds,
        "tokens_per_second": share * float(lengths.sum()) / seconds,
        "mfu": flops / seconds / rate,
        "peak_mib": torch.cuda.max_memory_allocated() // 2**20 if DEVICE.type == "cuda" else 0,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["bert-base", "bert-large"])
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--step-tokens", type=int, default=16384, help="of the large steps; the small have 32 examples")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.models, options.mixes = ["tiny"], ["sst2"]
        options.step_tokens, options.steps, options.warmup = 1024, 3, 2
    return options


def main() -> None:
    options = parse()
    for model in options.models:
        _, width, _ = SHAPES[model]
        rate = layer_rate(options.step_tokens, width, 4 * width, 0.2 if options.tiny else 2.0, DEVICE.type)
        name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
        print(json.dumps({"model": model, "device": name, "torch": torch.__version__, "matrix_tflops": rate / 1e12}))
        for mix in options.mixes:
            for step_tokens in (None, options.step_tokens):
                job = make_job(model, mix, step_tokens, options.steps, options.warmup)
                for system in options.systems * options.rounds:
                    try:
                        row: dict[str, Any] = measure(system, job, rate)
                    except torch.OutOfMemoryError as error:
                        row = {"error": str(error).splitlines()[0]}
                    head = {"model": model, "mix": mix, "batch_size": job.batch_size, "system": system}
                    print(json.dumps({**head, **row}), flush=True)


if __name__ == "__main__":
    main()
