"""What a study was made of and what it cost, over all of its runs: finished, unfinished, pruned and failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from research.report.records import Record
from research.report.settings import value_text
from research.report.tables.cells import Table, cell, make_table

STATES = ("finished", "unfinished", "pruned", "failed")
COSTS = ("device_hours", "wall_seconds", "flops", "energy_joules")
JOULES_PER_KWH = 3.6e6
BYTES_OF_A_WEIGHT = 4  # float32, as checkpoints and exports hold them


def cost(record: Record) -> dict[str, float]:
    """What one run cost over all its attempts, as far as it was recorded."""
    result = record.result or {}
    found = result.get("cost") or (record.outcome or {}).get("cost") or {}
    if result and not found:  # a run from before costs were recorded
        names = {"device_hours": "device_hours", "wall_seconds": "train_seconds", "flops": "train_flops"}
        found = {name: result.get(key) for name, key in names.items()}
    return {name: float(found[name]) for name in COSTS if found.get(name) is not None}


def total(records: Iterable[Record], name: str) -> float:
    return sum(cost(record).get(name, 0.0) for record in records)


def lacking(records: Iterable[Record], name: str) -> int:
    """How many runs did not record this cost."""
    return sum(name not in cost(record) for record in records)


def costs(records: Sequence[Record]) -> Table:
    """Cost by how runs ended, and of all."""
    rows = []
    for state in (*STATES, "all"):
        runs = [record for record in records if state in ("all", record.status)]
        if runs:
            paths = [run.path for run in runs]
            sums = [total(runs, "device_hours"), total(runs, "wall_seconds") / 3600, total(runs, "flops") / 1e15]
            energy = cell(total(runs, "energy_joules") / JOULES_PER_KWH, paths, decimals=3)
            known = lacking(runs, "energy_joules") < len(runs)
            rows.append([state, len(runs), *(cell(x, paths, decimals=3) for x in sums), energy if known else ""])
    columns = ("ended", "runs", "device hours", "wall hours", "PFLOP", "energy (kWh)")
    return make_table("Cost of all runs", columns, rows, _not_recorded(records))


def _not_recorded(records: Sequence[Record]) -> str:
    names = {"device_hours": "device hours", "energy_joules": "energy"}
    missing = [f"{text} of {count}" for key, text in names.items() if (count := lacking(records, key))]
    return f"Not recorded: {', '.join(missing)} of {len(records)} runs." if missing else ""


def devices(records: Iterable[Record]) -> Counter[str]:
    """Machine -> number of runs that had an attempt on it."""
    found: Counter[str] = Counter()
    for record in records:
        machines = {_machine(each.get("hardware") or {}) for each in record.provenance.get("attempts", [])}
        found.update(machine for machine in machines if machine)
    return found


def _machine(hardware: dict[str, Any]) -> str:
    gpus = Counter(hardware.get("gpus") or [])
    if gpus:
        return ", ".join(f"{count} × {name}" for name, count in gpus.items())
    processor = hardware.get("processor")
    return f"{processor} ({hardware.get('cores')} cores, no GPU)" if processor else ""


def hour_kind(records: Iterable[Record]) -> str:
    """`GPU hours`, `CPU process hours`, or `device hours` where both kinds ran."""
    kinds = {"CPU" if "no GPU" in machine else "GPU" for machine in devices(records)}
    return {"GPU": "GPU hours", "CPU": "CPU process hours"}[kinds.pop()] if len(kinds) == 1 else "device hours"


def parameters(records: Iterable[Record]) -> dict[str, set[int]]:
    """Model -> its numbers of parameters (more than one where heads differ)."""
    found: dict[str, set[int]] = {}
    for record in records:
        count = record.provenance.get("parameters") or (record.result or {}).get("parameters")
        if count:
            found.setdefault(value_text(record.config["model"]["name"]), set()).add(int(count))
    return found


def models(records: Sequence[Record]) -> Table:
    """Parameters and mean cost of a finished run, by model, adapter and data set; what each task takes on disk."""
    cells: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.status == "finished":
            model, adapter = record.config["model"]["name"], record.config["adapter"]["name"]
            cells.setdefault((value_text(model), str(adapter), record.data_set), []).append(record)
    rows = []
    for (model, adapter, data_set), runs in cells.items():
        paths, counts = [run.path for run in runs], parameters(runs).get(model, set())
        trained = {int(n) for run in runs if (n := run.provenance.get("trained_parameters"))}
        means = [total(runs, "wall_seconds") / 60, total(runs, "device_hours"), total(runs, "flops") / 1e15]
        shown_means = (cell(x / len(runs), paths, decimals=3) for x in means)
        sizes = (" | ".join(f"{n:,}" for n in sorted(found)) for found in (counts, trained))
        storage = " | ".join(f"{n * BYTES_OF_A_WEIGHT / 1e6:,.1f}" for n in sorted(trained))
        rows.append([model, adapter, data_set, *sizes, storage, len(runs), *shown_means])
    columns = ("model", "adapter", "data set", "parameters", "trained parameters", "MB a task", "finished runs",
               "minutes a run", "device hours a run", "PFLOP a run")  # fmt: skip
    return make_table("Models", columns, rows)


def splits(records: Sequence[Record]) -> Table:
    """Every split of every data set, with the labels that were counted."""
    found: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        for split, stored in (record.provenance.get("data") or {}).items():
            found.setdefault((record.data_set, split, stored["sha256"], stored["examples"]), []).append(record)
    rows = []
    for (data_set, split, digest, examples), runs in found.items():
        stored = runs[0].provenance["data"][split]
        labels = next((text for run in runs if (text := label_counts(run, split))), "")
        rows.append([data_set, split, cell(examples, [run.path for run in runs]), stored.get("tokens"), labels,
                     origin(stored["origin"]), digest[:12]])  # fmt: skip
    columns = ("data set", "split", "examples", "tokens", "labels", "origin", "sha256")
    return make_table("Data", columns, rows)


def origin(stored: str) -> str:
    """A hub's data set, or a file and its folder: full paths would name people."""
    return "/".join(Path(stored).parts[-2:]) if Path(stored).is_absolute() else stored


def label_counts(record: Record, split: str) -> str:
    """`negative 428, positive 444`: of the examples or, of a scored split of NER, of entities; or how many labels."""
    counts = {name[8:]: value for name, value in record.scores(split).items() if name.startswith("support/")}
    counted = ((record.provenance.get("data") or {}).get(split, {}).get("overview") or {}).get("labels") or {}
    if not counts and isinstance(counted, int):
        return f"{counted} labels"
    counts = counts or counted
    return ", ".join(f"{label} {count:.0f}" for label, count in counts.items())


def hyperparameters(records: Sequence[Record]) -> Table:
    """Every key that decides a score: its value, or the values it took, by data set where they differ."""
    values: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for key, value in record.settings.items():
            taken = values.setdefault(key, {}).setdefault(record.data_set, [])
            if value_text(value) not in taken:
                taken.append(value_text(value))
    rows = []
    for key, by_data_set in values.items():
        texts = {data_set: " | ".join(taken) for data_set, taken in by_data_set.items()}
        same = len(set(texts.values())) == 1 and len(texts) > 0
        rows.append([key, next(iter(texts.values())) if same else "; ".join(f"{d}: {t}" for d, t in texts.items())])
    return make_table(
        "Settings", ("key", "values"), rows, "Of all runs; | parts values that were compared or searched."
    )


def seeds(records: Iterable[Record]) -> list[int]:
    return sorted({record.seed for record in records})


def versions(records: Iterable[Record]) -> dict[str, Counter[str]]:
    """Package -> version -> number of runs."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        for name, version in (record.provenance.get("packages") or {}).items():
            found.setdefault(name.lower(), Counter())[version] += 1
    return dict(sorted(found.items()))


def commits(records: Iterable[Record]) -> Counter[str]:
    """Commit of the code -> attempts; `+` marks uncommitted changes."""
    found: Counter[str] = Counter()
    for record in records:
        for attempt in record.provenance.get("attempts", []):
            code = attempt.get("code") or {}
            found[f"{(code.get('commit') or 'no commit')[:10]}{'+' if code.get('uncommitted_diff') else ''}"] += 1
    return found


def remotes(records: Iterable[Record]) -> list[str]:
    """Where the code came from, as git tells it; a folder of the machine tells a reader nothing."""
    attempts = (attempt for record in records for attempt in record.provenance.get("attempts", []))
    stored = {(attempt.get("code") or {}).get("remote") for attempt in attempts}
    return sorted(remote for remote in stored if remote and not Path(remote).is_absolute())
