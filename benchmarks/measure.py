"""What a benchmark measures inside its own process: evaluation, tokenising, what Lightning's loop costs."""

from __future__ import annotations

import statistics
import time
from typing import Any

import lightning as L
import torch

from research.config.schema import Config
from research.training.build import build
from research.training.module import TaskModule
from research.training.optimizer import clip
from research.training.schedule import learning_rate
from research.training.trainer import make_trainer


def tokenising(module: TaskModule, split: str = "train", rows: int = 5000) -> dict[str, float]:
    """Rows and tokens per second of `Dataset.map` over the task's encoding, without its cache."""
    data = module.data
    part = data.splits[split].rows.select(range(min(rows, len(data.splits[split].rows))))
    began = time.perf_counter()
    part.map(data.encode, batched=True, remove_columns=part.column_names, load_from_cache_file=False)
    seconds = time.perf_counter() - began
    tokens = float(data.stores[split].tokens[: len(part)].sum())
    return {"rows_per_second": len(part) / seconds, "tokens_per_second": tokens / seconds}


def evaluation(module: TaskModule) -> float:
    """Examples per second of an evaluation of the test split, with predictions decoded and scored."""
    trainer = make_trainer(module.config, [_Scores()], [])
    began = time.perf_counter()
    trainer.test(module, datamodule=module.data, verbose=False)
    return len(module.data.stores["test"]) / (time.perf_counter() - began)


class _Scores(L.Callback):
    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        module.scored()


def bare_step(module: TaskModule, optimizer: torch.optim.Optimizer, item: Any) -> None:
    """`TaskModule.training_step` on one device without Lightning around it."""
    torch.manual_seed(item.step)
    optim = module.config.optim
    lr = learning_rate(optim, item.step, module.total_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    leaf = module.rows.begin(item.vocabulary) if module.rows is not None else None
    for micro in item.micro:
        with torch.autocast("cpu", torch.bfloat16, enabled=module.config.trainer.precision == "bf16"):
            loss = module.loss(micro)[0] / item.targets
        loss.backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if leaf is not None and leaf.grad is not None:
        gradients.append(leaf.grad)
    clip(gradients, optim.max_grad_norm)
    optimizer.step()
    if module.rows is not None:
        module.rows.step(lr)


class _Paired(L.Callback):
    """Beside each step of Lightning's loop, the same step by a bare one. CPU time of the thread that trains."""

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.planner = module.data.train_dataloader().planner
        self.lightning: list[float] = []
        self.bare: list[float] = []
        self.mark, self.elsewhere = time.thread_time(), 0.0

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, item: Any, batch_idx: int) -> None:
        if batch_idx % 2 == 0:  # by turns, or the second would always find its rows in the cache
            self._bare_step(trainer, module, item)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, item: Any, batch_idx: int) -> None:
        if batch_idx % 2 == 1:
            self._bare_step(trainer, module, item)
        now = time.thread_time()
        self.lightning.append(now - self.mark - self.elsewhere)
        self.mark, self.elsewhere = now, 0.0

    def _bare_step(self, trainer: L.Trainer, module: Any, item: Any) -> None:
        entered = time.thread_time()
        again = self.planner(item.step)  # the attention keeps its plan of `item`
        began = time.thread_time()
        bare_step(module, trainer.optimizers[0], again)
        ended = time.thread_time()
        self.bare.append(ended - began)
        self.elsewhere = ended - entered


def lightning_cost(config: Config) -> dict[str, float]:
    """Seconds of a step in Lightning's loop and in a bare one, alternating on the same batches: medians."""
    module, pairs = build(config), _Paired()
    module.train()
    make_trainer(config, [pairs], []).fit(module, datamodule=module.data)
    warm = len(pairs.bare) // 4
    more = [a - b for a, b in zip(pairs.lightning[warm:], pairs.bare[warm:], strict=True)]
    return {"bare_seconds": statistics.median(pairs.bare[warm:]), "lightning_adds_seconds": statistics.median(more)}
