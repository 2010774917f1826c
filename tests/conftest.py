"""Small models and data that the tests share: random weights, a real fast tokenizer, files in the users' formats."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.clean_tree import untracked

if TYPE_CHECKING:
    from tests.commands import Command
    from tests.small_runs import SmallRuns

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
settings.register_profile("busy machine", deadline=None)  # other jobs make an example slow
settings.load_profile("busy machine")

WORDS = [
    "the", "a", "an", "of", "in", "to", "and", "is", "was", "not", "very", "good", "bad", "film", "book", "Anna",
    "Oslo", "Acme", "river", "city", "who", "where", "when", "what",
]  # fmt: skip


UNTRACKED = pytest.StashKey[set[str]]()
LEFT = pytest.StashKey[list[str]]()

MARKER_OF_FIXTURE = {
    "forkserver": "process", "slurm": "service", "postgres": "service", "browser": "service", "server": "service",
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups, and pytest the -m option
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use. With several workers, one takes whole files and one all of the cluster."""
    counts: Counter[str] = Counter()  # cases of each parametrised test so far
    for item in items:
        counts[item.nodeid.partition("[")[0]] += 1
        cases = item.get_closest_marker("in_check")
        if cases is not None and counts[item.nodeid.partition("[")[0]] > cases.args[0]:
            item.add_marker("slow")
        fixtures = set(getattr(item, "fixturenames", ()))
        for name in fixtures & MARKER_OF_FIXTURE.keys():
            item.add_marker(MARKER_OF_FIXTURE[name])
        group = "slurm" if "slurm" in fixtures else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without its groups pytest-xdist would bring up a cluster in every process, silently."""
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist 3.8 sees no groups under this pytest: take that of constraints.txt")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # once, not in each worker
        session.config.stash[UNTRACKED] = untracked()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session whose tests left files in the repository, such as a run folder relative to it."""
    before = session.config.stash.get(UNTRACKED, None)
    if before is not None and (left := sorted(untracked() - before)):
        session.config.stash[LEFT] = left
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured (`record_property`), from all processes, and what they left in the repository."""
    for path in terminalreporter.config.stash.get(LEFT, []):
        terminalreporter.write_line(
            f"new in the repository since the tests began: {path!r}; a test must leave nothing there", red=True
        )
    for report in terminalreporter.getreports("passed"):
        for name, figure in report.user_properties:
            terminalreporter.write_line(f"{name}: {figure}")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in the hub's format: a two-layer BERT with random weights and a word-piece tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-bert")


def make_tiny_model(folder: Path, kind: str = "bert", **settings: Any) -> Path:
    """Write a random model of an architecture and its tokenizer to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **{**size, **settings})).save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """A word-piece tokenizer over letters and a few words: every text can be spelled."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(33, 127)]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        *map(str.lower, WORDS),
    ]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = ("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128,
    )  # fmt: skip


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def copied(file: str | Path, split: str = "validation") -> str:
    """A copy of a data file beside it, for another split: one file cannot serve two."""
    copy = Path(file).with_name(f"{split}-{Path(file).name}")
    shutil.copyfile(file, copy)
    return str(copy)


def write_experiment(path: Path, task: Any, model: Any, data: Any, **sections: Any) -> Path:
    """An experiment in fp32 on one device, without W&B, whose run folder is `run` beside it.

    `model` is a folder or a section; `data` a file to train on, and a copy of it to validate on, or a section.
    Keys of a section `trainer` are added to those of here.
    """
    content = {
        "task": task,
        "model": model if isinstance(model, dict) else {"name": str(model)},
        "data": data if isinstance(data, dict) else {"train": str(data), "validation": copied(data)},
        "wandb": {"mode": "disabled"},
        "run_dir": str(path.parent / "run"),
        **sections,
        "trainer": {"precision": "fp32", "devices": 1, **sections.get("trainer", {})},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """For each task, small files: {"sentiment": {"train": path, "validation": path, "test": path}, ...}."""
    folder = tmp_path_factory.mktemp("data")
    makers: dict[str, Callable[[int], dict[str, Any]]] = {"sentiment": _review, "ner": _sentence, "qa": _question}
    counts = {"train": 40, "validation": 21, "test": 13}
    return {
        task: {
            split: str(write_jsonl(folder / f"{task}-{split}.jsonl", [make(i + 1000 * n) for i in range(count)]))
            for n, (split, count) in enumerate(counts.items())
        }
        for task, make in makers.items()
    }


def _review(i: int) -> dict[str, Any]:
    words = [WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(2 + i * 5 % 17)]
    return {"text": " ".join([*words, "good" if i % 2 else "bad"]), "label": "positive" if i % 2 else "negative"}


def _sentence(i: int) -> dict[str, Any]:
    tokens = [WORDS[(i * 3 + k * 5) % len(WORDS)] for k in range(3 + i * 11 % 19)]
    names = {"Anna": "B-PER", "Oslo": "B-LOC", "Acme": "B-ORG"}
    return {"tokens": tokens, "tags": [names.get(token, "O") for token in tokens]}


def _question(i: int) -> dict[str, Any]:
    words = [WORDS[(i * 5 + k * 3) % len(WORDS)] for k in range(12 + i * 13 % 60)]
    answer = words[i % len(words)]
    start = len(" ".join(words[: i % len(words)])) + (1 if i % len(words) else 0)
    context = " ".join(words)
    return {"question": f"what is {answer}", "context": context, "answers": {"text": [answer], "answer_start": [start]}}


@pytest.fixture(scope="session")
def forkserver(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The process that every `attempts.Attempt` is forked from."""
    from tests import attempts

    attempts.prepare(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def experiments(
    tmp_path_factory: pytest.TempPathFactory, task_data: dict[str, dict[str, str]], forkserver: None
) -> dict[str, Path]:
    """For each task an experiment of 30 steps, each logged, with dropout; run it with `attempts.Attempt`."""
    folder = tmp_path_factory.mktemp("experiments")
    make_tiny_model(folder / "model", hidden_size=128, intermediate_size=256)
    settings = {
        "model": {"name": str(folder / "model")},
        "optim": {"batch_size": 4, "lr": 1e-3},
        "trainer": {"log_every_steps": 1, "checkpoint_every_steps": 3, "keep_checkpoints": "all"},
        "wandb": {"mode": "disabled"},
    }
    for task, files in task_data.items():
        content = {"task": task, "data": {**files, "max_length": 64, "stride": 16}, **settings}
        (folder / f"{task}.yaml").write_text(json.dumps(content), encoding="utf-8")
    return {task: folder / f"{task}.yaml" for task in task_data}


@pytest.fixture
def small_runs(
    tmp_path: Path, tiny_model: Path, task_data: dict[str, dict[str, str]], request: pytest.FixtureRequest
) -> SmallRuns:
    """Trains small experiments: `small_runs.train("ner", adapter="head")`."""
    from tests.small_runs import SmallRuns

    (tmp_path / "runs").mkdir()
    return SmallRuns(tmp_path / "runs", tiny_model, task_data, request)


@pytest.fixture
def command(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Gives a file to the real command: `command.refused("ner", path)` is the one line of its refusal."""
    import datasets

    from tests.commands import Command

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return Command(tmp_path, tiny_model, capsys)
