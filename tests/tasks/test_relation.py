"""Relation classification: marks, cut texts, the two-token head, published files, a report over runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.config.schema import FORMATS
from research.data.formats import Reading
from research.data.semeval_files import read_semeval
from research.tasks.relation import entities_of, with_marks
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import copied, write_jsonl
from tests.small_runs import SmallRuns, assert_same_up_to_rounding
from tests.tasks.conftest import Build
from tests.tasks.r_drop import assert_r_drop

CAUSE, CAUSED = "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"


@pytest.fixture
def task() -> str:
    return "relation"


def rows(count: int = 24) -> list[dict[str, Any]]:
    """The label says which of the two words in the text comes first."""
    kinds = (
        ("<e1>film</e1> is good for <e2>Oslo</e2>", CAUSE),
        ("<e2>film</e2> is good for <e1>Oslo</e1>", CAUSED),
        ("<e1>Oslo</e1> is a <e2>book</e2>", "Message-Topic(e1,e2)"),
        ("a <e1>book</e1> a <e2>book</e2>", "Other"),
    )
    return [{"text": text, "label": label} for text, label in (kinds[i % 4] for i in range(count))]


def marked(module: Any, split: str = "train") -> list[tuple[str, str, str]]:
    """Each example's text as encoded, and what is at its two marks."""
    store, tokenizer = module.data.stores[split], module.data.tokenizer
    every = np.arange(len(store))
    columns = (store.streams["input"].tokens[name].rows(every) for name in ("input_ids", "mark"))
    found = []
    for ids, marks in zip(*columns, strict=True):
        assert sorted(marks[marks > 0].tolist()) == [1, 2]
        at = [tokenizer.decode([ids[marks == i].item()]) for i in (1, 2)]
        found.append((tokenizer.decode(ids, skip_special_tokens=True), *at))
    return found


def test_entities_are_marked_inline_or_by_columns() -> None:
    assert entities_of("a <e1>b c</e1> d <e2>e</e2>", {}, "line 1") == ("a b c d e", (2, 5), (8, 9))
    assert entities_of("<e2>e</e2> <e1>b</e1>", {}, "line 1") == ("e b", (2, 3), (0, 1))
    assert entities_of("a b c", {"e1": [0, 1], "e2": [4, 5]}, "line 1") == ("a b c", (0, 1), (4, 5))


def test_marks_tell_the_entities_apart_and_keep_their_order() -> None:
    assert with_marks("a b c d", (2, 3), (6, 7), 99) == ("a  @ b @  c  # d # ", (3, 13))
    assert with_marks("a b c d", (6, 7), (2, 3), 99) == ("a  # b #  c  @ d @ ", (13, 3))


def test_typed_marks_name_the_types_and_an_unknown_one_is_left_out() -> None:
    found, (first, second) = with_marks("a b c d", (2, 3), (6, 7), 99, {"e1": "STATE_OR-CITY", "e2": None})
    assert found == "a  @ * state or city * b @  c  # d # " and found[first] == "@" and found[second] == "#"


DOCUMENT = {
    "id": "d",
    "text": "Anna of Acme in Oslo",
    "entities": [{"start": 0, "end": 4, "type": "PERSON"}, [8, 12, "ORG"], {"start": 16, "end": 20}, [8, 20, "PLACE"]],
    "relations": [{"head": 0, "tail": 1, "label": "works"}, [1, 2, "lies"]],
}


def test_a_document_is_a_row_for_each_pair(build: Build, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "documents.jsonl", [DOCUMENT])
    split = build(path, "task.typed=true", "task.other=none").data.splits["train"]
    labels = dict(zip(split.rows["id"][:], split.rows["label"][:], strict=True))
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j and {i, j} not in ({1, 3}, {2, 3})]  # they overlap
    named = {"d:0-1": "works", "d:1-2": "lies"}
    assert labels == {f"d:{i}-{j}": named.get(f"d:{i}-{j}", "none") for i, j in pairs}
    module = build(path, "task.typed=true", "task.pairs=given")
    assert module.data.splits["train"].rows["id"][:] == ["d:0-1", "d:1-2"]
    texts = [text.replace(" ##", "") for text, *_ in marked(module)]
    assert "@ * person * anna @ of # ^ org ^ acme # in oslo" in texts[0] and "# oslo #" in texts[1]


def test_a_type_that_training_never_showed_is_read_as_its_words(build: Build, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "documents.jsonl", [DOCUMENT])
    entities = [[0, 4, "GOOD_FILM-BOOK"], *DOCUMENT["entities"][1:]]
    other = write_jsonl(tmp_path / "others.jsonl", [{**DOCUMENT, "text": "Anna at Acme in Oslo", "entities": entities}])
    module = build(path, "task.typed=true", "task.pairs=given", f"data.test={other}")
    text = marked(module, "test")[0][0].replace(" ##", "")
    assert "@ * good film book * anna @ at # ^ org ^ acme #" in text
    assert module.data.labels == ["lies", "works"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relations": [[0, 4, "works"]]}, r"the relation \[0, 4, 'works'\] is without its pair.*of the 4 entities"),
        ({"relations": [{"head": 0, "label": "works"}]}, "is without its pair"),
        ({"relations": [[0, 1, "works"], [0, 1, "owns"]]}, "the entities 0 and 1 have two relations"),
        ({"relations": [[1, 3, "in"]]}, r"the entities \[8, 12\] and \[8, 20\] of a relation overlap"),
        ({"entities": [[0, 4, "A"], [8, 99, "B"]]}, "line 1: the entity 8 to 99 does not lie in its text of 20"),
        ({"relations": None, "entities": [[0, 4, "A"]]}, "no document has a pair of entities"),
    ],
)
def test_bad_documents_are_refused(change: dict[str, Any], message: str, build: Build, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "documents.jsonl", [{**DOCUMENT, **change}])
    with pytest.raises(UserError, match=message):
        build(path)


def test_types_and_labels_that_are_asked_for_must_be_there(build: Build) -> None:
    with pytest.raises(UserError, match=r"task\.typed needs the types of both entities"):
        build(rows(4), "task.typed=true")
    with pytest.raises(UserError, match=r"task\.pairs=given: .* has no 'entities' to pair"):
        build(rows(4), "task.pairs=given")
    with pytest.raises(UserError, match="no column 'label'"):
        build([{"text": "<e1>a</e1> <e2>b</e2>", "labels": "x"}])
    with pytest.raises(UserError, match="line 2: 'label' is null"):
        build([*rows(1), {"text": "<e1>a</e1> <e2>b</e2>"}])


def test_what_is_far_from_both_entities_is_left_out() -> None:
    text = "x" * 50 + "AA" + "y" * 50 + "BB" + "z" * 50
    found, (first, second) = with_marks(text, (50, 52), (102, 104), 4)
    assert found == "xxxx @ AA @ yyyy … yyyy # BB # zzzz"
    assert found[first] == "@" and found[second] == "#"


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("no entity", {}, "line 3: the text must hold one <e1>...</e1> and one <e2>...</e2>"),
        ("<e1>a</e1> <e1>b</e1> <e2>c</e2>", {}, "line 3: the text must hold one"),
        ("a b", {"e1": [0, 1]}, r"line 3: 'e2' is None, not \[first character, end\]"),
        ("a b", {"e1": [0, 1], "e2": [2, 9]}, r"line 3: 'e2' is \[2, 9\]"),
        ("a b", {"e1": [0, 1], "e2": "b"}, "line 3: 'e2' is b"),
        ("<e1>a <e2>b</e1> c</e2>", {}, "line 3: <e1>...</e1> and <e2>...</e2> overlap; mark two entities"),
        ("<e1>a <e2>b</e2></e1>", {}, "line 3: <e1>...</e1> and <e2>...</e2> overlap"),
        ("a b c", {"e1": [0, 3], "e2": [2, 5]}, r"line 3: the entities \[0, 3\] and \[2, 5\] share characters"),
    ],
)
def test_bad_entities_are_refused(text: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        entities_of(text, given, "line 3")


def test_a_long_text_loses_its_edges_and_no_entity(build: Build) -> None:
    far = "good " * 60
    module = build([{"text": f"{far}<e1>film</e1> {far}<e2>Oslo</e2> {far}", "label": CAUSE}, *rows(3)])
    text, *_ = marked(module)[0]
    assert "film" in text and "oslo" in text.lower()
    assert module.data.stores["train"].tokens.max() <= 32


def test_entities_longer_than_the_model_are_refused(build: Build) -> None:
    with pytest.raises(UserError, match=r"line 1: the two entities alone have .* tokens, more than data\.max_length"):
        build([{"text": f"<e1>{'good ' * 60}</e1> is <e2>Oslo</e2>", "label": CAUSE}, *rows(3)])


def test_logits_are_those_of_a_linear_layer_on_both_first_tokens(build: Build) -> None:
    module = build(rows(4), "trainer.packing=false").eval()
    store, C = module.data.stores["train"], len(module.data.labels)
    micro = pack(store, np.arange(4), module.backbone.packed)
    with torch.no_grad():
        logits = module.outputs(micro)
        model = module.backbone.model
        for i, ids in enumerate(store.streams["input"].tokens["input_ids"].rows(np.arange(4))):
            mark = store.streams["input"].tokens["mark"].rows(np.array([i]))[0]
            hidden = model.base_model(input_ids=torch.tensor(ids)[None]).last_hidden_state[0]
            first, second = hidden[mark == 1][0], hidden[mark == 2][0]
            weight, bias = model.classifier.weight, model.classifier.bias
            layer = torch.cat([weight[:C], weight[C:]], dim=1)
            expected = layer @ torch.cat([first, second]) + bias[:C] + bias[C:]
            torch.testing.assert_close(logits[i], expected, atol=1e-5, rtol=1e-4)
    assert model.config.num_labels == 2 * C


def test_packed_equals_padded(build: Build) -> None:
    outputs = []
    for packing in ("true", "false"):
        module = build(rows(6), f"trainer.packing={packing}").eval()
        with torch.no_grad():
            outputs.append(module.outputs(pack(module.data.stores["train"], np.arange(6), module.backbone.packed)))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-4)


def published(path: Path, examples: list[dict[str, Any]]) -> Path:
    """The examples as SemEval-2010 Task 8 publishes them."""
    blocks = [f'{i}\t"{row["text"]}"\r\n{row["label"]}\r\nComment: none\r\n' for i, row in enumerate(examples, 1)]
    path.write_text("\r\n".join(blocks) + "\r\n", encoding="utf-8", newline="")
    return path


def test_published_files_are_read(tmp_path: Path) -> None:
    path = published(tmp_path / "TRAIN_FILE.TXT", rows(2))
    assert "semeval" in FORMATS
    found = list(read_semeval(str(path), Reading(format="semeval")))
    assert found[1] == (5, {"id": "2", "text": rows(2)[1]["text"], "label": CAUSED, "comment": "none"})
    path.write_text("1\tno quotes <e1>a</e1> <e2>b</e2>\n\nnot a sentence\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"TRAIN_FILE\.TXT, line 3: not a sentence of SemEval-2010 Task 8"):
        list(read_semeval(str(path)))


@pytest.mark.in_check(1)
@pytest.mark.parametrize("packing", ["auto", "false"])
def test_r_drop_compares_two_passes_of_the_same_text(build: Build, packing: str) -> None:
    assert_r_drop(lambda *keys: build(rows(6), f"trainer.packing={packing}", *keys), labels=4)


def documents(count: int = 12) -> list[dict[str, Any]]:
    """The rows, two to a document; each entity has its word as type."""
    found = []
    for i in range(count):
        text, entities, relations = "", list[Any](), list[Any]()
        for k, row in enumerate(rows(2 * i + 2)[-2:]):
            plain, *ends = entities_of(row["text"], {}, "")
            entities += [[first + len(text), end + len(text), plain[first:end].upper()] for first, end in ends]
            relations.append({"head": 2 * k, "tail": 2 * k + 1, "label": row["label"]})
            text += f"{plain} . "
        found.append({"text": text, "entities": entities, "relations": relations})
    return found


def train(tmp_path: Path, build: Build, *overrides: str) -> Path:
    if "task.typed=true" in overrides:
        data, form = write_jsonl(tmp_path / "documents.jsonl", documents()), []
    else:
        data, form = published(tmp_path / "TRAIN_FILE.TXT", rows(24)), ["data.format=semeval"]
    build(rows(8))
    others = [f"data.{split}={copied(data, split)}" for split in ("validation", "test")]
    keys = [f"data.train={data}", *others, *form, *overrides]
    assert main(["train", str(tmp_path / "relation.yaml"), "optim.epochs=8", "optim.lr=3e-3", *keys]) == 0
    return tmp_path / "run"


@pytest.mark.slow
def test_train_evaluate_predict(build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.read(train(tmp_path, build))
    assert run.result is not None
    scores = run.result["metrics"]["test"]
    assert scores["f1"] == 1.0 and scores["support/Cause-Effect"] == 12 and "f1/Other" not in scores
    assert "Cause-Effect" in capsys.readouterr().err  # the table of classes
    table = predictions.read(run.predictions / "test.parquet")
    assert predictions.settings(table)["scorer"] == "relations" and table.column("comment")[0].as_py() == "none"
    source, out = tmp_path / "NEW.TXT", tmp_path / "out.jsonl"
    source.write_text('1\t"<e2>film</e2> is good for <e1>Oslo</e1>"\n', encoding="utf-8")  # no relation, no comment
    assert main(["predict", str(run.path), "--input", str(source), "--output", str(out)]) == 0
    assert json.loads(out.read_text())["prediction"] == CAUSED


@pytest.mark.slow
def test_a_report_over_two_runs_says_everything_of_a_metric_it_has_never_heard_of(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of documents with several pairs, whose marks name the types."""
    typed = ("task.typed=true", "task.pairs=given", "optim.epochs=3")
    for lr in (1e-3, 1e-4):
        train(tmp_path, build, f"optim.lr={lr}", *typed, f"run_dir={tmp_path}/runs/{lr}")
    table = predictions.read(tmp_path / "runs" / "0.001" / "predictions" / "test.parquet")
    assert table["id"].to_pylist()[:3] == ["test-0:0-1", "test-0:2-3", "test-1:0-1"]
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "paper")]) == 0
    paper = tmp_path / "paper"
    names = {path.name for path in (paper / "errors").iterdir()}
    assert {name.rsplit("-", 1)[0] for name in names} >= {"slices-of", "kinds-of-error-on", "agreement-on"}, names
    figures = {path.name.split("-")[0] for path in (paper / "figures").iterdir()}
    assert {"confusion", "calibration"} <= figures
    page = (paper / "index.html").read_text(encoding="utf-8")
    assert "gold relation" in page and "direction" in page and "Cause-Effect(e2,e1)" in page
    head, *lines = [line.split(",") for line in (paper / "tables" / "scores.csv").read_text().splitlines()]
    lows = [
        line for line in lines if ",f1," in ",".join(line) and line[0] in ("0.0001", "0.001")
    ]  # without the baselines
    place = head.index("low")
    assert len(lows) == 4
    assert all(line[place] for line in lows if "test" in line)  # an interval for each test score
    assert "paired bootstrap" in (paper / "tables" / "scores.md").read_text()


def test_the_label_of_no_relation_is_a_key(build: Build) -> None:
    module = build(rows(4), "task.other=Message-Topic(e1,e2)")
    assert module.data.score_settings()["other"] == "Message-Topic(e1,e2)"


@pytest.mark.slow
@pytest.mark.process
def test_micro_batches_and_ranks_change_nothing(small_runs: SmallRuns, tmp_path: Path) -> None:
    data = str(write_jsonl(tmp_path / "rows.jsonl", rows(21)))  # an odd number: of two ranks one has more
    sections = {"data": {"train": data, "validation": copied(data), "test": copied(data, "test"), "max_length": 48}}
    reference = small_runs.train("relation", **sections)
    for layout in ("trainer.tokens_per_microbatch=30", "trainer.packing=false"):
        assert_same_up_to_rounding(small_runs.train("relation", layout, **sections), reference)
    two = small_runs.train_ranks("relation", 2, **sections)
    assert_same_up_to_rounding(two, reference)
    scores = [(run.result or {})["metrics"]["test"] for run in (two, reference)]
    assert scores[0]["f1"] == scores[1]["f1"] and scores[0]["support/Cause-Effect"] == 11
