"""Rendezvous of the ranks of a run, and the choices of rank 0 that all of them follow.

Rank 0 keeps a key-value store, and the process group of the gradients is formed over it. What could differ from rank
to rank (is the run finished? which checkpoint is intact?) is looked up by rank 0 and sent to the others.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from research.cluster.ranks import World
from research.cluster.slurm import node_name
from research.common.errors import UserError
from research.common.text import counted

log = logging.getLogger("research")
RESOLVE_SECONDS = 15.0  # a name server may be slow to answer
RENDEZVOUS_SECONDS = 300.0  # a shared file system may hold up the imports of some
COLLECTIVE_MINUTES = 15.0
LEAVE_SECONDS = 10.0  # a rank that was stopped may have left silently
T = TypeVar("T")


class RankGroup:
    """The ranks of a run that have met. A rank alone agrees with itself."""

    def __init__(self, world: World | None = None, store: dist.Store | None = None) -> None:
        self.world, self.store = world or World(), store
        self.exchanges = 0

    def agree(self, choose: Callable[[], T]) -> T:
        """What rank 0 chooses, on every rank. A choice is plain data, as JSON holds it."""
        if self.store is None:
            return choose()
        self.exchanges += 1
        key = f"choice/{self.exchanges}"
        if self.world.rank == 0:
            self.store.set(key, json.dumps(choose()))
        self._wait(key)
        chosen: T = json.loads(self.store.get(key))
        return chosen

    @contextmanager
    def local_rank_zero_first(self) -> Iterator[None]:
        """The block on one rank of each node, then on the others, who find what it has put into the caches."""
        self.exchanges += 1
        key = f"done/{self.exchanges}/{self.world.node}"
        if self.store is not None and self.world.local_rank:
            self._wait(key)
        yield
        if self.store is not None and not self.world.local_rank:
            self.store.set(key, "")

    def leave(self, at_most_seconds: float = math.inf) -> None:
        """Rank 0, which keeps the choices, stays until all others have read it."""
        if self.store is None:
            return
        deadline = time.monotonic() + at_most_seconds
        self.store.set(f"left/{self.world.rank}", "")
        if self.world.rank == 0:
            for rank in range(self.world.size):
                self._wait(f"left/{rank}", deadline)

    def _wait(self, key: str, deadline: float = math.inf) -> None:
        """Until a key is set, however long it takes; the store's own waiting would put off signals."""
        assert self.store is not None
        seconds = 0.01
        while time.monotonic() < deadline and not self.store.check([key]):
            time.sleep(seconds)
            seconds = min(2 * seconds, 1.0)


def rendezvous(world: World, accelerator: str) -> RankGroup:
    """Bring the ranks together and form their process group: nccl on GPUs, gloo on CPUs.

    Raises UserError when rank 0's address does not resolve, its port is taken, a rank does not come or has no GPU.
    """
    if world.size == 1:
        return RankGroup(world)
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = _own_gpu(world) if on_gpu else None
    store = _store(world)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("group", store),
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(minutes=COLLECTIVE_MINUTES),
        device_id=device,
    )
    return RankGroup(world, dist.PrefixStore("exchanges", store))


def _own_gpu(world: World) -> torch.device:
    seen = torch.cuda.device_count()
    if seen < world.local_size:
        raise UserError(
            f"{world.local_size} ranks run on {node_name()}, but each sees {counted(seen, 'GPU')}; ask for "
            f"--gpus-per-node={world.local_size}, and not for --gpus-per-task, which hides each from the others."
        )
    if seen > world.local_size and world.local_rank == 0:
        log.warning("%s of the %s GPUs of %s are used: one by each rank.", world.local_size, seen, node_name())
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def _store(world: World) -> dist.Store:
    address = _resolved(world.address)
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # whose store is up already
    keeps = world.rank == 0 and not of_torchrun
    given = (address, world.port, None if of_torchrun else world.size, keeps, timedelta(seconds=RENDEZVOUS_SECONDS))
    try:
        with ThreadPoolExecutor(1) as thread:  # here it would put off signals
            return thread.submit(dist.TCPStore, *given).result()
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error):
            raise UserError(
                f"The port {world.port} of {node_name()}, at which the ranks are to meet, is in use; set MASTER_PORT "
                "to a free one, the same for all ranks."
            ) from None
        raise UserError(
            f"Rank {world.rank} of {world.size} on {node_name()} has waited {RENDEZVOUS_SECONDS:.0f} s in vain for the "
            f"others at {address}, port {world.port}; check that all tasks run this command and that the nodes may "
            f"talk on that port ({' '.join(str(error).split())[:200]})."
        ) from None


def _resolved(address: str) -> str:
    """The address of rank 0 as this node can dial it. Raises UserError when it does not resolve."""
    deadline = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            socket.getaddrinfo(address, None)
            return address
        except socket.gaierror as error:
            by_slurm = _address_in_slurm(address)
            if by_slurm is not None:
                return by_slurm
            if time.monotonic() > deadline:
                raise UserError(
                    f"The ranks are to meet at {address}, but that does not resolve on {node_name()} "
                    f"({error.strerror}); set MASTER_ADDR (in SLURM/site.sh, say) to an address of the first node."
                ) from None
        time.sleep(1)


def _address_in_slurm(node: str) -> str | None:
    """The address SLURM itself dials a node by: on some clusters their names mean nothing to the resolver."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "node", "--oneliner", node], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):  # in a container; the job script has asked outside of it
        return None if os.environ.get("MASTER_ADDR") else os.environ.get("RESEARCH_FIRST_ADDRESS") or None
    found = [word.removeprefix("NodeAddr=") for word in shown.split() if word.startswith("NodeAddr=")]
    return found[0] if found and found[0] != node else None


def has_lost_the_others(error: BaseException) -> bool:
    """Is this what a rank sees when another has ended?"""
    of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in ("Connection", "gloo", "NCCL"))
    return of_torch or isinstance(error, dist.DistError)
