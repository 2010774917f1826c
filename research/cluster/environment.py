"""Lightning's cluster environment for ranks that a launcher has started."""

from __future__ import annotations

from lightning.fabric.plugins.environments import ClusterEnvironment

from research.cluster.ranks import World


class ExternalRanks(ClusterEnvironment):
    """Tells Lightning which rank this is, so that it need not guess."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.world.address

    @property
    def main_port(self) -> int:
        return self.world.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.world.size

    def set_world_size(self, size: int) -> None:
        """No-op: fixed by the launcher."""

    def global_rank(self) -> int:
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        """No-op: fixed by the launcher."""

    def local_rank(self) -> int:
        return self.world.local_rank

    def node_rank(self) -> int:
        return self.world.node
