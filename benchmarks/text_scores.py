"""Scores of text tasks, before and after training, beside a script of the Hugging Face Trainer at the same settings.

    python benchmarks/text_scores.py --data DIR --output DIR --peer SCRIPT [--only PATTERN ...]
    python benchmarks/text_scores.py --output DIR --table

DIR holds dialogsum/ and multi30k/ as published. SmolLM2-135M-Instruct summarises dialogues, as it is, by all weights
and by LoRA; a BART of random weights and a bert2bert of MiniLM translate. Both systems begin with the same weights and
tokenizer and read the same examples; the outputs of both are scored by rouge-score and sacrebleu. Rows are written to
OUTPUT/rows.jsonl as they come, and a later call continues after the last. Each run is a process of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from page import AS_PRECISION, PRECISION, ROOT, machine, table
from rows import append_row, read_rows

OURS, PEER = "harness", "peer"
SEEDS = range(3)
PROMPT = "Summarize this dialogue.\n\n{source}\n\nSummary:"
EXAMPLES, TESTED = 96, 48  # dialogues, read once in steps of four
PAIRS = 16000  # of Multi30k, of which TRANSLATED are validated on
TRANSLATED = 200


@dataclass(frozen=True)
class Case:
    """One run: what is trained on what, by which system."""

    name: str
    system: str
    seed: int
    steps: int
    batch_size: int = 4
    lr: float = 1e-4
    adapter: str = "full"

    @property
    def data(self) -> str:
        return "dialogsum" if self.name.startswith("dialogsum") else "multi30k"

    @property
    def label(self) -> str:
        return f"{self.name}/{self.system}/{self.seed}"


def cases() -> Iterator[Case]:
    """All of the first seed before the next."""
    yield Case("dialogsum/untrained", OURS, 0, 0)
    for seed in SEEDS:
        yield Case("dialogsum/full", OURS, seed, EXAMPLES // 4)
        yield Case("dialogsum/full", PEER, seed, EXAMPLES // 4)
        yield Case("dialogsum/lora", OURS, seed, EXAMPLES // 4, lr=2e-3, adapter="lora")
        if seed == 0:
            for system in (OURS, PEER):
                yield Case("multi30k/bart", system, seed, 300, batch_size=64, lr=1e-3)
                yield Case("multi30k/bert2bert", system, seed, 120, batch_size=64, lr=1e-4)


class Files:
    """The pairs of both data sets as JSON lines, and the weights that runs begin with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, options.output

    def pairs(self, data: str) -> Path:
        """A folder of train.jsonl and validation.jsonl, {"source", "target"}."""
        folder = Path(self.folder / data)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            train, test = self._dialogues() if data == "dialogsum" else self._translations()
            for name, rows in (("train", train), ("validation", test)):
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        return folder

    def _dialogues(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        place = self.options.data / "dialogsum"
        train, test = (
            [json.loads(line) for line in (place / f"dialogsum.{name}.jsonl").read_text("utf-8").splitlines()]
            for name in ("dev", "test")
        )
        rows = [{"source": row["dialogue"], "target": row["summary"]} for row in train[:EXAMPLES]]
        several = [[row[f"summary{k}"] for k in (1, 2, 3)] for row in test[:TESTED]]
        return rows, [
            {"source": row["dialogue"], "target": golds} for row, golds in zip(test[:TESTED], several, strict=True)
        ]

    def _translations(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        def read(name: str, count: int) -> list[dict[str, Any]]:
            sides = [(self.options.data / "multi30k" / f"{name}.{code}").read_text("utf-8") for code in ("en", "de")]
            both = zip(*(side.splitlines()[:count] for side in sides), strict=True)
            return [{"source": english, "target": german} for english, german in both]

        return read("train", PAIRS), read("val", TRANSLATED)

    def model(self, case: Case) -> Path:
        """The folder of the weights a case begins with: of a run without a step where they are drawn."""
        if case.data == "dialogsum":
            return Path(self.options.decoder.resolve())
        name = case.name.rpartition("/")[2]
        run = Path(self.folder / "begin" / name)
        if not (run / "model").is_dir():
            bart = ["family=bart", "layers=3", "width=256", "heads=4", "vocabulary=8000", "positions=128"]
            keys = bart if name == "bart" else ["family=bert2bert", f"encoder={self.options.encoder.resolve()}"]
            self.train(run, case, "scratch", 0, [f"model.scratch.{key}" for key in keys])
        return run / "model"

    def train(self, run: Path, case: Case, model: Path | str, steps: int, more: Sequence[str] = ()) -> None:
        """A run of this harness."""
        pairs = self.pairs(case.data)
        prompted = case.data == "dialogsum"
        limits = {"max_target_tokens": 96, "max_new_tokens": 64}
        task = {"name": "summarization", "template": PROMPT, "metrics": ["rouge"], **limits}
        content: dict[str, Any] = {
            "task": task if prompted else {"name": "translation", **limits},
            "model": {"name": str(model)},
            "data": {"train": str(pairs / "train.jsonl"), "validation": str(pairs / "validation.jsonl"),
                     "max_length": 640 if prompted else 96},
            "adapter": {"name": "lora", "rank": 8} if case.adapter == "lora" else case.adapter,
            "optim": {"lr": case.lr, "batch_size": case.batch_size, "max_steps": steps},
            "trainer": {"precision": PRECISION, "devices": 1, "progress": False, "checkpoint_every_minutes": None,
                        "evaluate_every_steps": 10**6, "keep_checkpoints": "none"},
            "wandb": {"mode": "disabled"},
            "seed": case.seed,
            "run_dir": str(run),
        }  # fmt: skip
        run.parent.mkdir(parents=True, exist_ok=True)
        experiment = run.parent / f"{run.name}.yaml"
        experiment.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "research.cli", "train", str(experiment), *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def harness(case: Case, files: Files) -> dict[str, Any]:
    """Train by this harness, and read its outputs."""
    import pyarrow.parquet as pq

    run = files.folder / "runs" / case.label
    files.train(run, case, files.model(case), case.steps)
    outputs = pq.read_table(run / "predictions" / "validation.parquet")["prediction"].to_pylist()
    result = json.loads((run / "result.json").read_text("utf-8"))
    found = {"trained": result["trained_parameters"], "peak_mib": result["peak_memory_mib"]}
    return {**found, **scored(outputs, files.pairs(case.data) / "validation.jsonl")}


def peer(case: Case, files: Files) -> dict[str, Any]:
    """Train by the Trainer, and read its outputs."""
    decoder, outputs = case.data == "dialogsum", files.folder / "outputs.jsonl"
    command = [
        sys.executable, str(files.options.peer), "causal" if decoder else "seq2seq", *AS_PRECISION,
        f"--data={files.pairs(case.data)}", f"--model={files.model(case)}", f"--max-steps={case.steps}",
        f"--batch-size={case.batch_size}", f"--lr={case.lr}", f"--seed={case.seed}", "--eval-batch-size=16",
        f"--max-source={600 if decoder else 96}", "--max-target=64", f"--predictions={outputs}",
        *([f"--prompt={PROMPT}"] if decoder else []),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    texts = [json.loads(line) for line in outputs.read_text("utf-8").splitlines()]
    return {"peak_mib": found["peak_mib"], **scored(texts, files.pairs(case.data) / "validation.jsonl")}


def scored(outputs: Sequence[str], pairs: Path) -> dict[str, float]:
    """ROUGE-L (best reference of each, mean) and BLEU, in per cent."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    golds = [json.loads(line)["target"] for line in pairs.read_text("utf-8").splitlines()]
    several = [gold if isinstance(gold, list) else [gold] for gold in golds]
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rouge = [scorer.score_multi(g, o)["rougeL"].fmeasure for g, o in zip(several, outputs, strict=True)]
    bleu = BLEU().corpus_score(list(outputs), [list(stream) for stream in zip(*several, strict=True)])
    return {"rouge_l": 100 * statistics.mean(rouge), "bleu": bleu.score}


def measure(options: argparse.Namespace) -> None:
    """All cases that have no row yet."""
    files = Files(options)
    options.output.mkdir(parents=True, exist_ok=True)
    for case in cases():
        done = {row["label"] for row in read_rows(options.output)}
        wanted = not options.only or any(fnmatch(case.label, pattern) for pattern in options.only)
        if case.label in done or not wanted or (case.system == PEER and not options.peer):
            continue
        found = (harness if case.system == OURS else peer)(case, files)
        row = {"label": case.label, "name": case.name, "system": case.system, "seed": case.seed, **found}
        append_row(options.output, row)
        print(json.dumps(row), flush=True)


def page(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each case and system: mean and deviation over seeds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["name"], row["system"]].append(row)
    cells = []
    for (name, system), runs in found.items():
        key = "rouge_l" if name.startswith("dialogsum") else "bleu"
        scores = [run[key] for run in runs]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        memory = statistics.median(run["peak_mib"] for run in runs)
        cells.append([name, system, str(len(runs)), f"{statistics.mean(scores):.2f}{spread}", f"{memory:,.0f}"])
    head = ["case", "system", "seeds", "ROUGE-L or BLEU, per cent", "MiB"]
    return "\n".join([f"{machine()['processor']}, one thread, {PRECISION}", "", *table(head, cells)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--decoder", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct")
    parser.add_argument("--encoder", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="a script of the Trainer: causal|seq2seq --data=DIR --model=DIR ...")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="cases as NAME/SYSTEM/SEED: multi30k/*")
    parser.add_argument("--table", action="store_true", help="print the table of OUTPUT")
    options = parser.parse_args()
    if options.table:
        print(page(read_rows(options.output)))
    else:
        measure(options)


if __name__ == "__main__":
    main()
