"""Context of a sweep worker: what it needs for each of its trials."""

from __future__ import annotations

from dataclasses import dataclass, field

from research.cluster.group import RankGroup
from research.cluster.signals import StopFlag
from research.config.schema import Config
from research.sweep.cache import TrialCache
from research.sweep.run_length import RunLength
from research.sweep.study import Search
from research.sweep.sweepfile import SweepConfig


@dataclass
class WorkerContext:
    """The search, what its trials share, and the processes that run them."""

    search: Search
    base: Config
    length: RunLength
    group: RankGroup  # the ranks of each run
    flag: StopFlag
    cache: TrialCache = field(default_factory=TrialCache)

    @property
    def sweep(self) -> SweepConfig:
        return self.search.sweep
