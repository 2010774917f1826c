"""The command `research relations`: entities by one run, the relations between them by another, scored end to end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.inference.joint_relations import Document

HELP = "find entities by a NER run and the relations between them by a relation run; score both together"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ner", help="run folder of task ner")
    parser.add_argument("relation", help="run folder of task relation")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="JSON lines with text; entities, relations: gold"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL file with the entities and relations")


def run(options: argparse.Namespace) -> int:
    """Write what the runs find; print and write the scores where the documents have gold relations."""
    from research.common.files import write_atomically, write_json
    from research.common.process import prepare_process
    from research.inference.finished_run import refuse_prediction
    from research.tracking.run import Run

    ner, relation = Run.read(options.ner), Run.read(options.relation)
    for each in (ner, relation):
        refuse_prediction(each, options.input)
    prepare_process()
    from research.inference.joint_relations import as_lines, joint_relations, read_documents

    documents, labelled = read_documents(Path(options.input))
    found = joint_relations(ner, relation, documents)
    with write_atomically(Path(options.output)) as path:
        path.write_text(as_lines(found), encoding="utf-8")
    count = sum(len(document.triples) for document in found)
    print(f"{count} relations in {len(found)} documents written to {options.output}")
    if labelled:
        scores = scores_of(documents, found)
        print("| triples | precision | recall | F1 | 95 % over documents |\n|---|---|---|---|---|")
        for rule, own in scores.items():
            values = " | ".join(f"{own[part]:.4f}" for part in ("precision", "recall", "f1"))
            print(f"| {rule} | {values} | {own['f1_low']:.4f} to {own['f1_high']:.4f} |")
        target = Path(options.output).with_suffix(".scores.json")
        runs = {"ner": str(ner.path), "relation": str(relation.path)}
        write_json(target, {"input": options.input, **runs, "documents": len(found), "triples": scores})
        print(f"Scores: {target}")
    return 0


def scores_of(golds: Sequence[Document], predictions: Sequence[Document]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 by rule, with the interval of F1 over the documents (BCa bootstrap)."""
    from research.inference.joint_relations import triple_counts, triple_scores
    from research.metrics.base import precision_recall_f1
    from research.report.statistics.intervals import over_examples
    from research.report.statistics.paired_counts import PairedCounts
    from research.report.statistics.resampling import RESAMPLES, bootstrap

    scores, ids = triple_scores(golds, predictions), [document.id for document in golds]
    for rule, values in triple_counts(golds, predictions).items():
        counts = PairedCounts(ids, values[None], lambda sums: precision_recall_f1(sums)[..., 2], 0.0, 1.0)
        interval = over_examples(counts, (1,), bootstrap(counts, RESAMPLES))
        scores[rule] |= {"f1_low": interval.low, "f1_high": interval.high}
    return scores
