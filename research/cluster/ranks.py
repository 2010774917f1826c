"""Which rank this process is, and of how many: as torchrun, srun or this command's own launcher says.

Lightning's own look at SLURM is not used: it depends on the job's name and takes `--ntasks` for a mistake. Nothing
here imports torch before it must, so a mistake is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from research.common.errors import UserError

if TYPE_CHECKING:
    from research.config.schema import TrainerConfig

FIRST_PORT, PORTS = 20000, 10000  # below those that systems hand out by themselves


@dataclass(frozen=True)
class World:
    """The ranks of a run, and the place of this process among them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this node
    local_size: int = 1
    node: int = 0
    nodes: int = 1
    address: str = "127.0.0.1"  # of rank 0
    port: int = 0
    launcher: str | None = None  # srun or torchrun; None: this process was started by itself


def started(environment: Mapping[str, str] = os.environ) -> World:
    """The ranks as whoever started this process laid them out; for one started by itself, it alone."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    if "SLURM_STEP_NUM_TASKS" in environment:  # the batch shell has a SLURM_PROCID too, but is no rank
        return _of_srun(environment)
    return World()


def _of_torchrun(environment: Mapping[str, str]) -> World:
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    return World(
        rank=rank,
        size=size,
        local_rank=int(environment.get("LOCAL_RANK", rank % local_size)),
        local_size=local_size,
        node=int(environment.get("GROUP_RANK", rank // local_size)),
        nodes=-(-size // local_size),
        address=environment.get("MASTER_ADDR", "127.0.0.1"),
        port=int(environment.get("MASTER_PORT", FIRST_PORT)),
        launcher="torchrun",
    )


def _of_srun(environment: Mapping[str, str]) -> World:
    node, tasks = int(environment["SLURM_NODEID"]), tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
    job, step, restart = (
        int(environment.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    )
    # Another port for each attempt, or the next would meet what the last has left behind.
    port = FIRST_PORT + (31 * job + 7 * step + restart) % PORTS
    return World(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        local_size=tasks[node],
        node=node,
        nodes=len(tasks),
        address=environment.get("MASTER_ADDR") or first_node(environment["SLURM_STEP_NODELIST"]),
        port=int(environment.get("MASTER_PORT") or port),
        launcher="srun",
    )


def tasks_of_nodes(text: str) -> list[int]:
    """SLURM's short form, `2(x3),1`, as [2, 2, 2, 1]."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, nodes in parts for _ in range(int(nodes or 1))]


def first_node(nodes: str) -> str:
    """The first of a list in SLURM's short form: `gpu[03-05,9],login1` begins with `gpu03`."""
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes).split(",")[0]


def ranks_of(trainer: TrainerConfig, environment: Mapping[str, str] = os.environ) -> World:
    """The ranks of a run of this experiment.

    Where the process was started by itself, `size` says how many this command has still to start (`launch`).
    Raises UserError when the experiment asks for others than there are.
    """
    world = started(environment)
    if world.launcher is not None:
        _refuse_other_layout(trainer, world)
        return world
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", 1))
    if nodes > 1 and trainer.num_nodes == "auto":
        raise UserError(
            f"This job has {nodes} nodes, but the command was started on one of them alone; put srun before it "
            "(SLURM/train.sbatch does), or set trainer.num_nodes=1 to use this node only."
        )
    if trainer.num_nodes not in ("auto", 1):
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}, but the command was started on one node; start it on each with "
            f"srun (sbatch --nodes {trainer.num_nodes} SLURM/train.sbatch ...) or torchrun."
        )
    devices = _all_gpus(trainer) if trainer.devices == "auto" else int(trainer.devices)
    return replace(world, size=devices, local_size=devices)


def _all_gpus(trainer: TrainerConfig) -> int:
    """Every GPU of this machine, or one process."""
    if trainer.accelerator == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _refuse_other_layout(trainer: TrainerConfig, world: World) -> None:
    """Raise UserError unless devices and nodes are auto or as many as were started."""
    by_srun = world.launcher == "srun"
    who, started_line = ("SLURM", "the line `#SBATCH {}` of the job script") if by_srun else ("torchrun", "`{}`")
    for key, asked, found, what, options in (
        ("devices", trainer.devices, world.local_size, "tasks on this node", ("--ntasks-per-node", "--nproc-per-node")),
        ("num_nodes", trainer.num_nodes, world.nodes, "nodes", ("--nodes", "--nnodes")),
    ):
        if asked not in ("auto", found):
            line = started_line.format(f"{options[0 if by_srun else 1]}={found}")
            raise UserError(
                f"trainer.{key}={asked}, but {who} runs {found} {what}; leave trainer.{key} at auto, or change "
                f"{line} to {asked}."
            )
