"""Sentences to paste into a paper, each from the records of all runs; empty where no record tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from research.common.text import counted
from research.report.groups import Grid
from research.report.records import Record, status_counts
from research.report.searches import Search, bounds
from research.report.settings import value_text
from research.report.tables import provenance

PACKAGES = {
    "torch": "PyTorch", "transformers": "Transformers", "tokenizers": "Tokenizers", "datasets": "Datasets",
    "lightning": "Lightning", "peft": "PEFT", "optuna": "Optuna", "numpy": "NumPy",
    "scipy": "SciPy", "statsmodels": "statsmodels", "sacrebleu": "sacreBLEU", "rouge-score": "rouge-score",
}  # fmt: skip


def data(records: Sequence[Record]) -> str:
    """Examples of each split that were used, and where that was not all of it."""
    sizes: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for split, stored in (record.provenance.get("data") or {}).items():
            counts = sizes.setdefault(record.data_set, {}).setdefault(split, [])
            if (count := f"{stored['examples']:,}{_cut(record, split, stored['examples'])}") not in counts:
                counts.append(count)
    return " ".join(
        f"Of {data_set} we use {listed([f'{either(counts)} {split}' for split, counts in by_split.items()])} examples."
        for data_set, by_split in sizes.items()
    )


def _cut(record: Record, split: str, examples: int) -> str:
    """Says that a limit was reached: no record then says how large the split is."""
    key = "max_train_examples" if split == "train" else "max_eval_examples"
    return f" (as many as data.{key} admits)" if record.config["data"][key] == examples else ""


def parameters(records: Sequence[Record]) -> str:
    counts = {name: dict.fromkeys(map(amount, sorted(c))) for name, c in provenance.parameters(records).items()}
    models = [f"{name} has {either(list(amounts))}" for name, amounts in counts.items()]
    return f"{listed(models)} parameters." if models else ""


def cost(records: Sequence[Record]) -> str:
    """Hours and machines of all runs, and their energy where it was measured."""
    others = [f"{count} {state}" for state, count in status_counts(records).items() if state != "finished"]
    among = f" ({listed(others)} among them)" if others else ""
    machines = provenance.devices(records)
    measured = len(records) - provenance.lacking(records, "energy_joules")
    energy = provenance.total(records, "energy_joules") / provenance.JOULES_PER_KWH
    spent = f"{hours(provenance.total(records, 'device_hours'))} {provenance.hour_kind(records)}"
    runs = f"All {len(records)} runs" if len(records) > 1 else "The only run"
    return (
        f"{runs}{among} took {spent}"
        + (f" on {listed(list(machines))}." if machines else ".")
        + (f" The devices of {counted(measured, 'run')} used {energy:.2f} kWh." if measured else "")
    )


def runtime(records: Sequence[Record]) -> str:
    finished = [record for record in records if record.status == "finished"]
    minutes = provenance.total(finished, "wall_seconds") / 60
    return f"A finished run took {minutes / len(finished):.1f} minutes on average." if finished else ""


def setup(records: Sequence[Record]) -> str:
    """How models were trained, as far as all runs did the same."""
    optim = {key: {value_text(record.config["optim"][key]) for record in records} for key in ("schedule", "batch_size")}
    schedule = f" and a {next(iter(optim['schedule']))} schedule" if len(optim["schedule"]) == 1 else ""
    batch = f", {next(iter(optim['batch_size']))} examples a step" if len(optim["batch_size"]) == 1 else ""
    return (
        f"We fine-tune with AdamW, linear warmup{schedule}{batch}; the checkpoint with the best validation score is "
        "the one tested."
    )


def search(one: Search) -> str:
    """What was searched, how, by what, and what was found."""
    space = listed([f"{key} ({bounds(asked)})" for key, asked in one.space.items()])
    states = [f"{count} {state}" for state in provenance.STATES if (count := sum(t.state == state for t in one.trials))]
    seeds = max(len(trial.runs) for trial in one.trials)
    pruner = "" if one.pruner == "none" else f" with {one.pruner} pruning"
    sentence = (
        f"We searched {space} by {one.sampler} sampling{pruner} over {len(one.trials)} trials ({listed(states)}) of "
        f"{counted(seeds, 'seed')} each, by validation {one.metric.replace('_', ' ')}."
    )
    if one.best is not None:
        values = listed([f"{key} {rounded(value)}" for key, value in one.best.parameters.items() if value is not None])
        sentence += f" The best trial had {values} (validation {one.metric.replace('_', ' ')} {one.best.score:.4f})."
    return sentence


def spread(grid: Grid) -> str:
    """What the numbers of the tables are: means over how many runs, or single runs."""
    counts = sorted({len(group.runs) for group in grid.groups if group.runs})
    if counts == [1]:
        return "Every score is that of a single run; none is a mean or a maximum over runs."
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    single = [f"{group.system} on {group.data_set}" for group in grid.groups if len(group.runs) == 1]
    if any(group.folds for group in grid.groups):
        folds = max(len(group.folds) for group in grid.groups)
        return (
            f"Scores are means over {folds} folds of the data, each tested once, with the standard deviation over "
            "folds; a fold of several seeds counts by their mean. A run is tested with the checkpoint that was best on "
            "validation data."
        )
    if any(len(group.samples) > 1 for group in grid.groups):
        samples = max(len(group.samples) for group in grid.groups)
        return (
            f"Scores are means over {samples} few-shot samples of the training data, with the standard deviation over "
            "samples; a sample of several seeds counts by their mean. A run is tested with the checkpoint that was "
            "best on its validation data."
        )
    return (
        f"Scores are means over {number} runs that differ in their seed alone, with the sample standard deviation; "
        "none is a maximum over seeds. A run is tested with the checkpoint that was best on validation data."
        + (f" Single runs: {listed(single)}." if single else "")
    )


def packages(records: Sequence[Record]) -> str:
    found = provenance.versions(records)
    named = [f"{title} {' and '.join(found[name])}" for name, title in PACKAGES.items() if name in found]
    return f"We use {listed(named)}." if named else ""


def scorers(records: Sequence[Record]) -> str:
    found = dict.fromkeys(record.metric.sentence for record in records if record.metric is not None)
    return f"Scores are {'; '.join(found)}." if found else ""


def code(records: Sequence[Record]) -> str:
    commits, remotes = list(provenance.commits(records)), provenance.remotes(records)
    of = f" of {listed(remotes)}" if remotes else ""
    return f"The code is {listed([f'commit {name}' for name in commits])}{of}." if commits else ""


def runs(records: Sequence[Record]) -> str:
    """How many runs were started, and how often test data was looked at."""
    states = [f"{count} {state}" for state, count in status_counts(records).items()]
    were = "was" if len(records) == 1 else "were"
    return f"{counted(len(records), 'training run')} {were} started: {listed(states)}. {tests(records)}".strip()


def tests(records: Sequence[Record]) -> str:
    """How often test data was evaluated: at the end of training, and again by `research evaluate`."""
    tested = sum(bool(record.scores("test")) for record in records)
    again = sum(record.evaluations.count("test") for record in records)
    if not tested + again:
        return ""
    total = f"Test data was evaluated {counted(tested + again, 'time')}"
    if not again:
        return f"{total}, once a run."
    return f"{total}: at the end of {counted(tested, 'run')}, and {counted(again, 'time')} more by `research evaluate`."


def preprocessing(records: Sequence[Record]) -> str:
    """How long an input of the model may be, and what became of longer ones."""
    limits = sorted({record.config["data"]["max_length"] for record in records})
    longer: dict[str, list[str]] = {}
    for record in records:
        for split, about in overviews(record).items():
            for what, said in (("cut", "cut"), ("windowed", "read in several windows")):
                if about[what]:
                    part = f"{about[what]:,} of {about['examples']:,} {split} examples were {said}"
                    longer.setdefault(record.data_set, []).append(part)
    told = [f"Of {data_set} {listed(list(dict.fromkeys(parts)))}." for data_set, parts in longer.items()]
    return " ".join([f"Inputs of the model have at most {either(list(map(str, limits)))} word pieces.", *told])


def overviews(record: Record) -> dict[str, dict[str, Any]]:
    """What a run counted of each split; empty for an older run."""
    stored = record.provenance.get("data") or {}
    return {split: about["overview"] for split, about in stored.items() if about.get("overview")}


def origins(records: Sequence[Record]) -> str:
    stored = (each for record in records for each in (record.provenance.get("data") or {}).values())
    names = list(dict.fromkeys(provenance.origin(each["origin"]) for each in stored))
    return f"The data was read from {listed(names)}." if names else ""


def rounded(value: Any) -> str:
    """A setting to three digits; the tables have them all."""
    return value_text(float(f"{value:.3g}") if isinstance(value, float) else value)


def hours(number: float) -> str:
    return f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"


def amount(count: int) -> str:
    """22570381 -> `22.6 M`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def either(parts: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
