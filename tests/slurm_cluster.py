"""A real SLURM cluster on loopback: munged, slurmctld, and a slurmd for each of some made-up nodes.

Needs Debian's packages slurm-wlm and munge (scripts/system_packages.sh), but not root.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from research.cluster.ranks import FIRST_PORT, PORTS

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PLACES = ("/usr/sbin", "/sbin")
NODES = 11
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}

# main: jobs that are not disturbed. frail, alone: their nodes crash. low0, low20: give way to high at once, or in 20 s.
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0,sched_interval=2
SlurmdTimeout=10
ReturnToService=2
InactiveLimit=0
KillWait=20
MinJobAge=600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=node[1-3] Default=YES MaxTime=INFINITE PriorityTier=5 PreemptMode=OFF
PartitionName=frail Nodes=node[4-6] MaxTime=INFINITE PriorityTier=5 PreemptMode=OFF
PartitionName=alone Nodes=node[10-11] MaxTime=INFINITE PriorityTier=5 PreemptMode=OFF
PartitionName=low0 Nodes=node7 MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=low20 Nodes=node[8-9] MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=node[7-9] MaxTime=INFINITE PriorityTier=9 PreemptMode=OFF
PartitionName=short Nodes=node1 MaxTime=5
"""
CGROUP = """
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainDevices=no
"""


def missing() -> list[str]:
    """The programs this machine lacks."""
    return [name for name in PROGRAMS if program(name) is None]


def program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *PLACES]))


def take_freezer() -> int | None:
    """A hold on the cgroups by which most clusters tell a job's processes; None where this process may not, or another
    cluster of this machine does: they are named by node, user and job, so one would end the jobs of the other."""
    probe = Path("/sys/fs/cgroup/freezer/research_tests")
    try:
        probe.mkdir(exist_ok=True)
        probe.rmdir()
        held = os.open("/sys/fs/cgroup", os.O_RDONLY)  # SLURM itself locks the folders below
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return held


class Cluster:
    """Started and stopped by `with`; `environment` is that of a user of it.

    It finds a job's processes by cgroups where it can, else, and where asked to, by ancestry (linuxproc).
    """

    def __init__(self, proctrack: str | None = None) -> None:
        self.freezer = take_freezer() if proctrack is None else None
        self.proctrack = proctrack or ("linuxproc" if self.freezer is None else "cgroup")
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a socket's path must be short
        self.folder.chmod(0o755)
        self.conf = self.folder / "slurm.conf"
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        self.environment = {**own, "SLURM_CONF": str(self.conf)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            self._configure()
            self._start("munged", "--foreground", f"--socket={self.folder}/munge.socket", *self._munge_files())
            self._until(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            self._until(lambda: self._answers("scontrol", "ping"))
            for number in range(1, NODES + 1):
                self.start_node(f"node{number}")
            idle = ("sinfo", "-h", "-N", "-p", "main,frail,alone,high", "-t", "idle")
            self._until(lambda: self.says(*idle).count("\n") == NODES)
            self.says("srun", "-N3", "-n3", "-t1", "-Q", "true")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "slurmctld" in self.daemons:
            subprocess.run(["scancel", f"--user={user()}"], env=self.environment, timeout=20)
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for pid in self.processes():
            kill(pid, signal.SIGKILL)
        if self.freezer is not None:
            os.close(self.freezer)
        shutil.rmtree(self.folder, ignore_errors=True)

    def says(self, *command: str, cwd: Path | None = None, **extra: str) -> str:
        """What a command of SLURM prints; it must succeed."""
        environment = {**self.environment, **extra}
        done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, name=node)

    def crash(self, node: str) -> None:
        """Its slurmd dies. What it has started lives on, out of SLURM's reach."""
        self.daemons[node].kill()
        self.daemons[node].wait()

    def cut_power(self, node: str) -> None:
        """All that runs on the node is gone at once."""
        self.crash(node)
        tasks = self.processes(SLURMD_NODENAME=node)
        stepds = {*filter(is_slurmstepd, map(parent_of, tasks))}
        for pid in stepds:  # it must not report the end of the others, nor may its own be a hangup to them
            kill(pid, signal.SIGSTOP)
        for pid in (*tasks, *stepds):
            kill(pid, signal.SIGKILL)

    def processes(self, **variables: str) -> list[int]:
        """The processes of jobs, as far as they have these variables."""
        wanted = {f"{name}={value}" for name, value in {"SLURM_CONF": str(self.conf), **variables}.items()}
        return [pid for pid, environment in environments() if wanted <= environment]

    def logs(self) -> str:
        """The ends of the daemons' logs; what matters most comes last."""
        statuses = {name: self.daemons[name].poll() for name in reversed(self.daemons)}
        names = sorted(statuses, key=lambda name: (statuses[name] is not None, not name.startswith("node")))
        ends = {name: "\n".join(read(f"{self.folder}/{name}.out").splitlines()[-4:]) for name in names}
        return "".join(f"\n== {name}, exit code {statuses[name]}\n{end}" for name, end in ends.items())

    def _configure(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host, port = socket.gethostname().split(".")[0], free_ports(NODES + 1)
        nodes = "\n".join(
            f"NodeName=node{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + n} CPUs=8 RealMemory=100000"
            for n in range(1, NODES + 1)
        )
        self.conf.write_text(
            CONF.format(folder=self.folder, host=host, port=port, user=user(), proctrack=self.proctrack, nodes=nodes)
        )
        (self.folder / "cgroup.conf").write_text(CGROUP)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)

    def _munge_files(self) -> list[str]:
        names = {"key-file": "munge.key", "log-file": "munge.log", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        return [f"--{option}={self.folder / name}" for option, name in names.items()]

    def _start(self, what: str, *arguments: str, name: str | None = None) -> None:
        clean = {"PATH": os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin", *PLACES]), "SLURM_CONF": str(self.conf)}
        with open(self.folder / f"{name or what}.out", "ab") as out:
            self.daemons[name or what] = subprocess.Popen(
                [program(what) or what, *arguments], env=clean, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, cwd="/",
            )  # fmt: skip

    def _answers(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=60).returncode == 0

    def _until(self, holds: Callable[[], bool], timeout_seconds: float = 60) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            assert not dead and time.monotonic() < deadline, f"{dead} ended{self.logs()}"
            time.sleep(0.05)


@dataclass
class Job:
    """A job, or one task of an array (`12_3`), and the file that all its attempts write to."""

    cluster: Cluster
    id: str
    log: Path

    def shown(self) -> dict[str, str]:
        """What `scontrol show job` says."""
        text = self.cluster.says("scontrol", "show", "job", "--oneliner", self.id)
        return dict(re.findall(r"(\w+)=(\S*)", text))

    @property
    def state(self) -> str:
        return self.shown()["JobState"]

    @property
    def restarts(self) -> int:
        return int(self.shown()["Restarts"])

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def last_words(self) -> str:
        return "\n".join(self.said.splitlines()[-12:])

    def until(self, holds: Callable[[], bool], timeout_seconds: float = 400) -> None:
        """Wait for a moment. Fails when the job ends without it."""
        deadline, asked = time.monotonic() + timeout_seconds, 0.0
        while not holds():
            time.sleep(0.05)
            if time.monotonic() < asked + 1:
                continue
            asked, ended = time.monotonic(), self.state in ENDED
            assert holds() or not ended, f"job {self.id} has ended: {self.shown()}\n{self.last_words}"
            assert asked < deadline, f"waited in vain for job {self.id}: {self.shown()}\n{self.last_words}"

    def wait(self, timeout_seconds: float = 600) -> str:
        """Its state when it has ended."""
        deadline = time.monotonic() + timeout_seconds
        while (state := self.state) not in ENDED:
            assert time.monotonic() < deadline, f"job {self.id} does not end: {self.shown()}\n{self.last_words}"
            time.sleep(0.2)
        return state

    def ranks(self) -> list[int]:
        """The Python processes that srun has started for it, in the order of their ranks."""
        number = self.shown()["JobId"]
        found = {}
        for pid in self.cluster.processes(SLURM_JOB_ID=number):
            rank = rank_of(pid)
            if rank is not None:
                found[rank] = pid
        return [found[rank] for rank in sorted(found)]


def rank_of(pid: int) -> int | None:
    """The rank of a process that slurmstepd has started as a task, None for another."""
    if not is_slurmstepd(parent_of(pid)):
        return None
    environment = dict(part.partition("=")[::2] for part in read(f"/proc/{pid}/environ").split("\0"))
    return int(environment["SLURM_PROCID"]) if "SLURM_STEP_NUM_TASKS" in environment else None


def parent_of(pid: int) -> int:
    """0 for a process that is gone."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def is_slurmstepd(pid: int) -> bool:
    return read(f"/proc/{pid}/comm").startswith("slurmstepd")


def is_alive(pid: int) -> bool:
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return bool(fields) and fields[0] != "Z"


def is_pending(pid: int, number: int) -> bool:
    """Has a stopped process been sent this signal?"""
    lines = read(f"/proc/{pid}/status").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def read(path: str) -> str:
    """A file of /proc; nothing of a process that is gone."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def environments() -> Iterator[tuple[int, set[str]]]:
    """Every process of this machine that may be looked into, with its variables."""
    for folder in Path("/proc").glob("[0-9]*"):
        yield int(folder.name), set(read(f"{folder}/environ").split("\0"))


def user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def free_port() -> int:
    """A port to meet at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports(count: int) -> int:
    """The first of so many consecutive free ports, between those of ranks (ranks.py) and those of the kernel."""
    firsts = list(range(FIRST_PORT + PORTS, 32700 - count, count))
    random.shuffle(firsts)  # another cluster may be looking for its ports at this moment
    for first in firsts:
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise AssertionError("no free ports")
