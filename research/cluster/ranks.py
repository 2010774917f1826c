"""Who this process is, before any process group exists."""

from __future__ import annotations

import os


def global_rank() -> int:
    """The rank that torchrun, srun or Lightning's own launcher gave this process; 0 for one started by hand."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0
