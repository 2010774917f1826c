"""Bad input at the level of the command: one line that says what, where and how to fix it; nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from research.tracking.run import Run
from tests.attempts import Attempt
from tests.commands import Command
from tests.conftest import copied, make_tiny_model

GOOD = "".join(json.dumps({"text": f"good film {i}", "label": "ab"[i % 2]}) + "\n" for i in range(8))
SENTENCES = '{"tokens": ["Anna", "in"], "tags": ["B-PER", "O"]}\n' * 8


NO_ANSWER: dict[str, list[Any]] = {"text": [], "answer_start": []}


def tagged(*tags: Any) -> dict[str, list[Any]]:
    return {"tokens": ["a"] * len(tags), "tags": list(tags)}


def question(**changed: Any) -> str:
    answers = {"text": ["Oslo"], "answer_start": [8]}
    return json.dumps({"question": "where", "context": "Anna in Oslo", "answers": answers, **changed}) + "\n"


# --- data files


def test_a_missing_file(command: Command) -> None:
    command.file("train.jsonl", GOOD)
    path = command.folder / "trian.jsonl"
    assert command.refused("sentiment", path) == f"{path}: no such file; did you mean train.jsonl?"


@pytest.mark.parametrize(("content", "fragment"), [("", "is empty; give a file"), ("\n \n", "holds no lines; give at")])
def test_an_empty_file(command: Command, content: str, fragment: str) -> None:
    path = command.file("train.jsonl", content)
    assert command.refused("sentiment", path).startswith(f"{path}: {fragment}")


@pytest.mark.slow
def test_an_empty_split(command: Command) -> None:
    folder = command.folder / "hub"
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("string")})
    for split, rows in {"train": ["a", "b"], "test": []}.items():
        (folder / split).mkdir(parents=True)
        columns = {"text": rows, "label": rows}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / split / "0000.parquet")
    sentence = command.refused("sentiment", "train", f"data.name={folder}", "data.test=test")
    assert sentence.startswith(f"{folder} (test): ") and "no data" in sentence and "check the split" in sentence
    sentence = command.refused("sentiment", "train", f"data.name={folder}", "data.validation=dev")
    assert str(folder) in sentence and "dev" in sentence


@pytest.mark.in_check(4)
@pytest.mark.parametrize(
    ("task", "content", "place", "fragment"),
    [
        ("sentiment", '{"text": "a", "label": "b"}\n{"text": \n', "line 2, column 1", "not JSON"),
        ("sentiment", b'{"text": "a", "label": "b"}\n{"text": "M\xfc"}\n', "line 2", "byte 12 (0xfc) is not"),
        ("sentiment", [{"txt": "a", "label": "b"}], "", "are txt, label; map one with `data.columns.text: txt`"),
        ("sentiment", [{"text": "a"}], "", "no column 'label'"),
        ("sentiment", [{"text": "a", "label": "b"}, {"text": "a"}], "line 2", "'label' is null or missing"),
        ("sentiment", [{"text": 3, "label": "b"}], "", "'text' holds int64; write text"),
        ("sentiment", [{"text": "a", "label": 0.5}], "", "'label' holds double"),
        ("sentiment", [{"text": "a", "label": ""}], "line 1", "an empty label"),
        ("sentiment", [{"id": 1, "text": "a", "label": "b"}] * 2, "", "the id '1' occurs in line 1 and line 2"),
        ("ner", [tagged("O"), {"tokens": ["a", "b"], "tags": ["O"]}], "line 2", "2 tokens"),
        ("ner", [{"tokens": "a b", "tags": "O O"}], "", "'tokens' holds string, not lists"),
        ("ner", [tagged(1)], "", "'tags' holds list<item: int64>; write lists of text"),
        ("ner", [{"tokens": [3], "tags": ["O"]}], "", "'tokens' holds list<item: int64>; write lists of text"),
        ("ner", [tagged("O"), tagged("PER")], "line 2", "'PER' is not a"),
        ("ner", [tagged("S-X"), tagged("U-X")], "", "and ['U'] (BILOU)"),
        ("ner", [{"tokens": [], "tags": []}], "", "no split has a value in 'tags'"),
        ("qa", question() + question(answers={"text": ["Bergen"], "answer_start": [8]}), "line 2", "'Bergen' is not"),
        ("qa", question(answers={"text": ["Oslo"], "answer_start": []}), "line 1", "1 answers but 0 answer_start"),
        ("qa", question(answers=[{"text": "Oslo", "answer_start": 8}]), "", '{"text": ["Oslo"], "answer_start": [17]}'),
        ("qa", question(answers="Oslo"), "", "'answers' holds string"),
        ("qa", question(context=["Anna", "in", "Oslo"]), "", "'context' holds list<item: string>; write text"),
    ],
)  # fmt: skip
def test_a_faulty_row(
    command: Command, task: str, content: str | bytes | list[dict[str, Any]], place: str, fragment: str
) -> None:
    path = command.file("train.jsonl", content)
    sentence = command.refused(task, path)
    assert fragment in sentence
    assert (f"{path}, {place}" if place else str(path)) in sentence or "no split has" in sentence


def test_a_faulty_conll_file(command: Command) -> None:
    path = command.file("train.conll", "Anna\tB-PER\nin\n\n")
    assert f"{path}, line 2: 'in' has no tag" in command.refused("ner", path)


def test_a_faulty_squad_file(command: Command) -> None:
    paragraph = {
        "context": "Anna in Oslo",
        "qas": [{"id": "q7", "question": "?", "answers": [{"text": "Rome", "answer_start": 8}]}],
    }
    path = command.file("train.json", json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    sentence = command.refused("qa", path)
    assert sentence.startswith(
        f"{path}, question q7: the answer 'Rome' is not at answer_start 8 (the context has 'Oslo')"
    )


def test_a_label_that_is_not_declared(command: Command) -> None:
    path = command.file("train.jsonl", GOOD)
    sentence = command.refused("sentiment", path, "data.labels=[a, bb]")
    assert sentence.startswith(f"{path}, line 2: the label 'b' of 'label' is not declared (did you mean 'bb'?)")


def test_columns_and_class_weights_that_name_nothing(command: Command) -> None:
    path = command.file("train.jsonl", GOOD)
    assert "has no field 'txt'; its fields are text, text_pair, label" in command.refused(
        "sentiment", path, "data.columns={txt: text}"
    )
    assert "no column 'body' for the field 'text'" in command.refused("sentiment", path, "data.columns={text: body}")
    validation = copied(path)
    reported = command.refused("sentiment", path, f"data.validation={validation}", "data.cluster=page")
    assert reported == f"data.cluster=page: {validation} has no such column; its columns are id, text, label."
    assert "names c, but the labels are a, b" in command.refused("sentiment", path, "optim.class_weights={c: 2}")


def test_what_is_no_data_file(command: Command) -> None:
    assert "is a folder; name one file in it" in command.refused("sentiment", command.folder)
    assert "unknown kind of file" in command.refused("sentiment", command.file("train.dat", GOOD))


# --- what looks odd and trains


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "content"),
    [
        ("sentiment", json.dumps({"text": "good " * 200_000, "label": "a"}) + '\n{"text": "", "label": "b"}\n'),
        ("sentiment", '{"text": "a", "label": "the only label"}\n'),
        ("ner", json.dumps({"tokens": ["Oslo"] * 5_000, "tags": ["B-LOC"] * 5_000}) + '\n{"tokens": [], "tags": []}\n'),
        ("ner", '{"tokens": ["a"], "tags": ["O"]}\n'),
        ("ner", '{"tokens": ["\\u0007", "", " "], "tags": ["B-X", "I-X", "O"]}\n'),
        ("qa", question(context="Anna in Oslo " * 2_000) + question(question="", context="", answers=NO_ANSWER)),
        ("qa", question(answers={"text": ["Oslo"], "answer_start": [0]}) * 2),
    ],
    ids=["1 MB, empty", "one label", "long, empty words", "no entity", "no token", "long, empty context", "moved"],
)  # fmt: skip
def test_what_looks_odd_and_trains(command: Command, task: str, content: str) -> None:
    path = command.file("train.jsonl", content)
    command.trains(task, path, f"data.validation={copied(path)}")
    table = Run.read(command.run).predictions / "validation.parquet"
    assert datasets.Dataset.from_parquet(str(table), cache_dir=command.folder).num_rows == content.count("\n")


# --- models


def changed(model: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    copy = folder / "model"
    shutil.copytree(model, copy)
    change(copy)
    return copy


def without(*names: str) -> Callable[[Path], object]:
    return lambda folder: [path.unlink() for path in folder.iterdir() if any(path.match(name) for name in names)]


def slow_tokenizer_only(folder: Path) -> None:
    without("tokenizer*", "special_tokens_map.json")(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')


def cut_short(name: str) -> Callable[[Path], object]:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (without("config.json"), "is not a model folder: it has no config.json"),
        (without("model.safetensors"), " cannot be used: "),
        (without("tokenizer*", "special_tokens_map.json"), "has no fast tokenizer"),
        (slow_tokenizer_only, "has no fast tokenizer"),
        (cut_short("model.safetensors"), "are damaged or cut short"),
        (cut_short("tokenizer.json"), "has no fast tokenizer"),
        (cut_short("config.json"), "config.json is damaged: "),
        (wider, "are of another shape than its config.json says"),
    ],
    ids=["config", "weights", "tokenizer", "slow", "cut weights", "cut tokenizer", "cut config", "shape"],
)
def test_a_broken_model_folder(command: Command, change: Callable[[Path], object], fragment: str) -> None:
    model = changed(command.model, command.folder, change)
    sentence = command.refused("sentiment", command.file("train.jsonl", GOOD), model=model)
    assert fragment in sentence and str(model) in sentence


def test_a_tokenizer_of_another_model(command: Command) -> None:
    model = make_tiny_model(command.folder / "small", vocab_size=50)
    assert "do not belong together" in command.refused("sentiment", command.file("train.jsonl", GOOD), model=model)


def test_a_decoder_for_ner_says_what_is_supported(command: Command) -> None:
    model = make_tiny_model(command.folder / "gpt2", "gpt2", n_positions=128, n_embd=32, n_layer=2, n_head=4)
    sentence = command.refused("ner", command.file("train.jsonl", SENTENCES), model=model)
    assert "is a 'gpt2' model, a decoder; task 'ner' fine-tunes encoders such as bert, roberta" in sentence


def test_a_model_folder_that_is_not_there(command: Command) -> None:
    model = command.folder / "nowhere"
    assert f"There is no model folder {model}" in command.refused(
        "sentiment", command.file("a.jsonl", GOOD), model=model
    )


def test_hub_names_without_network(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from research.common.hub import hub_answers

    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing answers
    hub_answers.cache_clear()
    path = command.file("train.jsonl", GOOD)
    sentence = command.refused("sentiment", path, model="google-bert/bert-base-uncased")
    assert "google-bert/bert-base-uncased" in sentence and "the hub cannot be reached" in sentence
    sentence = command.refused("sentiment", "train", "data.name=stanfordnlp/sst2")
    assert "stanfordnlp/sst2: the hub" in sentence and "cannot be reached" in sentence
    hub_answers.cache_clear()


def test_max_length_above_the_positions(command: Command) -> None:
    sentence = command.refused("sentiment", command.file("train.jsonl", GOOD), "data.max_length=129")
    assert f"data.max_length=129 is more than the 128 positions of {command.model}; set it to 128 or less" in sentence


# --- settings


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("optim.lr=0", "optim.lr=0.0 must be a number above 0"),
        ("optim.lr=-1", "optim.lr=-1.0 must be a number above 0"),
        ("optim.lr=nan", "optim.lr=nan must be a number above 0"),
        ("optim.batch_size=0", "optim.batch_size=0 must be at least 1"),
        ("trainer.accelerator=gpu", "This machine cannot run trainer.accelerator=gpu"),
        ("trainer.precision=fp16", "trainer.precision=fp16 needs a GPU"),
    ],
)
def test_a_setting_that_cannot_be(command: Command, override: str, fragment: str) -> None:
    import torch

    if override.startswith("trainer.") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert fragment in command.refused("sentiment", command.file("train.jsonl", GOOD), override)


def test_a_monitor_that_is_no_score_names_the_scores(command: Command) -> None:
    path = command.file("train.jsonl", GOOD)
    code, said = command("sentiment", path, f"data.validation={copied(path)}", "trainer.monitor=f2")
    assert code == 2 and "trainer.monitor=f2 is not a score of task sentiment; it reports accuracy, f1" in said
    assert not command.run.exists()  # nothing was begun


def test_a_loss_that_is_not_a_number_names_step_and_examples(command: Command) -> None:
    path = command.file("train.jsonl", GOOD)
    code, said = command("sentiment", path, "optim.lr=1e30", "optim.epochs=20", "optim.warmup_ratio=0")
    assert code == 2 and "nan at step" in said and "examples train-" in said and "Lower optim.lr" in said
    assert Run.read(command.run).result is None


# --- disks


@pytest.mark.parametrize("place", ["train.jsonl", "train.jsonl/run", "/proc/nowhere/run"])
def test_a_run_folder_that_cannot_be_written(command: Command, place: str) -> None:
    path = command.file("train.jsonl", GOOD)
    run_dir = command.folder / place
    said = command.refused("sentiment", path, f"run_dir={run_dir}")
    assert f"The run folder {run_dir} cannot be written" in said or f"lies in run_dir={run_dir}" in said
    assert path.read_text() == GOOD


def test_a_data_cache_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", command.file("cache", "not a folder"))
    sentence = command.refused("sentiment", command.file("train.jsonl", GOOD))
    assert "the data cache" in sentence and "set HF_DATASETS_CACHE to a folder with space" in sentence


@pytest.mark.slow
def test_a_full_disk(experiments: dict[str, Path], tmp_path: Path) -> None:
    """No file may grow beyond 200 kB, as if the disk were full: the first checkpoint cannot be written."""
    run = tmp_path / "run"
    arguments = ["train", str(experiments["sentiment"]), f"run_dir={run}"]
    full = Attempt(arguments, tmp_path / "log", largest_file=200_000)
    assert full.wait() == 2
    lines = [line for line in full.output.splitlines() if line.startswith("research: ")]
    assert len(lines) == 1 and "could not be written" in lines[0] and str(run) in lines[0]
    assert "Traceback" not in full.output
    left = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert left <= {"config.yaml", ".lock", "provenance.json", "metrics.jsonl", "cost.json"}
    after = Attempt(arguments, tmp_path / "log")  # with space again, the same command finishes
    assert after.wait() == 0, after.output
    assert Run.read(run).result is not None
