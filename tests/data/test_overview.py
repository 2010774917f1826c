"""What is reported of the data before training, and which overlap of splits is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.common.errors import UserError
from research.data.overview import normal, overview_of, sentences
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.data.opening import LABELLED, WriteFile, opened
from tests.tasks.conftest import Build
from tests.tasks.conftest import build as build


@pytest.fixture
def task() -> str:
    return "classification"


def rows(*pairs: Any) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in pairs]


def test_counts_of_what_is_odd(file: WriteFile) -> None:
    train = rows(("Good film!", "p"), ("Good film!", "n"), ("bad", "n"), ("bad", "n"), ("", "n"), (" ", "p"))
    test = rows(("good  film", "p"), ("bad", "n"), ("new", "p"), ("Bad.", "n"))
    splits = {
        "train": opened(file("a.jsonl", train), LABELLED),
        "test": opened(file("b.jsonl", test), LABELLED, name="test"),
    }
    found = overview_of(splits, ["text"], "label")
    about = found["train"]
    assert (about.examples, about.empty, about.duplicates, about.conflicting) == (6, 2, 2, 2)
    assert about.labels == {"n": 4, "p": 2}
    assert (found["test"].overlap["train"].exact, found["test"].overlap["train"].normalised) == (1, 3)
    said = sentences(found)
    assert said[0].endswith(
        "labels n 66.7 %, p 33.3 %; 2 empty (33.3 %); 2 duplicates (33.3 %); 2 with conflicting gold (33.3 %)"
    )
    assert said[1].endswith("3 also in train (75.0 %, 1 to the letter)")


def test_pairs_and_lists_are_compared_as_a_whole(file: WriteFile) -> None:
    fields = {"text": "text", "text_pair": "text_pair"}
    pairs = [{"text": "a", "text_pair": "b"}, {"text": "a", "text_pair": "c"}, {"text": "ab", "text_pair": ""}]
    found = overview_of({"train": opened(file("a.jsonl", pairs), fields)}, list(fields), None)
    assert found["train"].duplicates == 0 and found["train"].labels == {}
    tagged = [{"tokens": ["New", "York"], "tags": ["O", "O"]}, {"tokens": ["New", "York"], "tags": ["B-X", "O"]}]
    split = opened(file("b.jsonl", tagged), {"tokens": "tokens", "tags": "tags"})
    about = overview_of({"train": split}, ["tokens"], "tags")["train"]
    assert (about.duplicates, about.conflicting, about.labels) == (1, 2, {})


def test_normal_texts() -> None:
    assert normal("  The “Ｇood”—film, 3 ") == normal("the good film 3") == "the good film 3"
    assert normal("Straße") == normal("STRASSE") and normal("好，电影。") == "好 电影"


MANY = rows(*((f"film {i}", "pn"[i % 2]) for i in range(60)))


@pytest.mark.slow
def test_the_same_rows_of_a_file_in_two_splits_are_refused_always(build: Build, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "few.jsonl", MANY[:10])
    (tmp_path / "link.jsonl").symlink_to(file)
    keys = [f"data.train={file}[:60%]", "data.validation=null", "data.max_overlap=1"]
    for other in (file, tmp_path / "link.jsonl", f"{tmp_path}/./few.jsonl[5:]"):
        with pytest.raises(UserError, match=r"l: test is the same file as train, .*`data.test: 0.1`"):
            build(MANY, *keys, f"data.test={other}")
    assert len(build(MANY, *keys, f"data.test={file}[60%:]").data.splits["test"].rows) == 4
    assert len(build(MANY, *keys, "data.test=0.5").data.splits["test"].rows) == 3


def test_the_same_split_of_the_hub_is_refused_too(build: Build, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    write_jsonl(tmp_path / "hub" / "train.jsonl", MANY[:10])
    keys = [f"data.name={tmp_path / 'hub'}", "data.train=train", "data.max_overlap=1"]
    with pytest.raises(UserError, match=r"hub \(train\): validation is the same file as train"):
        build(MANY, *keys, "data.validation=train")


@pytest.mark.slow
def test_equal_data_in_two_splits_are_refused_unless_allowed(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"validation is the same data as train.*`data.max_overlap: 1.00`"):
        build(MANY)
    assert build(MANY, "data.max_overlap=1").data.overview["validation"].overlap["train"].exact == 60
    assert build(MANY[:49]).data.overview["validation"].overlap["train"].exact == 49  # a trial: reported alone


@pytest.mark.slow
@pytest.mark.parametrize(("common", "is_refused"), [(5, False), (7, True)])
def test_a_share_of_common_texts_is_refused(build: Build, tmp_path: Path, common: int, is_refused: bool) -> None:
    others = rows(*((f"Film, {i}!" if i < common else f"book {i}", "p") for i in range(60)))
    test = f"data.test={write_jsonl(tmp_path / 'test.jsonl', others)}"
    if is_refused:
        with pytest.raises(UserError, match=r"test has 7 of 60 texts in common with train.*`data.max_overlap: 0.12`"):
            build(MANY, test, "data.validation=null")
    else:
        assert build(MANY, test, "data.validation=null").data.overview["test"].overlap["train"].normalised == 5
    build(MANY, test, "data.validation=null", "data.max_overlap=0.12")


def test_equal_texts_of_one_file_are_kept_in_one_part_where_that_is_asked_for(build: Build) -> None:
    twice = [{**row, "id": f"{i}-{k}"} for k in range(2) for i, row in enumerate(MANY)]
    with pytest.raises(UserError, match=r"let equal texts stay in one part \(`data\.group: text`"):
        build(twice, "data.validation=0.5")
    about = build(twice, "data.validation=0.5", "data.group=text").data.overview["validation"]
    assert about.overlap["train"].normalised == 0 and about.duplicates == about.examples / 2


@pytest.mark.parametrize("cached", [False, True])
def test_texts_that_max_length_cuts_are_counted(build: Build, cached: bool) -> None:
    texts = [f"{'good film ' * n}{cached}" for n in (1, 4, 5, 40)]
    data = build(rows(*((text, "p") for text in texts)), "data.max_length=12").data
    lengths = [len(data.tokenizer(text)["input_ids"]) for text in texts]
    assert data.overview["train"].cut == sum(length > 12 for length in lengths) > 0
    again = build(rows(*((text, "p") for text in texts)), "data.max_length=12").data
    assert again.overview["train"].cut == data.overview["train"].cut


@pytest.mark.slow
def test_show_train_and_provenance_tell_it(build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(MANY[:20])
    experiment = str(tmp_path / "classification.yaml")
    assert main(["show", experiment]) == 0
    assert "train: 20 examples of 4 tokens (median; longest 5); labels p 50.0 %, n 50.0 %" in capsys.readouterr().out
    assert main(["train", experiment, "data.validation=null"]) == 0
    said = capsys.readouterr().err
    assert "train: 20 examples of" in said and "Nothing is scored" in said and "data.validation=0.1" in said
    overview = Run.read(tmp_path / "run").provenance["data"]["train"]["overview"]
    assert overview["labels"] == {"p": 10, "n": 10} and overview["duplicates"] == 0
    assert json.dumps(overview)
