"""`research submit`: experiments are checked, and then queued by sbatch with a clean environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from research.common.errors import UserError
from research.common.files import short_path

if TYPE_CHECKING:
    from research.config.schema import Config

# What a job passes on to one submitted from inside it, which would take it for its own.
OF_ANOTHER_JOB = re.compile(r"SLURM_(?!CONF$).*|(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|MASTER_.*)$")
NEVER = {  # SLURM's reasons of jobs that it would never start
    "PartitionConfig": "ask for no more time and nodes than the partition has, as sinfo shows them",
    "PartitionTimeLimit": "give --time no more than the partition's, as sinfo shows it",
    "PartitionNodeLimit": "give --nodes no more than the partition allows a job",
    "BadConstraints": "no node has all that is asked for",
    "InvalidAccount": "see --account",
    "InvalidQOS": "see --qos",
}
REASON_SECONDS = 3.0
ARRAY, ONE = "array.sbatch", "train.sbatch"
SHOWN_TASKS = 20
HELP = """usage: research submit [--script SCRIPT] [sbatch options] EXPERIMENT... [key=value ...]

Checks the experiments and queues them, several as one array with a task for each experiment, fold and seed:
  research submit --nodes 2 experiments/ner/conll2003.yaml optim.lr=3e-5
  research submit experiments/a.yaml experiments/b.yaml seed=0..4 data.folds=5 data.fold=all
  research submit --array=%4 experiments/a.yaml seed=0..9              # at most four tasks at a time
  research submit --mail-type=END,FAIL --dependency=afterok:17 --mem=64G experiments/ner/conll2003.yaml
All options before the experiments are sbatch's own (`man sbatch`) and override SLURM/site.sh, which has account and
partition. SCRIPT is a file, or a name in SLURM/ (train.sbatch, array.sbatch, sweep.sbatch, ...). Submit from any
folder: SLURM/ is looked up here, in RESEARCH_SLURM, then beside the package. The job runs where you submit it."""


@dataclass(frozen=True)
class Submission:
    """What is handed to sbatch."""

    script: Path
    options: list[str]  # sbatch's
    arguments: list[str]  # experiments, or a sweep, and overrides

    @property
    def job_name(self) -> str:
        """The names of the experiments' files, of many the first three and how many more."""
        names = [Path(each).stem for each in self.arguments if each.endswith((".yaml", ".yml"))]
        return "+".join(names if len(names) < 5 else [*names[:3], f"{len(names) - 3}-more"])

    @property
    def command(self) -> list[str]:
        return ["sbatch", *self.options, str(self.script), *self.arguments]


def submit(arguments: Sequence[str], refuse: Callable[[Config], None] = lambda config: None) -> int:
    """Queue an experiment; prints the command and what sbatch says. Returns sbatch's exit code.

    `refuse` raises UserError for an experiment that could not start; not asked where the job depends on another, which
    may make its data. Raises UserError for a mistake in the experiment and for a job that would never start.
    """
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(HELP)
        return 0
    submission = parse(arguments)
    configs = check(submission)
    submission = as_array(submission, len(configs))
    for config in configs:
        if not any(option.startswith(("-d", "--dependency")) for option in submission.options):
            refuse(config)
    environment = clean(os.environ)
    refuse_what_cannot_start(submission.command, environment)
    print(shlex.join(submission.command), flush=True)
    if submission.script.name == ARRAY:
        print(task_lines([str(config.run_dir) for config in configs]), flush=True)
    done = in_site(submission.command, environment)
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode == 0:
        withdraw_what_never_starts(done.stdout.split()[-1], environment)
    return done.returncode


def parse(arguments: Sequence[str]) -> Submission:
    """The experiment is the first argument that ends in .yaml; sbatch's options come before it."""
    place = next((i for i, argument in enumerate(arguments) if argument.endswith((".yaml", ".yml"))), None)
    if place is None:
        raise UserError("research submit needs an experiment, a .yaml file after the options of sbatch.")
    options, script = list(arguments[:place]), ONE
    for i, option in enumerate(options):
        if option == "--script" and i + 1 < len(options):
            script, options[i : i + 2] = options[i + 1], []
            break
        if option.startswith("--script="):
            script = options.pop(i).partition("=")[2]
            break
    return Submission(find_script(script), options, list(arguments[place:]))


def find_script(name: str) -> Path:
    """The job script of this name or path. Raises UserError where there is none."""
    folder = scripts_folder()
    found = next((path for path in (Path(name), folder / name) if path.is_file()), None)
    if found is None:
        names = ", ".join(sorted(path.name for path in folder.glob("*.sbatch"))) or "none"
        raise UserError(f"There is no script {name}; in {folder}/ there are: {names}.")
    return found


def as_array(submission: Submission, tasks: int) -> Submission:
    """The submission of several experiments, folds and seeds: an array with a task for each.

    `--array=%4` says how many run at a time; the job is named after the experiments, unless `--job-name` says
    otherwise. Raises UserError for an array of other numbers.
    """
    if submission.script.name != ONE or tasks < 2:
        return submission
    options, at_once = list(submission.options), ""
    for i, option in enumerate(options):
        if option.startswith(("--array=", "-a")):
            at_once = options.pop(i).removeprefix("--array=").removeprefix("-a")
            break
        if option == "--array" and i + 1 < len(options):
            at_once, options[i : i + 2] = options[i + 1], []
            break
    if at_once and not at_once.startswith("%"):
        raise UserError(f"--array={at_once}: these are {tasks} tasks, 0-{tasks - 1}; --array=%4 runs four at a time.")
    named = any(option.startswith(("--job-name", "-J")) for option in options)
    name = [] if named else [f"--job-name={submission.job_name}"]
    options = [f"--array=0-{tasks - 1}{at_once}", *name, *options]
    return Submission(find_script(ARRAY), options, submission.arguments)


def task_lines(run_dirs: Sequence[str]) -> str:
    """Which task of an array trains in which folder; of many the first and the last."""
    lines = [f"  task {i}: {short_path(Path(folder))}" for i, folder in enumerate(run_dirs)]
    return "\n".join(lines if len(lines) <= SHOWN_TASKS else [*lines[: SHOWN_TASKS - 2], "  ...", lines[-1]])


def scripts_folder() -> Path:
    """The folder of job scripts: SLURM/ here, the one that RESEARCH_SLURM names, or the one beside the package."""
    named = os.environ.get("RESEARCH_SLURM")
    beside_package = Path(__file__).parents[2] / "SLURM"
    return next((f for f in (Path("SLURM"), Path(named or "SLURM"), beside_package) if f.is_dir()), Path("SLURM"))


def check(submission: Submission) -> list[Config]:
    """The experiments, each for every fold and seed; none of a sweep. Raises UserError for mistakes in them."""
    from research.config.several_runs import load_all

    if submission.script.name == "sweep.sbatch":
        return []
    return [config for configs in load_all(submission.arguments) for config in configs]


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what belongs to the job this command runs in."""
    return {name: value for name, value in environment.items() if not OF_ANOTHER_JOB.match(name)}


def refuse_what_cannot_start(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise UserError for a job that asks for more than its partition has: sbatch accepts it, and it never starts."""
    if shutil.which("sbatch") is None:
        raise UserError("There is no sbatch on this machine; submit from the cluster's login node.")
    tried = in_site([command[0], "--test-only", *command[1:]], environment)
    if tried.returncode:
        said = " ".join(tried.stderr.split()).removeprefix("allocation failure: ")
        shown = in_site(["sinfo", "--noheader", "--format=%P %D"], environment).stdout.splitlines()
        sizes = ", ".join("{} has {} nodes".format(*line.split()) for line in shown)
        raise UserError(f"SLURM would never start this job ({said}); partition {sizes}.")


def withdraw_what_never_starts(job: str, environment: Mapping[str, str]) -> None:
    """Cancel a job that waits for what cannot come, such as more time than its partition gives, and raise UserError."""
    reason, deadline = "None", time.monotonic() + REASON_SECONDS
    while reason == "None" and time.monotonic() < deadline:  # until SLURM has looked at it
        reason = in_site(["squeue", "--noheader", "--format=%r", f"--jobs={job}"], environment).stdout.strip()
        time.sleep(0.1)
    if reason in NEVER:
        in_site(["scancel", job], environment)
        raise UserError(f"SLURM would never start job {job} ({reason}: {NEVER[reason]}); it is withdrawn.")


def in_site(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM after site.sh, which says where jobs go."""
    folder = scripts_folder().absolute()
    line = '[ ! -f "$RESEARCH_SLURM/site.sh" ] || . "$RESEARCH_SLURM/site.sh"; exec "$@"'
    known = {**environment, "RESEARCH_SLURM": str(folder)}
    return subprocess.run(["bash", "-c", line, "submit", *command], env=known, text=True, capture_output=True)
