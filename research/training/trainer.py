"""Make the Lightning Trainer that runs the steps."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from research.cluster.environment import ExternalRanks
from research.cluster.ranks import World
from research.common.errors import UserError
from research.config.schema import Config

PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_trainer(
    config: Config, callbacks: list[L.Callback], loggers: list[Any], segments: int = 1, world: World | None = None
) -> L.Trainer:
    """Lightning as the shell: devices and precision are its part; ranks and everything recorded are ours."""
    quiet()
    t, world = config.trainer, world or World()
    try:
        strategy: Any = t.strategy
        if strategy == "fsdp":
            strategy = ModelParallelStrategy(data_parallel_size=world.size, tensor_parallel_size=1)
        elif world.size > 1:
            # Some parameters get no gradient, such as a pooler whose output nothing reads: DDP would wait for it. And
            # unless it looks for them, it cuts its buckets again after the first step and sums four ranks in another
            # order: a resumed run would differ in the last bit.
            strategy = DDPStrategy(find_unused_parameters=True)
        return L.Trainer(
            accelerator=t.accelerator,
            devices=world.local_size,
            num_nodes=world.nodes,
            plugins=[ExternalRanks(world)],
            default_root_dir=config.run_dir,
            strategy=strategy,
            precision=PRECISIONS[t.precision],
            max_epochs=segments,  # an epoch of Lightning is the stretch between two evaluations
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
            logger=loggers or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            inference_mode=False,
        )
    except (MisconfigurationException, ValueError) as error:
        asked = f"trainer.accelerator={t.accelerator}, devices={t.devices}, strategy={t.strategy}"
        raise UserError(f"This machine cannot run {asked}: {' '.join(str(error).split())}") from None


def quiet() -> None:
    """No advice of Lightning's and torch's on settings that are ours."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")
