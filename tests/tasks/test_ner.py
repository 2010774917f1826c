"""NER: every word predicted once whatever the windows, tag schemes, scripts, words without tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.data.entity_spans import characters, completed
from research.tasks.ner import group, words_shown_best
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.metrics.scores import entity_scores
from tests.tasks.conftest import Build

COLUMNS = "data.columns={text: text, entities: entities}"
LONG = ["Anna", "went", "to", "Oslo", "and", "Acme", "was", "good"] * 40
LONG_TAGS = ["B-PER", "O", "O", "B-LOC", "I-LOC", "B-ORG", "O", "O"] * 40


@pytest.fixture
def task() -> str:
    return "ner"


def predicted(module: Any, logits: Callable[[torch.Tensor], torch.Tensor], split: str = "validation") -> dict[str, Any]:
    """The table of a split when the logits are this function of the token ids (T,)."""
    store = module.data.stores[split]
    micro = pack(store, np.arange(len(store)), packed=False)
    return module.data.table(module.data.splits[split], module.decode(micro, logits(micro.tokens["input_ids"])))


# --- windows


def windows_of(words: list[int], limit: int, overlap: int) -> list[list[int | None]]:
    """Windows of at most `limit` tokens, two of them special, over a sentence with these tokens per word."""
    tokens = [word for word, count in enumerate(words) for _ in range(count)]
    room, windows, start = limit - 2, [], 0
    while True:
        windows.append([None, *tokens[start : start + room], None])
        if start + room >= len(tokens):
            return windows
        start += room - overlap


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    limit=st.integers(8, 20),
    overlap=st.integers(0, 3),
)
def test_every_word_with_a_token_is_shown_once_at_its_first_token(words: list[int], limit: int, overlap: int) -> None:
    windows = windows_of(words, limit, overlap)
    shown = words_shown_best(windows)
    assert [len(row) for row in shown] == [len(window) for window in windows]
    found = sorted(word for row in shown for word in row if word >= 0)
    assert found == [word for word, count in enumerate(words) if count]
    for row, window in zip(shown, windows, strict=True):
        for i, word in enumerate(row):
            assert word < 0 or (window[i] == word and window[i - 1] != word)


def test_a_word_is_shown_where_most_of_its_surroundings_are() -> None:
    windows: list[list[int | None]] = [[None, 0, 1, 2, 3, 4, 5, None], [None, 2, 3, 4, 5, 6, 7, None]]
    # In the first, word 4 has one word behind it; in the second two before it.
    assert words_shown_best(windows) == [[-1, 0, 1, 2, 3, -1, -1, -1], [-1, -1, -1, 4, 5, 6, 7, -1]]


def test_a_window_that_begins_in_mid_word_does_not_show_that_word() -> None:
    windows: list[list[int | None]] = [[None, 0, 1, 1, None], [None, 1, 2, 3, None]]
    assert words_shown_best(windows) == [[-1, 0, 1, -1, -1], [-1, -1, 2, 3, -1]]


def test_group() -> None:
    assert group([0, 0, 2, 2, 2], 4) == [[0, 1], [], [2, 3, 4], []]


@pytest.mark.in_check(2)
@pytest.mark.parametrize(("max_length", "stride"), [(8, 0), (8, 128), (32, 8), (100, 128), (128, 1)])
def test_every_word_of_a_long_sentence_is_a_target_once(build: Build, max_length: int, stride: int) -> None:
    rows = [{"tokens": LONG, "tags": LONG_TAGS}, {"tokens": ["Anna"], "tags": ["B-PER"]}]
    data = build(rows, f"data.max_length={max_length}", f"data.stride={stride}").data
    store = data.stores["train"]
    words, labels = (store.columns[name].rows(np.array([0]))[0] for name in ("word", "label"))
    assert sorted(words[words >= 0].tolist()) == list(range(len(LONG)))
    assert store.targets.tolist() == [len(LONG), 1]
    by_word = dict(zip(words[words >= 0].tolist(), labels[words >= 0].tolist(), strict=True))
    assert [data.labels[by_word[i]] for i in range(len(LONG))] == LONG_TAGS
    assert store.streams["input"].windows.rows(np.array([0]))[0].max() <= max_length


@pytest.mark.slow
def test_the_score_does_not_depend_on_max_length(build: Build) -> None:
    """transformers#18050: gold entities past `max_length` may not vanish, so equal predictions score equally."""
    rows = [{"tokens": LONG, "tags": LONG_TAGS}, {"tokens": LONG[:9], "tags": LONG_TAGS[:9]}]
    scores = []
    for max_length in (8, 16, 64, 128):
        module = build(rows, f"data.max_length={max_length}", "data.stride=4")
        generator = torch.Generator().manual_seed(0)
        weights = torch.rand(1000, len(module.data.labels), generator=generator)
        table = predicted(module, weights.__getitem__)
        assert [len(tags) for tags in table["prediction"]] == [len(LONG), 9]
        scores.append(entity_scores(table["gold"], table["prediction"]))
    assert all(score == scores[0] for score in scores)
    assert 0 < scores[0]["accuracy"] < 1


def test_right_logits_give_the_gold_tags_back(build: Build) -> None:
    module = build([{"tokens": LONG, "tags": LONG_TAGS}])
    label_of = {word: module.data.labels.index(tag) for word, tag in zip(LONG, LONG_TAGS, strict=True)}
    first = {module.data.tokenizer(word)["input_ids"][1]: label for word, label in label_of.items()}
    eye = torch.eye(len(module.data.labels))
    table = predicted(module, lambda ids: torch.stack([eye[first.get(int(i), 0)] for i in ids]))
    assert table["prediction"] == table["gold"] == [LONG_TAGS]


# --- tag schemes

IOB2 = [["B-PER", "I-PER", "O", "B-PER", "B-PER", "I-PER"], ["B-LOC", "O", "O", "B-ORG", "I-ORG", "I-ORG"]]
SCHEMES = {
    "IOB2": IOB2,
    "IOB1": [["I-PER", "I-PER", "O", "I-PER", "B-PER", "I-PER"], ["I-LOC", "O", "O", "I-ORG", "I-ORG", "I-ORG"]],
    "IOBES": [["B-PER", "E-PER", "O", "S-PER", "B-PER", "E-PER"], ["S-LOC", "O", "O", "B-ORG", "I-ORG", "E-ORG"]],
    "BILOU": [["B-PER", "L-PER", "O", "U-PER", "B-PER", "L-PER"], ["U-LOC", "O", "O", "B-ORG", "I-ORG", "L-ORG"]],
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_are_converted_from_end_to_end(build: Build, tmp_path: Path, scheme: str) -> None:
    tokens = ["Anna", "Oslo", "in", "Acme", "river", "city"]
    train_file, test_file = tmp_path / "train.conll", tmp_path / "test.conll"
    for path, sentences in ((train_file, SCHEMES[scheme]), (test_file, SCHEMES[scheme][1:])):
        lines = ("".join(f"{t} NN {tag}\n" for t, tag in zip(tokens, tags, strict=True)) for tags in sentences)
        path.write_text("-DOCSTART- -X- O\n\n" + "\n".join(lines))
    data = build(train_file, f"data.test={test_file}").data
    in_any = {f"{prefix}-{kind}" for prefix in "BI" for kind in ("LOC", "ORG", "PER")}
    missing = {"I-LOC"} if scheme == "IOB2" else set()  # where nothing is converted, labels are what the data holds
    assert set(data.labels) == {"O"} | in_any - missing
    assert main(["train", str(tmp_path / "ner.yaml"), f"data.test={test_file}"]) == 0
    run = Run.read(tmp_path / "run")
    assert predictions.read(run.predictions / "validation.parquet").column("gold").to_pylist() == IOB2
    assert predictions.read(run.predictions / "test.parquet").column("gold").to_pylist() == IOB2[1:]
    # One split alone may not show its scheme: evaluating goes by what all of them showed.
    result = run.result
    assert main(["evaluate", str(run.path)]) == 0
    assert predictions.read(run.predictions / "test.parquet").column("gold").to_pylist() == IOB2[1:]
    assert result is not None and result["learned"]["scheme"] == scheme


def test_a_tag_of_no_scheme_names_its_line(build: Build, tmp_path: Path) -> None:
    rows = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["B-PER", "PERSON"]}]
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: 'PERSON' is not a tag"):
        build(rows)


# --- scripts, odd words, marked characters


def test_other_scripts_keep_a_tag_per_word(build: Build) -> None:
    rows = [
        {"tokens": ["東", "京", "タワー", "に", "行く"], "tags": ["B-LOC", "I-LOC", "I-LOC", "O", "O"]},
        {"tokens": list("张三在北京"), "tags": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]},
        {"tokens": ["Jürgen", "Groß", "in", "Köln"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]},
    ]
    module = build(rows)
    store = module.data.stores["train"]
    assert store.targets.tolist() == [5, 5, 4]
    table = predicted(module, lambda ids: torch.eye(len(module.data.labels))[[0] * len(ids)])
    assert table["gold"] == [row["tags"] for row in rows]
    assert table["prediction"] == [[module.data.labels[0]] * len(row["tokens"]) for row in rows]


def test_a_word_without_a_token_is_outside_and_counts(build: Build) -> None:
    rows = [
        {"tokens": ["Anna", "\u0007", "Oslo", ""], "tags": ["B-PER", "B-X", "B-LOC", "O"]},
        {"tokens": ["\u0007"], "tags": ["B-X"]},
        {"tokens": [], "tags": []},
    ]
    module = build(rows)
    assert module.data.stores["train"].targets.tolist() == [2, 0, 0]
    label = module.data.labels.index("B-PER")
    table = predicted(module, lambda ids: torch.eye(len(module.data.labels))[[label] * len(ids)])
    assert table["prediction"] == [["B-PER", "O", "B-PER", "O"], ["O"], []]
    assert table["confidence"][1] == [1.0]
    scores = entity_scores(table["gold"], table["prediction"])
    assert scores["recall"] == 1 / 4  # the entities without a token are missed, not left out


def test_a_word_without_a_token_follows_its_neighbours() -> None:
    assert completed([None, "I-PER", "O"]) == ["B-PER", "I-PER", "O"]
    assert completed(["O", None, None, "I-PER"]) == ["O", "B-PER", "I-PER", "I-PER"]
    assert completed(["B-LOC", None, "I-PER"]) == ["B-LOC", "B-PER", "I-PER"]
    assert completed(["B-PER", None, "I-PER", None, "O", None]) == ["B-PER", "I-PER", "I-PER", "O", "O", "O"]
    assert completed(["B-PER", None, "B-PER", None]) == ["B-PER", "O", "B-PER", "O"]
    assert completed([None, None]) == ["O", "O"] and completed([]) == []


MARKED = {
    "objects": [{"start": 0, "end": 3, "type": "name"}, {"start": 4, "end": 6, "type": "address"}],
    "lists": [[0, 3, "name"], [4, 6, "address"]],
    "by label and surface": {"name": {"周荫如": [[0, 2]]}, "address": {"北京": [[4, 5]]}},
    "by label": {"name": [[0, 3]], "address": [[4, 6]]},
}


@pytest.mark.in_check(1)
@pytest.mark.parametrize("shape", MARKED)
def test_entities_in_the_shapes_annotation_tools_write(build: Build, tmp_path: Path, shape: str) -> None:
    rows = [{"text": "周荫如在北京", "label": MARKED[shape]}, {"text": "无", "label": type(MARKED[shape])()}]
    path = tmp_path / "train.json"
    path.write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    data = build(path, "data.columns={text: text, entities: label}").data
    tags = ["B-name", "I-name", "I-name", "O", "B-address", "I-address"]
    assert data.splits["train"].rows["tags"][:] == [tags, ["O"]]
    assert data.splits["train"].rows["tokens"][0] == list("周荫如在北京")


def test_an_entity_of_another_shape_names_the_row(build: Build) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl, train-1: an entity is \[0, 'name'\]; write"):
        build([{"text": "北京", "entities": []}, {"text": "北京", "entities": [[0, "name"]]}], COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("tags", ["_ _", "NNP VBD", None, [3, 4], ["B-PER"], "B-PER O"])
def test_predict_needs_no_gold(build: Build, tmp_path: Path, tags: Any) -> None:
    build([{"tokens": ["Anna", "was"], "tags": ["B-PER", "O"]}] * 4)
    assert main(["train", str(tmp_path / "ner.yaml")]) == 0
    given = tags.split() if isinstance(tags, str) else tags
    rows = [{"tokens": ["Anna", "was"], **({} if tags is None else {"tags": given})}]
    source, target = write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["predict", str(tmp_path / "run"), "--input", str(source), "--output", str(target)]) == 0
    (row,) = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(row["prediction"]) == 2
    is_gold = tags == "B-PER O"
    assert row.get("gold") == (["B-PER", "O"] if is_gold else None)
    assert row.get("data_tags") == (None if is_gold or tags is None else given)


def test_entities_marked_in_a_text_become_a_tag_per_character() -> None:
    row = {
        "id": "a",
        "text": "副会长周荫如在北京",
        "entities": [
            {"start_offset": 7, "end_offset": 9, "label": "address"},
            {"start_offset": 0, "end_offset": 3, "label": "position"},
            {"start_offset": 3, "end_offset": 6, "label": "name"},
            {"start_offset": 4, "end_offset": 5, "label": "inside another"},
        ],
    }
    assert characters(row) == {
        "tokens": list("副会长周荫如在北京"),
        "tags": ["B-position", "I-position", "I-position", "B-name", "I-name", "I-name", "O", "B-address", "I-address"],
    }
    assert characters({"text": "北京"}) == {"tokens": ["北", "京"]}


def test_an_entity_outside_its_text_names_the_row(build: Build) -> None:
    rows = [{"id": "row-7", "text": "北京", "entities": [{"start_offset": 1, "end_offset": 3, "label": "x"}]}]
    with pytest.raises(UserError, match=r"rows\.jsonl, row-7: the entity 1 to 3 does not lie in its 2 characters"):
        build(rows, COLUMNS)


def test_predictions_of_windows_do_not_depend_on_the_micro_batches(build: Build) -> None:
    rng = random.Random(0)
    rows = [{"tokens": (t := rng.choices(LONG, k=rng.randint(1, 90))), "tags": ["O"] * len(t)} for _ in range(12)]
    rows[0]["tags"] = ["B-PER", *rows[0]["tags"][1:]]
    module = build(rows).eval()
    store = module.data.stores["validation"]
    with torch.no_grad():
        together = module.decode(m := pack(store, np.arange(12), module.backbone.packed), module.outputs(m))
        alone: dict[Any, Any] = {}
        for row in range(12):
            micro = pack(store, np.array([row]), module.backbone.packed)
            alone |= module.decode(micro, module.outputs(micro))
    for row in range(12):
        assert together[row]["words"][:2] == alone[row]["words"][:2]


@pytest.mark.slow
def test_marked_texts_are_trained_on_and_predicted(build: Build, tmp_path: Path) -> None:
    entity = {"start_offset": 0, "end_offset": 2, "label": "address"}
    build([{"text": "Oslo", "entities": [entity]}, {"text": "a b", "entities": []}], COLUMNS)
    assert main(["train", str(tmp_path / "ner.yaml"), COLUMNS]) == 0
    source, target = write_jsonl(tmp_path / "new.jsonl", [{"text": "北京 ok"}]), tmp_path / "out.jsonl"
    assert main(["predict", str(tmp_path / "run"), "--input", str(source), "--output", str(target)]) == 0
    (row,) = [json.loads(line) for line in target.read_text().splitlines()]
    assert row["tokens"] == list("北京 ok") and len(row["prediction"]) == 5
