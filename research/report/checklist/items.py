"""The reproducibility checklists of ACL Rolling Review and of EMNLP 2020 / NAACL 2021, answered from run records.

Answered over all runs, those that failed or were pruned too. Each item has a sentence to paste and the tables behind
it; what no record holds is a question to the author.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research.common.files import write_atomically
from research.common.text import counted
from research.report.checklist import paper_sentences
from research.report.groups import Grid
from research.report.records import Record
from research.report.searches import Search, bounds, find_searches
from research.report.settings import value_text
from research.report.tables import provenance
from research.report.tables.cells import Table, cell, escaped, make_table, per_cent, table_markdown

ARR = "ACL Rolling Review: Responsible NLP Research"
OLDER = "EMNLP 2020 / NAACL 2021: reproducibility"


@dataclass(frozen=True)
class Item:
    """One item of a list."""

    number: str
    asks: str  # in our words
    sentence: str  # to paste; empty where the records tell nothing
    tables: Sequence[Table] = ()
    questions: Sequence[str] = ()  # to the author


@dataclass(frozen=True)
class Checklist:
    """The answered lists, by name."""

    lists: Mapping[str, Sequence[Item]] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """The tables behind all items, each once."""
        items = (item for items in self.lists.values() for item in items)
        return list({each.title: each for item in items for each in item.tables}.values())


def write_checklist(records: Sequence[Record], grid: Grid, folder: Path) -> Checklist:
    """The items of both lists, for the page; `checklist.md` in `folder` has them too."""
    found = find_searches(records)
    answered = Checklist({ARR: arr(records, grid, found), OLDER: older(records, grid, found)})
    with write_atomically(folder / "checklist.md") as temporary:
        temporary.write_text(checklist_markdown(answered), encoding="utf-8")
    return answered


def arr(records: Sequence[Record], grid: Grid, found: Sequence[Search]) -> list[Item]:
    """B6 and C1 to C4."""
    cost = f"{paper_sentences.parameters(records)} {paper_sentences.cost(records)}".strip()
    setup = " ".join([paper_sentences.setup(records), *map(paper_sentences.search, found)])
    tools = f"{paper_sentences.packages(records)} {paper_sentences.scorers(records)}".strip()
    spaces = [each for one in found for each in (space_table(one), trials_table(one))]
    return [
        Item("B6", "Statistics of the data: number of examples, train / validation / test splits.",
             paper_sentences.data(records), [provenance.splits(records)], about_data(records)),
        Item("C1", "Number of parameters, total computational budget, computing infrastructure.",
             cost, [provenance.costs(records), provenance.models(records)], about_cost(records)),
        Item("C2", "Experimental setup, hyperparameter search and best-found values.",
             setup, [provenance.hyperparameters(records), *spaces], about_search(found)),
        Item("C3", "Descriptive statistics of the results: mean, maximum or a single run?",
             paper_sentences.spread(grid), [spread_table(grid)]),
        Item("C4", "Packages for preprocessing and evaluation, with versions and settings.",
             tools, [package_table(records)], about_packages(records)),
    ]  # fmt: skip


def older(records: Sequence[Record], grid: Grid, found: Sequence[Search]) -> list[Item]:
    """The list by Dodge et al. (2019): results (R), experiments with many runs (H), data (D)."""
    search = " ".join(map(paper_sentences.search, found))
    spaces = [space_table(one) for one in found]
    cost, models = provenance.costs(records), provenance.models(records)
    code = f"{paper_sentences.code(records)} {paper_sentences.packages(records)}".strip()
    unasked = about_search(found)
    return [
        Item("R1", "Description of the setting, the algorithm and the model.", paper_sentences.setup(records),
             questions=["What is the task, and what is new about the method? Records know only how it was run."]),
        Item("R2", "Source code and its dependencies.", code, [package_table(records)], about_code(records)),
        Item("R3", "Computing infrastructure.", paper_sentences.cost(records), [cost]),
        Item("R4", "Average runtime of each model, or energy.", paper_sentences.runtime(records), [models]),
        Item("R5", "Number of parameters of each model.", paper_sentences.parameters(records), [models]),
        Item("R6", "Validation performance for each test result.",
             "Validation scores stand beside the test scores.", [spread_table(grid)]),
        Item("R7", "Definition of the evaluation measures.", paper_sentences.scorers(records)),
        Item("H1", "Exact number of training and evaluation runs.", paper_sentences.runs(records), [cost]),
        Item("H2", "Bounds of each hyperparameter.", search, spaces, unasked),
        Item("H3", "Configurations of the best models.", search or paper_sentences.setup(records),
             [provenance.hyperparameters(records), *spaces]),
        Item("H4", "How values were chosen, and by which criterion.", search, questions=unasked),
        Item("H5", "Summary statistics of the results.", paper_sentences.spread(grid), [spread_table(grid)]),
        Item("D1", "Number of examples and label distribution.", paper_sentences.data(records),
             [provenance.splits(records)], about_data(records)),
        Item("D2", "Details of the splits.", paper_sentences.data(records), [provenance.splits(records)],
             ["Who made the splits, and how?"]),
        Item("D3", "Excluded data and preprocessing.", paper_sentences.preprocessing(records),
             questions=[*about_length(records),
                        "Was any data left out, and what was done to it before it was given to training?"]),
        Item("D4", "Languages of the data.", "", questions=["Which languages, and which varieties of them?"]),
        Item("D5", "Link to the data.", paper_sentences.origins(records),
             questions=["Where can readers get the data, and under which licence?"]),
        Item("D6", "Collection of new data.", "",
             questions=["If any of the data is new: who collected and labelled it, how, and how was it checked?"]),
    ]  # fmt: skip


# --- questions to the author --------------------------------------------------------------------------


def about_data(records: Sequence[Record]) -> list[str]:
    questions = []
    labelled = [record for record in records if ((record.result or {}).get("learned") or {}).get("labels")]
    if any(not provenance.label_counts(record, "train") for record in labelled):
        questions.append("How are the labels of the training data distributed? Some runs did not count them.")
    if any(record.config["data"]["max_train_examples"] for record in records):
        questions.append("Some runs trained on a part of the data (data.max_train_examples): is it said, and why?")
    if any(record.config["data"]["max_eval_examples"] for record in records):
        questions.append("Scores are of a part of the data (data.max_eval_examples): how large is the complete split?")
    if unknown := sum(not record.provenance.get("data") for record in records):
        questions.append(f"{counted(unknown, 'run')} ended before its data was recorded: what was it?")
    return questions


def about_length(records: Sequence[Record]) -> list[str]:
    told = all(paper_sentences.overviews(record) for record in records)
    return [] if told else ["What was done with longer inputs: were they cut, or read in windows?"]


def about_cost(records: Sequence[Record]) -> list[str]:
    questions = ["Which runs, preliminary ones for example, are not among those of this report? They count too."]
    if unknown := provenance.lacking(records, "device_hours"):
        questions.append(f"{counted(unknown, 'run')} recorded no hours (killed, or running): how many?")
    if unknown := provenance.lacking(records, "energy_joules"):
        questions.append(f"Energy was not measured for {unknown} of {len(records)} runs: will it be estimated?")
    return questions


def about_search(found: Sequence[Search]) -> list[str]:
    return [] if found else ["The records hold no search: how were the hyperparameter values chosen, and from which?"]


def about_packages(records: Sequence[Record]) -> list[str]:
    questions = ["What was used to prepare the data before it was given to training, with which settings?"]
    mixed = [name for name, counts in provenance.versions(records).items() if len(counts) > 1]
    if mixed:
        questions.append(f"Runs differ in the version of {paper_sentences.listed(mixed)}: can the comparison bear it?")
    return questions


def about_code(records: Sequence[Record]) -> list[str]:
    questions = ["Where will the code be published? An anonymous submission must not link to it."]
    commits = provenance.commits(records)
    if any(name.endswith("+") for name in commits):
        questions.append("Commits marked + had uncommitted changes, kept in provenance.json: will they be committed?")
    if len(commits) > 1:
        questions.append(f"Runs come from {len(commits)} states of the code: can the comparison bear it?")
    return questions


# --- tables -------------------------------------------------------------------------------------------


def space_table(search: Search) -> Table:
    best = search.best.parameters if search.best is not None else {}
    rows = [[key, bounds(asked), _shown(best.get(key))] for key, asked in search.space.items()]
    return make_table(f"Space of the search {search.name}", ("parameter", "bounds", "best value"), rows)


def trials_table(search: Search) -> Table:
    rows = []
    for trial in search.trials:
        score = "" if trial.score is None else cell(trial.score, [run.path for run in trial.runs])
        rows.append([trial.number, trial.state, *map(_shown, trial.parameters.values()), score])
    columns = ("trial", "state", *search.space, f"validation {search.metric}")
    return make_table(f"Trials of the search {search.name}", columns, rows)


def _shown(value: Any) -> str:
    """A parameter of a trial; nothing where it was not searched."""
    return "" if value is None else value_text(value)


def spread_table(grid: Grid) -> Table:
    """Mean, deviation, lowest and highest of each group, on validation and test data."""
    rows = []
    for group in grid.groups:
        for split in dict.fromkeys(("validation", group.split)):
            if not group.runs or not all(group.metric in run.scores(split) for run in group.runs):
                continue
            scores, paths = group.repeated(split), [run.path for run in group.runs]
            shown = per_cent if math.isfinite(group.score.high) else cell
            deviation = shown(float(scores.std(ddof=1)), paths) if len(scores) > 1 else "single run"
            mean, lowest, highest = (shown(float(x), paths) for x in (scores.mean(), scores.min(), scores.max()))
            seeds = ", ".join(str(run.seed) for run in group.runs)
            place = [group.data_set, group.system, split, group.metric, len(scores)]
            rows.append([*place, mean, deviation, lowest, highest, seeds])
    columns = ("data set", "system", "split", "score", "runs", "mean", "deviation", "lowest", "highest", "seeds")
    return make_table("Spread of the scores", columns, rows, "In per cent.")


def package_table(records: Sequence[Record]) -> Table:
    rows = []
    for name, counts in provenance.versions(records).items():
        texts = [f"{version} ({counted(n, 'run')})" for version, n in counts.items()]
        rows.append([name, ", ".join(texts if len(counts) > 1 else counts)])
    return make_table("Packages", ("package", "version"), rows)


def checklist_markdown(checklist: Checklist) -> str:
    """Markdown of the lists; a table that several items cite is printed once."""
    lines, printed = ["# Reproducibility checklist\n"], set()
    for name, items in checklist.lists.items():
        lines.append(f"\n## {name}\n")
        for item in items:
            lines.append(f"\n### {item.number} {item.asks}\n")
            lines += [f"\n{escaped(item.sentence)}\n"] if item.sentence else []
            lines += [f"\n- [ ] To the author: {question}\n" for question in item.questions]
            for each in item.tables:
                if each.title in printed:
                    lines.append(f"\nTable “{each.title}” above.\n")
                else:
                    printed.add(each.title)
                    lines.append(f"\n**{each.title}.** {each.caption}\n\n{table_markdown(each)}")
    return "".join(lines)
