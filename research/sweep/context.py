"""What a worker has at hand for all of its trials."""

from __future__ import annotations

from dataclasses import dataclass, field

from research.cluster.group import Group
from research.cluster.signals import StopFlag
from research.config.schema import Config
from research.sweep.cache import Workshop
from research.sweep.schedule import Horizon
from research.sweep.study import Search
from research.sweep.sweepfile import SweepConfig


@dataclass
class Bench:
    """The search, what its trials share, and the processes that run them."""

    search: Search
    base: Config
    horizon: Horizon
    group: Group  # the ranks of each run
    flag: StopFlag
    workshop: Workshop = field(default_factory=Workshop)

    @property
    def sweep(self) -> SweepConfig:
        return self.search.sweep
