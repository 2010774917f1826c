"""Text tasks of this harness and the Hugging Face Trainer in turn: the same core, weights, pairs and precision.

    python benchmarks/text.py --decoder models/SmolLM2-135M-Instruct --data DIR

DIR holds dialogsum/ (dialogsum.dev.jsonl) and multi30k/ (train.en, train.de), as published. A decoder learns to
summarise dialogues, and a small encoder-decoder with random weights, whose tokenizer is made from the pairs, to
translate. Prints the median ratios over the pairs with their spread: examples per second of training against dynamic
padding and against batches grouped by length, and of greedy generation against `Seq2SeqTrainer.predict`, which
does not serve decoders, and against batches sorted by hand. One thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from page import AS_PRECISION, OURS, PRECISION, ROOT, Figures, machine, ratios, spread, table
from speed import HERE, last_object, rotated, run_process, steady

TRAINING, GENERATION = "training", "generation"
RATES = {TRAINING: "examples_per_second", GENERATION: "generation_examples_per_second"}


@dataclass(frozen=True)
class Case:
    """A set of pairs and how a model is trained on them."""

    kind: str
    batch_size: int
    max_source: int
    max_target: int
    steps: int
    warmup: int
    generated: int


CASES = {
    "dialogsum": Case("causal", 4, 512, 128, 8, 2, 24),
    "multi30k": Case("seq2seq", 64, 96, 96, 60, 15, 200),
}


def write_pairs(name: str, data: Path, file: Path) -> Path:
    """The training pairs of a data set as {"source", "target"} lines, where a line of text stays one."""
    if name == "dialogsum":
        lines = (data / name / "dialogsum.dev.jsonl").read_text(encoding="utf-8").splitlines()
        pairs = [(row["dialogue"], row["summary"]) for row in map(json.loads, lines)]
    else:
        texts = [(data / name / f"train.{code}").read_text(encoding="utf-8").splitlines() for code in ("en", "de")]
        pairs = list(zip(*texts, strict=True))[:8000]
    rows = ({"source": source, "target": target} for source, target in pairs)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def make_encoder_decoder(folder: Path, pairs: Path) -> Path:
    """A BART of 3 and 3 layers of width 256 with random weights, and a byte-pair tokenizer of 8,000 pieces.

    Its start token is not the end token, which random weights would repeat, and end every text at once.
    """
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    special = {name: f"<{name}>" for name in ("s", "pad", "/s", "unk")}
    made = ByteLevelBPETokenizer()
    texts = [text for line in pairs.read_text(encoding="utf-8").splitlines() for text in json.loads(line).values()]
    made.train_from_iterator(texts, vocab_size=8000, special_tokens=list(special.values()))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=256, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=1024, decoder_ffn_dim=1024, max_position_embeddings=256,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


@dataclass
class Job:
    """A case with its pairs, the model, and a folder for what runs leave behind."""

    case: Case
    pairs: Path
    model: Path
    scratch: Path
    runs: int = 0

    def config(self, seed: int, steps: int) -> Path:
        """The YAML of an experiment of this harness."""
        self.runs += 1
        case = self.case
        task = {"max_target_tokens": case.max_target, "max_new_tokens": case.max_target, "metrics": ["chrf"]}
        trainer = {"precision": PRECISION, "devices": 1, "checkpoint_every_minutes": None, "progress": False}
        content: dict[str, Any] = {
            "task": {"name": "translation", **task},
            "run_dir": str(self.scratch / f"run{self.runs}"),
            "model": {"name": str(self.model)},
            "data": {"train": str(self.pairs), "max_length": case.max_source},
            "optim": {"batch_size": case.batch_size, "max_steps": steps},
            "trainer": {**trainer, "log_every_steps": case.warmup},
            "wandb": {"mode": "disabled"},
            "seed": seed,
        }
        path = self.scratch / f"run{self.runs}.yaml"
        path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        return path

    def generated(self) -> Path:
        """The pairs whose sources are generated from."""
        file = self.scratch / "generated.jsonl"
        lines = self.pairs.read_text(encoding="utf-8").splitlines(keepends=True)[: self.case.generated]
        file.write_text("".join(lines), encoding="utf-8")
        return file


def train(job: Job, system: str, seed: int) -> Figures:
    """One training, in a process of its own."""
    case = job.case
    if system != OURS:
        return peer(job, case.steps, case.warmup, seed, *(["--group-by-length"] if system == "grouped" else []))
    path = job.config(seed, case.steps)
    run_process([sys.executable, "-m", "research.cli", "train", str(path)])
    run = job.scratch / path.stem
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    memory = json.loads((run / "result.json").read_text(encoding="utf-8"))["peak_memory_mib"]
    return {**steady(rows, case.warmup), "peak_mib": memory}


def peer(job: Job, steps: int, warmup: int, seed: int, *options: str) -> Figures:
    """One run of the Trainer."""
    case = job.case
    command = [
        sys.executable, str(HERE / "hf_text.py"), case.kind, *AS_PRECISION,
        f"--model={job.model}", f"--train={job.pairs}",
        f"--batch-size={case.batch_size}", f"--max-source={case.max_source}", f"--max-target={case.max_target}",
        f"--max-steps={steps}", f"--warmup-steps={warmup}", f"--seed={seed}", *options,
    ]  # fmt: skip
    return last_object(run_process(command))


def generate(job: Job, system: str) -> Figures:
    """Greedy generation by the weights as they are, the same for every system: random ones write up to the limit."""
    if system != OURS:
        chosen = [f"--generate={job.generated()}", *(["--sorted"] if system == "sorted" else [])]
        return peer(job, 0, 0, 0, *chosen)
    files = [str(job.config(0, steps=0)), str(job.generated())]
    return last_object(run_process([sys.executable, str(HERE / "text.py"), "--generate", *files]))


def generate_here(experiment: Path, file: Path) -> None:
    """Time the predictions for the sources of a file by a run without a step, in this process."""
    import research

    run = research.train(experiment)
    rows = [{"source": json.loads(line)["source"]} for line in file.read_text(encoding="utf-8").splitlines()]
    began = time.perf_counter()
    texts = run.predict(rows)["prediction"]
    print(json.dumps({RATES[GENERATION]: len(texts) / (time.perf_counter() - began)}))


def compare(job: Job, pairs: int, parts: Sequence[str]) -> dict[str, Any]:
    """The rounds of each part, TRAINING and GENERATION: the systems in turn, each round in another order."""
    by_hand = [OURS, "sorted"] if job.case.kind == "causal" else [OURS, "predict", "sorted"]
    ways = {TRAINING: [OURS, "dynamic", "grouped"], GENERATION: by_hand}
    found: dict[str, Any] = {}
    for part in parts:
        found[part] = []
        for k in range(pairs):
            measured = {s: train(job, s, k) if part == TRAINING else generate(job, s) for s in rotated(ways[part], k)}
            found[part].append(measured)
            print("  " + ", ".join(f"{s} {measured[s][RATES[part]]:.2f}" for s in ways[part]), flush=True)
    return found


def page(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    results = record["results"]
    rows = []
    for part, names in ((TRAINING, ("dynamic", "grouped")), (GENERATION, ("predict", "sorted"))):
        for name in names:
            there = [r[part] if part in r and name in r[part][0] else None for r in results.values()]
            found = [spread(ratios(pairs, name, RATES[part])) if pairs else "" for pairs in there]
            rows += [[f"{part} against {name}", *found]] if any(found) else []
    for name in (OURS, "dynamic", "grouped"):
        for key in ("examples_per_second", "peak_mib") if all(TRAINING in r for r in results.values()) else ():
            cells = (statistics.median(pair[name][key] for pair in r[TRAINING]) for r in results.values())
            rows.append([f"{name}: {key}", *(f"{value:.1f}" for value in cells)])
    m = record["machine"]
    said = (
        f"{m['processor']}, {m['threads']} thread(s) a run, load {m['load_average']} at the end; commit {m['commit']}."
    )
    title = f"# Text tasks, {record['date']}"
    return "\n".join([title, "", f"`{record['command']}`", "", said, "", *table(["", *results], rows)]) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--decoder", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--parts", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    return parser.parse_args()


def main() -> None:
    if sys.argv[1] == "--generate":
        return generate_here(Path(sys.argv[2]), Path(sys.argv[3]))
    options = parse()
    results: dict[str, Any] = {}
    for name in options.cases:
        print(name, flush=True)
        with tempfile.TemporaryDirectory(prefix="text-") as folder:
            scratch, case = Path(folder), CASES[name]
            pairs = write_pairs(name, options.data, scratch / "pairs.jsonl")
            is_decoder = case.kind == "causal"
            model = options.decoder.resolve() if is_decoder else make_encoder_decoder(scratch / "model", pairs)
            results[name] = compare(Job(case, pairs, model, scratch), options.pairs, options.parts)
    record = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/text.py", *sys.argv[1:]]),
        "machine": machine(),
        "results": results,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    place = options.output / f"text-{'-'.join(results)}-{record['date']}"
    place.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    place.with_suffix(".md").write_text(page(record), encoding="utf-8")
    print(page(record))


if __name__ == "__main__":
    main()
