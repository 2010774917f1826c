"""What a run computes on and in which precision, in words, and GPUs of the node that it was not given."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from research.cluster.ranks import World
from research.common.compat import multiplies_bf16
from research.common.text import counted

DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU of the node, whatever the job may use


def layout_note(device: torch.device, precision: str, world: World) -> str:
    """`2 ranks on 1 node, each on cpu with 4 threads, bf16`."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    threads = counted(torch.get_num_threads(), "thread")
    place = f"{'each ' if world.size > 1 else ''}on {named} with {threads}"
    return f"{counted(world.size, 'rank')} on {counted(world.nodes, 'node')}, {place}, {precision}"


def fast_precision(accelerator: str) -> Literal["bf16", "fp32"]:
    """bf16 where this machine has instructions for its products; elsewhere they are many times slower than in fp32."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if multiplies_bf16() else "fp32"


def slow_precision_note(device: torch.device, precision: str) -> str | None:
    """A warning where bf16 was asked for on a processor that has no instructions for it."""
    if device.type != "cpu" or precision != "bf16" or multiplies_bf16():
        return None
    return (
        "This processor has no bf16 instructions: its products are many times slower than in fp32. "
        "trainer.precision=auto chooses fp32 here, in another run_dir."
    )


def unused_gpus_note(
    device: torch.device, accelerator: str, ranks: int = 1, visible: int | None = None, driver: Path = DRIVER
) -> str | None:
    """A warning where this node has GPUs and the run has none, or where the `ranks` of the node leave some idle.

    `visible`: the GPUs that this process sees. trainer.accelerator=cpu asks for none.
    """
    if accelerator == "cpu":
        return None
    if device.type == "cuda":
        visible = torch.cuda.device_count() if visible is None else visible
        if visible <= ranks:
            return None
        return (
            f"This run was given {counted(visible, 'GPU')} of this node and uses {ranks}: start a rank for each "
            f"(--ntasks-per-node={visible} under SLURM, trainer.devices={visible} elsewhere), or ask for fewer."
        )
    present = len(list(driver.iterdir())) if driver.is_dir() else 0
    if not present:
        return None
    return (
        f"This node has {counted(present, 'GPU')}, but none was given to this run: it trains on the CPU. Ask SLURM for "
        "them (--gpus-per-node, or SBATCH_GPUS_PER_NODE in SLURM/site.sh), or check CUDA_VISIBLE_DEVICES and that "
        "torch is built for CUDA."
    )
