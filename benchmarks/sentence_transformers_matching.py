"""Train a bi-encoder with sentence-transformers, and print one JSON line: processor seconds and the vectors' file.

Run by benchmarks/matching.py with the interpreter that has sentence-transformers; nothing of this project is imported.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Processor seconds from the first step's beginning to the last step's end."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds = time.process_time() - self.began


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model", "train", "test", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("seed", "batch_size", "max_length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in Path(asked.train).read_text(encoding="utf-8").splitlines()]
    model = SentenceTransformer(asked.model, device="cpu")
    model.max_seq_length = asked.max_length
    steps = -(-len(rows) // asked.batch_size)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=asked.output, num_train_epochs=1, per_device_train_batch_size=asked.batch_size,
        learning_rate=asked.lr, warmup_steps=round(0.1 * steps), weight_decay=0.01, bf16=True, use_cpu=True,
        seed=asked.seed, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    clock = Clock()
    pairs = Dataset.from_list([{"anchor": row["query"], "positive": row["document"]} for row in rows])
    loss = MultipleNegativesRankingLoss(model, scale=20.0)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=pairs, loss=loss, callbacks=[clock]).train()
    test = [json.loads(line) for line in Path(asked.test).read_text(encoding="utf-8").splitlines()]
    vectors = {
        side: model.encode(
            [row[side] for row in test], normalize_embeddings=True, batch_size=32, show_progress_bar=False
        )
        for side in ("query", "document")
    }
    np.savez(Path(asked.output) / "vectors.npz", **vectors)
    print(json.dumps({"processor_seconds": clock.seconds, "examples": len(rows)}))


if __name__ == "__main__":
    main()
