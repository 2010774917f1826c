"""The command `research relations`: entities by one run, the relations between them by another, scored end to end."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "find entities by a NER run and the relations between them by a relation run; score both together"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ner", help="run folder of task ner")
    parser.add_argument("relation", help="run folder of task relation")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="JSON lines with text; entities, relations: gold"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL file with the entities and relations")


def run(options: argparse.Namespace) -> int:
    """Write what the runs find; print the scores where the documents have gold relations."""
    from research.common.files import write_atomically
    from research.common.process import prepare_process
    from research.inference.finished_run import refuse_prediction
    from research.tracking.run import Run

    ner, relation = Run.read(options.ner), Run.read(options.relation)
    for each in (ner, relation):
        refuse_prediction(each, options.input)
    prepare_process()
    from research.inference.joint_relations import as_lines, joint_relations, read_documents, triple_scores

    documents, labelled = read_documents(Path(options.input))
    found = joint_relations(ner, relation, documents)
    with write_atomically(Path(options.output)) as path:
        path.write_text(as_lines(found), encoding="utf-8")
    count = sum(len(document.triples) for document in found)
    print(f"{count} relations in {len(found)} documents written to {options.output}")
    if labelled:
        print("| triples | precision | recall | F1 |\n|---|---|---|---|")
        for rule, scores in triple_scores(documents, found).items():
            print(f"| {rule} | {' | '.join(f'{scores[part]:.4f}' for part in ('precision', 'recall', 'f1'))} |")
    return 0
