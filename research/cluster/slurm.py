"""What SLURM's environment says of the job this process belongs to."""

from __future__ import annotations

import os
import re
import socket
from typing import Any


def node_name() -> str:
    """This machine, by the name SLURM knows it by."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def attempt_number() -> int:
    """Which start of its job this is, from 1: a requeued job keeps its id."""
    return 1 + int(os.environ.get("SLURM_RESTART_COUNT", 0))


def job() -> dict[str, Any] | None:
    """The job for a run's record; None outside of one."""
    job_id = os.environ.get("SLURM_JOB_ID")
    if job_id is None:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "job": job_id,
        "array_task": f"{array}_{task}" if array and task else None,
        "attempt": attempt_number(),
        "nodes": os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST"),
        "partition": os.environ.get("SLURM_JOB_PARTITION"),
    }


def holder() -> str:
    """This process, as it signs what it holds."""
    job_id = os.environ.get("SLURM_JOB_ID")
    suffix = f", SLURM job {job_id} attempt {attempt_number()}" if job_id else ""
    return f"process {os.getpid()} on {node_name()}{suffix}"


def is_superseded(signature: str) -> bool:
    """Is this the signature of an earlier attempt of the present job? SLURM starts an attempt when the one before is
    over or out of its reach, on a node that it has lost."""
    found = re.search(r"SLURM job (\d+) attempt (\d+)", signature)
    return found is not None and found[1] == os.environ.get("SLURM_JOB_ID") and int(found[2]) < attempt_number()
