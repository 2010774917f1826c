"""What a run computes on, in words, and GPUs of the node that it was not given."""

from __future__ import annotations

from pathlib import Path

import torch

from research.cluster.ranks import World
from research.common.text import counted

DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU of the node, whatever the job may use


def layout_note(device: torch.device, precision: str, world: World) -> str:
    """`2 ranks on 1 node, each on cpu (4 threads), bf16`."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    ranks = f"{world.size} rank{'s' * (world.size > 1)} on {world.nodes} node{'s' * (world.nodes > 1)}"
    return f"{ranks}, {'each ' if world.size > 1 else ''}on {named}, {precision}"


def unused_gpus_note(device: torch.device, accelerator: str, driver: Path = DRIVER) -> str | None:
    """A warning where this node has GPUs and the run has none, unless trainer.accelerator=cpu asks for that."""
    present = len(list(driver.iterdir())) if driver.is_dir() else 0
    if device.type == "cuda" or accelerator == "cpu" or not present:
        return None
    return (
        f"This node has {counted(present, 'GPU')}, but none was given to this run: it trains on the CPU. Ask SLURM for "
        "them (--gpus-per-node, or SBATCH_GPUS_PER_NODE in SLURM/site.sh), or check CUDA_VISIBLE_DEVICES and "
        "that torch is built for CUDA."
    )
