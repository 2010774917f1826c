"""Who is which rank, from the variables that torchrun and srun set (as a real SLURM 22.05 was seen to set them)."""

from __future__ import annotations

from itertools import product

import pytest

from research.cluster.ranks import FIRST_PORT, PORTS, World, first_node, ranks_of, started, tasks_of_nodes
from research.common.errors import UserError
from research.config.schema import TrainerConfig

SRUN = {
    "SLURM_JOB_ID": "123", "SLURM_STEP_ID": "0", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "3",
    "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_STEP_NODELIST": "gpu[08-09]",
    "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_JOB_NAME": "bash",
}  # fmt: skip
BATCH_SHELL = {
    "SLURM_JOB_ID": "123", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
}  # fmt: skip
TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1",
    "MASTER_ADDR": "first", "MASTER_PORT": "29500",
}  # fmt: skip


def test_alone() -> None:
    assert started({}) == World()
    assert ranks_of(TrainerConfig(accelerator="cpu"), {}) == World()
    assert ranks_of(TrainerConfig(devices=3), {}) == World(size=3, local_size=3)


def test_srun_without_tasks_per_node_and_with_uneven_nodes() -> None:
    world = started(SRUN)
    assert (world.rank, world.size, world.local_rank, world.local_size, world.node, world.nodes) == (2, 3, 0, 1, 1, 2)
    assert (world.address, world.launcher) == ("gpu08", "srun")
    first = started({**SRUN, "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"})
    assert (first.rank, first.local_rank, first.local_size) == (1, 1, 2)
    assert (first.address, first.port) == (world.address, world.port)
    assert ranks_of(TrainerConfig(), SRUN) == world  # whatever the name of the job


def test_each_attempt_and_job_has_a_port_of_its_own() -> None:
    ports = {
        started({**SRUN, "SLURM_JOB_ID": job, "SLURM_STEP_ID": step, "SLURM_RESTART_COUNT": restart}).port
        for job, step, restart in product(map(str, range(40, 44)), "01", "012345")
    }
    assert len(ports) == 4 * 2 * 6
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS < 32768 for port in ports)


def test_an_address_that_is_given_wins() -> None:
    world = started({**SRUN, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4444"})
    assert (world.address, world.port) == ("10.0.0.7", 4444)


def test_torchrun() -> None:
    world = started({**BATCH_SHELL, **TORCHRUN})
    assert world == World(5, 8, 1, 4, 1, 2, "first", 29500, "torchrun")
    assert ranks_of(TrainerConfig(devices=4, num_nodes=2), TORCHRUN) == world


@pytest.mark.parametrize(
    ("text", "tasks"),
    [("1", [1]), ("2(x2)", [2, 2]), ("4(x3),1", [4, 4, 4, 1]), ("2,1(x2),8", [2, 1, 1, 8])],
)
def test_tasks_of_nodes(text: str, tasks: list[int]) -> None:
    assert tasks_of_nodes(text) == tasks


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node7", "node1"),
        ("node[1-2]", "node1"),
        ("gpu[03-05,9],login1", "gpu03"),
        ("r[1-2]n[07-08]", "r1n07"),
        ("a-b-[010,012]", "a-b-010"),
        ("x1.y.org,x2.y.org", "x1.y.org"),
    ],
)
def test_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


@pytest.mark.parametrize(
    ("environment", "settings", "reported"),
    [
        (SRUN, {"devices": 4}, "trainer.devices=4, but SLURM runs 1 tasks on this node; leave trainer.devices at auto, "
         "or change the line `#SBATCH --ntasks-per-node=1` of the job script to 4."),
        (SRUN, {"num_nodes": 1}, "trainer.num_nodes=1, but SLURM runs 2 nodes; leave trainer.num_nodes at auto, "
         "or change the line `#SBATCH --nodes=2` of the job script to 1."),
        (TORCHRUN, {"devices": 2}, "trainer.devices=2, but torchrun runs 4 tasks on this node; leave trainer.devices "
         "at auto, or change `--nproc-per-node=4` to 2."),
        (BATCH_SHELL, {}, "This job has 2 nodes, but the command was started on one of them alone; put srun before it"),
        ({}, {"num_nodes": 2}, "trainer.num_nodes=2, but the command was started on one node; start it on each with "
         "srun (sbatch --nodes 2 SLURM/train.sbatch ...) or torchrun."),
    ],
)  # fmt: skip
def test_refusals(environment: dict[str, str], settings: dict[str, int], reported: str) -> None:
    with pytest.raises(UserError) as refused:
        ranks_of(TrainerConfig(accelerator="cpu", **settings), environment)  # type: ignore[arg-type]
    assert str(refused.value).startswith(reported)


def test_one_node_of_a_job_may_be_used_alone() -> None:
    assert ranks_of(TrainerConfig(accelerator="cpu", num_nodes=1), BATCH_SHELL) == World()
    one = {**BATCH_SHELL, "SLURM_JOB_NUM_NODES": "1"}
    assert ranks_of(TrainerConfig(accelerator="cpu", devices=2), one) == World(size=2, local_size=2)
