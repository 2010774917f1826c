"""How ranks meet and agree, as processes of their own; and what is said when they cannot."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable
from multiprocessing import Queue
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from research.cluster import group
from research.cluster.group import rendezvous
from research.cluster.ranks import World
from research.common.errors import UserError
from tests.slurm_cluster import free_port

pytestmark = pytest.mark.process


def ranks(task: Callable[[World], Any], size: int, **settings: Any) -> list[Any]:
    """What a task returns, or the exception it raises, on each rank. Two ranks make a node."""
    context, port = multiprocessing.get_context("forkserver"), settings.pop("port", None) or free_port()
    context.set_forkserver_preload(["research.cluster.group"])
    reported: Queue[Any] = context.Queue()
    processes = []
    for rank in range(size):
        world = World(rank, size, rank % 2, min(size, 2), rank // 2, -(-size // 2), "127.0.0.1", port, "torchrun")
        processes.append(context.Process(target=_run, args=(task, world, settings, reported)))
        processes[-1].start()
    found = dict(reported.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(20)
    return [found[rank] for rank in range(size)]


def _run(task: Callable[[World], Any], world: World, settings: dict[str, Any], reported: Queue[Any]) -> None:
    for name, value in settings.items():
        setattr(group, name, value)
    try:
        reported.put((world.rank, task(world)))
    except UserError as error:
        reported.put((world.rank, error))
    except Exception as error:
        reported.put((world.rank, repr((group.has_lost_the_others(error), error))))


def choices(world: World) -> list[Any]:
    ranks_group = rendezvous(world, "cpu")
    first = ranks_group.agree(lambda: {"from": world.rank, "nothing": None})
    second = ranks_group.agree(lambda: time.sleep(0.3) or [world.rank])  # the others wait
    total = torch.tensor([float(world.rank)])
    dist.all_reduce(total)
    ranks_group.leave()
    return [first, second, float(total)]


def test_rank_zero_chooses_for_all() -> None:
    assert ranks(choices, 3) == [[{"from": 0, "nothing": None}, [0], 3.0]] * 3


def turns(world: World) -> tuple[float, float]:
    ranks_group = rendezvous(world, "cpu")
    with ranks_group.local_rank_zero_first():
        began = time.monotonic()
        time.sleep(0.2)
        ended = time.monotonic()
    ranks_group.leave()
    return began, ended


def test_one_rank_of_each_node_goes_first() -> None:
    spans = ranks(turns, 4)
    for first, second in ((0, 1), (2, 3)):
        assert spans[second][0] >= spans[first][1]
    assert spans[2][0] < spans[0][1] and spans[0][0] < spans[2][1]  # the nodes do not wait for each other


def test_one_rank_needs_no_meeting() -> None:
    alone = rendezvous(World(), "cpu")
    assert alone.agree(lambda: Path("any object")) == Path("any object")
    with alone.local_rank_zero_first():
        assert not dist.is_initialized()


def leaves(world: World) -> None:
    ranks_group = rendezvous(world, "cpu")
    if world.rank == 0:
        raise UserError("rank 0 has found a mistake")
    ranks_group.agree(lambda: 1)


def test_a_rank_that_has_left_is_not_waited_for() -> None:
    first, second = ranks(leaves, 2)
    assert str(first) == "rank 0 has found a mistake" and second.startswith("(True, "), second


def first_of_two(world: World) -> None:
    rendezvous(World(rank=0, size=2, port=world.port), "cpu")


def second_of_two(world: World) -> None:
    rendezvous(World(rank=1, size=2, port=world.port), "cpu")


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        reported = str(ranks(first_of_two, 1, port=port)[0])
    assert f"The port {port} of " in reported and "is in use; set MASTER_PORT to a free one" in reported


def elsewhere(world: World) -> None:
    rendezvous(World(size=2, address="no-such-node.invalid", port=world.port), "cpu")


def test_an_address_that_does_not_resolve() -> None:
    reported = str(ranks(elsewhere, 1, RESOLVE_SECONDS=1.0)[0])
    assert reported.startswith("The ranks are to meet at no-such-node.invalid, but that does not resolve on ")
    assert "set MASTER_ADDR (in SLURM/site.sh, say) to an address of the first node." in reported


@pytest.mark.parametrize(("rank", "meets"), [(0, first_of_two), (1, second_of_two)])
def test_a_rank_that_does_not_come(rank: int, meets: Callable[[World], None]) -> None:
    reported = str(ranks(meets, 1, RENDEZVOUS_SECONDS=2.0)[0])
    assert (
        reported.startswith(f"Rank {rank} of 2 on ")
        and "has waited 2 s in vain for the others at 127.0.0.1" in reported
    )
