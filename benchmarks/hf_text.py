"""The Hugging Face Trainer on pairs of texts: what the text tasks of this harness are measured against.

    python benchmarks/hf_text.py causal  --model DIR --train pairs.jsonl --bf16 --max-steps 20
    python benchmarks/hf_text.py seq2seq --model DIR --train pairs.jsonl --generate pairs.jsonl --sorted

The files hold {"source", "target"} lines. `seq2seq` is Seq2SeqTrainer (T5, BART, Marian, ...); `causal` is Trainer on
source, new line, target and end token, the loss of the target alone. The recipe is that of the library's examples:
dynamic padding, fused AdamW, linear schedule with warmup. `--generate` times greedy generation: by
`Seq2SeqTrainer.predict` in the order of the file as the scripts do it, or by hand in batches sorted by length. The last
line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from hf_trainer import Clock, peak_mib
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

Row = dict[str, Any]


def encode(args: argparse.Namespace, tokenizer: Any, row: Row, with_target: bool = True) -> Row:
    """Token ids of a pair; -100 where a decoder reads the source."""
    ids = tokenizer(row["source"], truncation=True, max_length=args.max_source)["input_ids"]
    if args.kind == "seq2seq":
        labels = tokenizer(text_target=row["target"], truncation=True, max_length=args.max_target)["input_ids"]
        return {"input_ids": ids, "labels": labels}
    ids = ids + tokenizer("\n", add_special_tokens=False)["input_ids"]
    if not with_target:
        return {"input_ids": ids}
    target = tokenizer(row["target"], add_special_tokens=False)["input_ids"][: args.max_target - 1]
    target.append(tokenizer.eos_token_id)
    return {"input_ids": ids + target, "labels": [-100] * len(ids) + target}


def make_trainer(args: argparse.Namespace, model: Any, tokenizer: Any, clock: Clock, folder: str) -> Seq2SeqTrainer:
    """Of either kind of model: without generation Seq2SeqTrainer is Trainer."""
    rows = read(args.train, args.max_train_examples)
    return Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.eval_batch_size,
            max_steps=args.max_steps,
            learning_rate=args.lr,
            warmup_steps=args.max_steps // 10,
            weight_decay=0.01,
            bf16=args.bf16,
            train_sampling_strategy="group_by_length" if args.group_by_length else "random",
            predict_with_generate=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=Dataset.from_list([encode(args, tokenizer, row) for row in rows]),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model if args.kind == "seq2seq" else None),
        processing_class=tokenizer,
        callbacks=[clock],
    )


def read(path: Path, limit: int | None) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:limit]]


def generate(args: argparse.Namespace, trainer: Seq2SeqTrainer, tokenizer: Any) -> dict[str, float]:
    """Seconds and written tokens of greedy generation."""
    rows = [encode(args, tokenizer, row, with_target=False) for row in read(args.generate, args.max_generated_examples)]
    limit: dict[str, Any] = {"max_new_tokens": args.max_target, "do_sample": False, "num_beams": 1}
    began = time.perf_counter()
    if args.sorted:
        texts = by_hand(args, trainer.model, tokenizer, rows, limit)
    else:
        trainer.args.train_sampling_strategy = "random"  # grouping would reorder the evaluation too
        ids: Any = trainer.predict(Dataset.from_list(rows), **limit).predictions
        texts = tokenizer.batch_decode(ids.clip(0), skip_special_tokens=True)
    seconds = time.perf_counter() - began
    return {"generated": len(texts), "generation_examples_per_second": len(texts) / seconds}


def by_hand(args: argparse.Namespace, model: Any, tokenizer: Any, rows: list[Row], limit: dict[str, Any]) -> list[str]:
    """Batches of texts of similar length, the longest first."""
    model.eval()
    tokenizer.padding_side = "left" if args.kind == "causal" else "right"
    order, texts = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"])), [""] * len(rows)
    for start in range(0, len(order), args.eval_batch_size):
        part = order[start : start + args.eval_batch_size]
        batch = tokenizer.pad({"input_ids": [rows[i]["input_ids"] for i in part]}, return_tensors="pt").to(model.device)
        batch.pop("token_type_ids", None)
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=args.bf16):
            ids = model.generate(**batch, pad_token_id=tokenizer.pad_token_id, **limit)
        ids = ids[:, batch["input_ids"].shape[1] :] if args.kind == "causal" else ids
        for i, text in zip(part, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            texts[i] = text
    return texts


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["seq2seq", "causal"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--max-train-examples", type=int)
    parser.add_argument("--generate", type=Path, help="generate the targets of this file after training")
    parser.add_argument("--max-generated-examples", type=int)
    parser.add_argument("--sorted", action="store_true", help="generate by hand in batches sorted by length")
    parser.add_argument("--max-source", type=int, default=512)
    parser.add_argument("--max-target", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--eval-batch-size", type=int, default=64)
    parser.add_argument("--max-steps", type=int, required=True, help="0: no training")
    parser.add_argument("--warmup-steps", type=int, default=0, help="steps before the clock starts")
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--group-by-length", action="store_true")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    auto = AutoModelForSeq2SeqLM if args.kind == "seq2seq" else AutoModelForCausalLM
    model = auto.from_pretrained(args.model, dtype=torch.float32)
    clock = Clock(args.warmup_steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, model, tokenizer, clock, folder)
        result: dict[str, Any] = {}
        if args.max_steps:
            trainer.train()
            seen = (args.max_steps - args.warmup_steps) * args.batch_size
            result = {"examples_per_second": seen / (clock.ended - clock.began), "peak_mib": peak_mib()}
        if args.generate:
            result.update(generate(args, trainer, tokenizer))
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
