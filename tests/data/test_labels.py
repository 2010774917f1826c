"""Labels collected over all splits, and those that are refused."""

import datasets
import pyarrow as pa
import pytest

from research.common.errors import UserError
from research.data.labels import collect_labels, label_text
from research.data.source import Split
from tests.data.opening import LABELLED, TAGGED, WriteFile, opened


def test_labels_are_collected_over_all_splits(file: WriteFile) -> None:
    train = opened(file("a.jsonl", [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}]), LABELLED)
    test = opened(file("b.jsonl", [{"text": "a", "label": "mixed"}]), LABELLED, name="test")
    unlabelled = opened(file("c.jsonl", [{"text": "a"}]), name="input")
    assert collect_labels([train, test, unlabelled], "label", None) == ["mixed", "neg", "pos"]
    assert collect_labels([train, unlabelled], "label", ["pos", "neg", "none"]) == ["pos", "neg", "none"]
    with pytest.raises(UserError, match="no split has a value in 'label'"):
        collect_labels([unlabelled], "label", None)


def test_an_undeclared_label(file: WriteFile) -> None:
    path = file("a.jsonl", [{"text": "a", "label": "neg"}, {"text": "b", "label": "positiv"}])
    split = opened(path, LABELLED)
    with pytest.raises(UserError) as caught:
        collect_labels([split], "label", ["neg", "positive"])
    assert str(caught.value).startswith(f"{path}, line 2: the label 'positiv' of 'label' is not declared")
    assert "did you mean 'positive'?" in str(caught.value)


def test_numbers_and_truths_become_text(file: WriteFile) -> None:
    numbers = opened(file("a.jsonl", [{"text": "a", "label": n} for n in (10, 2, 1)]), LABELLED)
    assert collect_labels([numbers], "label", None) == ["1", "2", "10"]
    assert collect_labels([numbers], "label", ["10", "2", "1"]) == ["10", "2", "1"]
    truths = opened(file("b.jsonl", [{"text": "a", "label": value} for value in (True, False)]), LABELLED)
    assert collect_labels([truths], "label", None) == ["false", "true"]
    assert [label_text(value) for value in (True, 1, "x")] == ["true", "1", "x"]
    floats = opened(file("c.jsonl", [{"text": "a", "label": 0.5}]), LABELLED)
    with pytest.raises(UserError, match="labels are text"):
        collect_labels([floats], "label", None)


def test_labels_of_tags(file: WriteFile) -> None:
    split = opened(file("a.conll", "EU B-ORG\nsaid O\n\nPeter B-PER\n"), TAGGED)
    assert collect_labels([split], "tags", None) == ["B-ORG", "B-PER", "O"]
    with pytest.raises(UserError, match=r"line 4: the label 'B-PER'"):
        collect_labels([split], "tags", ["O", "B-ORG"])
    numbered = opened(file("b.jsonl", [{"tokens": ["a", "b"], "tags": [0, 3]}]), TAGGED)
    assert collect_labels([numbered], "tags", None) == ["0", "3"]


def test_an_empty_label(file: WriteFile) -> None:
    split = opened(file("a.csv", "text,label\na,x\nb,\n"), LABELLED)
    with pytest.raises(UserError, match="line 3: 'label' has an empty label"):
        collect_labels([split], "label", None)


@pytest.mark.slow
@pytest.mark.timeout(60)  # well under a second on a quiet machine
def test_labels_of_a_million_rows() -> None:
    rows = datasets.Dataset(pa.table({"label": pa.array([f"class {i % 7}" for i in range(1_000_000)])}))
    split = Split(name="train", rows=rows, origin="somewhere", lines=False, fingerprint="")
    assert len(collect_labels([split], "label", None)) == 7


@pytest.mark.parametrize(
    "labels, said",
    [
        (["pos", "pos ", "neg"], ["'pos' (1), 'pos ' (1) differ only in blanks, case or '.0'"]),
        (["True", "true", "FALSE"], ["'True' (1), 'true' (1) differ only"]),
        (["1.0", "1", "2"], ["'1' (1), '1.0' (1) differ only"]),
        ([" pos", " neg"], ["begin or end with blanks: ' neg', ' pos'"]),
        (["pos", "neg", "1", "10"], []),
    ],
)
def test_labels_that_are_probably_one_class(
    file: WriteFile, caplog: pytest.LogCaptureFixture, labels: list[str], said: str
) -> None:
    split = opened(file("a.jsonl", [{"text": "a", "label": label} for label in labels]), LABELLED)
    assert collect_labels([split], "label", None) == sorted(labels)
    assert len(caplog.messages) == len(said)
    assert all(fragment in message for fragment, message in zip(said, caplog.messages, strict=True))


def test_labels_without_a_training_example(file: WriteFile, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "a", "label": "y"}]
    train = opened(file("a.jsonl", rows[:1]), LABELLED)
    test = opened(file("b.jsonl", rows), LABELLED, name="test")
    collect_labels([train, test], "label", None)
    assert caplog.messages == ["no training example has the label 'y'"]
    caplog.clear()
    collect_labels([train], "label", ["x", "z"])
    assert caplog.messages == ["no training example has the label 'z'"]
