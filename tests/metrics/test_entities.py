"""Entity scores against seqeval in both modes and against the published rules of conlleval."""

import random
import warnings
from collections import Counter
from itertools import chain, pairwise, product
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.scheme import IOB2

from research.metrics.base import precision_recall_f1
from research.metrics.entities import entity_counts
from research.metrics.tags import Scheme, convert, detect_scheme, lenient_entities, strict_entities, to_iob2
from tests.metrics.scores import entity_scores

Corpus = list[list[str]]


# conlleval's rules, as published: one table row per line of startOfChunk and endOfChunk.
def _ends(previous: str, tag: str, previous_kind: str, kind: str) -> bool:
    pairs = [("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("E", "E"), ("E", "I"), ("E", "O")]
    return (previous, tag) in pairs or (previous != "O" and previous_kind != kind)


def _starts(previous: str, tag: str, previous_kind: str, kind: str) -> bool:
    pairs = [("B", "B"), ("I", "B"), ("O", "B"), ("O", "I"), ("E", "E"), ("E", "I"), ("O", "E")]
    return (previous, tag) in pairs or (tag != "O" and previous_kind != kind)


def _prefix_and_type(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def conlleval(gold: Corpus, prediction: Corpus) -> tuple[int, int, int, Counter[str], Counter[str], Counter[str], int]:
    """The main loop of conlleval.pl: counts of correct, found and gold chunks, over all and by type."""
    correct: Counter[str] = Counter()
    found: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    equal_tags = 0
    in_correct = False
    last = (("O", ""), ("O", ""))
    rows = []
    for tags, guesses in zip(gold, prediction, strict=True):
        rows += [*zip(tags, guesses, strict=True), ("O", "O")]  # a sentence break counts as out of chunk
    for tag, guess in rows:
        now = _prefix_and_type(tag), _prefix_and_type(guess)
        changes = [(last[side][0], now[side][0], last[side][1], now[side][1]) for side in (0, 1)]
        ends = [_ends(*change) for change in changes]
        starts = [_starts(*change) for change in changes]
        if in_correct:
            if all(ends) and last[0][1] == last[1][1]:
                in_correct = False
                correct[last[0][1]] += 1
            elif ends[0] != ends[1] or now[0][1] != now[1][1]:
                in_correct = False
        if all(starts) and now[0][1] == now[1][1]:
            in_correct = True
        expected[now[0][1]] += starts[0]
        found[now[1][1]] += starts[1]
        equal_tags += tag == guess
        last = now
    equal_tags -= len(gold)  # the sentence breaks
    return correct.total(), found.total(), expected.total(), correct, found, expected, equal_tags


def conlleval_scores(correct: int, found: int, expected: int) -> list[float]:
    precision = correct / found if found else 0.0
    recall = correct / expected if expected else 0.0
    return [precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0]


def corpora(prefixes: str) -> st.SearchStrategy[tuple[Corpus, Corpus]]:
    """Gold and predicted tags of equal lengths; a third of the predictions are the gold tags themselves."""
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC", "work-of-art"))]
    pair = st.tuples(st.sampled_from(tags), st.sampled_from(tags), st.integers(0, 2))
    word = pair.map(lambda drawn: (drawn[0], drawn[0] if drawn[2] == 0 else drawn[1]))
    return st.lists(st.lists(word, max_size=9), min_size=1, max_size=5).map(
        lambda rows: ([[t for t, _ in row] for row in rows], [[t for _, t in row] for row in rows])
    )


def seqeval_scores(gold: Corpus, prediction: Corpus, **mode: object) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functions = (precision_score, recall_score, f1_score)
        return [float(function(gold, prediction, zero_division=0, **mode)) for function in functions]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(corpora("BI"))
def test_agrees_with_seqeval_default_mode(corpus: tuple[Corpus, Corpus]) -> None:
    gold, prediction = corpus
    scores = entity_scores(gold, prediction)
    assert [scores["precision"], scores["recall"], scores["f1"]] == seqeval_scores(gold, prediction)
    kinds = sorted(key.removeprefix("f1/") for key in scores if key.startswith("f1/"))
    if kinds:
        per_type = precision_recall_fscore_support(gold, prediction, average=None, zero_division=0)
        for name, values in zip(("precision", "recall", "f1", "support"), per_type, strict=True):
            assert [scores[f"{name}/{kind}"] for kind in kinds] == [float(value) for value in values]
    if any(gold):
        assert scores["accuracy"] == accuracy_score(gold, prediction)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(corpora("BI"))
def test_agrees_with_seqeval_strict_mode(corpus: tuple[Corpus, Corpus]) -> None:
    gold, prediction = corpus
    scores = entity_scores(gold, prediction)
    strict = [scores["strict_precision"], scores["strict_recall"], scores["strict_f1"]]
    assert strict == seqeval_scores(gold, prediction, mode="strict", scheme=IOB2)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.one_of(corpora("BI"), corpora("BIES")))
def test_agrees_with_conlleval(corpus: tuple[Corpus, Corpus]) -> None:
    gold, prediction = corpus
    correct, found, expected, *by_type, equal_tags = conlleval(gold, prediction)
    assert entity_counts(gold, prediction).sum(axis=0).tolist() == [correct, found, expected]
    scores = entity_scores(gold, prediction)
    assert [scores["precision"], scores["recall"], scores["f1"]] == conlleval_scores(correct, found, expected)
    words = sum(map(len, gold))
    assert scores["accuracy"] == (equal_tags / words if words else 0)
    for kind in {kind for counter in by_type for kind, count in counter.items() if count}:
        expected_scores = conlleval_scores(*(counter[kind] for counter in by_type))
        assert [scores[f"{name}/{kind}"] for name in ("precision", "recall", "f1")] == expected_scores
        assert scores[f"support/{kind}"] == by_type[2][kind]


def test_lenient_1_where_strict_is_0() -> None:
    gold, prediction = [["B-PER", "I-PER", "O"]], [["I-PER", "I-PER", "O"]]
    scores = entity_scores(gold, prediction)
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1, 1, 1)
    assert (scores["strict_precision"], scores["strict_recall"], scores["strict_f1"]) == (0, 0, 0)
    assert scores["accuracy"] == 2 / 3
    assert seqeval_scores(gold, prediction) == [1, 1, 1]
    assert seqeval_scores(gold, prediction, mode="strict", scheme=IOB2) == [0, 0, 0]


def test_a_word_predicted_as_outside_is_a_missed_word() -> None:
    # Two gold entities, one found: 2/3. Dropping the unseen words from gold would make it 1.
    gold = [["B-LOC", "O", "O", "B-PER", "I-PER"]]
    assert entity_scores(gold, [["B-LOC", "O", "O", "O", "O"]])["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        ("", [], []),
        ("O O", [], []),
        ("B-A I-A I-A", [("A", 0, 3)], [("A", 0, 3)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)], [("A", 0, 1), ("A", 1, 2)]),
        ("O I-A I-A O", [("A", 1, 3)], []),
        ("B-A I-B I-A", [("A", 0, 1), ("B", 1, 2), ("A", 2, 3)], [("A", 0, 1)]),
        ("B-A O I-A", [("A", 0, 1), ("A", 2, 3)], [("A", 0, 1)]),
        ("I-A B-A I-A", [("A", 0, 1), ("A", 1, 3)], [("A", 1, 3)]),
        ("B-A E-A O", [("A", 0, 2)], [("A", 0, 1)]),
        ("B I O B", [("_", 0, 2), ("_", 3, 4)], [("_", 0, 2), ("_", 3, 4)]),
    ],
)
def test_reading(tags: str, lenient: list[Any], strict: list[Any]) -> None:
    assert lenient_entities(tags.split()) == lenient
    assert strict_entities(tags.split()) == strict


def test_where_conlleval_and_seqeval_differ() -> None:
    """Every sequence of up to 4 tags: only S-X and B-X behind E-X part them, and conversion removes that."""
    tags = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XY")]
    for sequence in chain.from_iterable(product(tags, repeat=length) for length in range(1, 5)):
        seqeval_reading = [(kind, start, end + 1) for kind, start, end in get_entities(list(sequence))]
        b_behind_e = any(pair in (("E-X", "B-X"), ("E-Y", "B-Y")) for pair in pairwise(sequence))
        if not b_behind_e and not any(tag.startswith("S") for tag in sequence):
            assert lenient_entities(sequence) == seqeval_reading
        assert lenient_entities(convert(sequence, "IOBES")) == seqeval_reading
    assert get_entities(["S-X", "S-X"]) == [("X", 0, 0), ("X", 1, 1)]
    assert get_entities(["B-X", "E-X", "B-X"]) == [("X", 0, 1), ("X", 2, 2)]
    assert lenient_entities(["S-X", "S-X"]) == [("X", 0, 2)]
    assert lenient_entities(["B-X", "E-X", "B-X"]) == [("X", 0, 3)]


def test_counts_give_the_score_of_any_resample() -> None:
    rng = random.Random(0)
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    gold = [[rng.choice(tags) for _ in range(8)] for _ in range(40)]
    prediction = [[tag if rng.random() < 0.8 else rng.choice(tags) for tag in row] for row in gold]
    samples = np.random.default_rng(0).integers(40, size=(25, 40))
    for strict, prefix in ((False, ""), (True, "strict_")):
        counts = entity_counts(gold, prediction, strict=strict)
        assert counts.shape == (40, 3)
        resampled = precision_recall_f1(counts[samples].sum(axis=1))
        assert resampled.shape == (25, 3)
        for sample, (precision, recall, f1) in zip(samples, resampled.tolist(), strict=True):
            scores = entity_scores([gold[row] for row in sample], [prediction[row] for row in sample])
            expected = [scores[prefix + name] for name in ("precision", "recall", "f1")]
            assert [precision, recall, f1] == expected
            assert 0 < f1 < 1


def test_refuses_other_lengths_and_unknown_tags() -> None:
    with pytest.raises(ValueError, match="2 gold answers but 1 predictions"):
        entity_scores([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 1 has 2 gold tags but 1 predicted"):
        entity_scores([["O"], ["O", "O"]], [["O"], ["O"]])
    for tag in ("PER", "X-PER", "O-PER", "", "b-PER"):
        with pytest.raises(ValueError, match=f"'{tag}' is not a tag"):
            lenient_entities([tag])


# Entities as lengths with their types (None for outside words), written in each scheme.
SPANS = st.lists(st.tuples(st.sampled_from([None, "PER", "LOC"]), st.integers(1, 4)), max_size=6)


def write(spans: list[tuple[str | None, int]], scheme: str) -> list[str]:
    tags = []
    before = None
    for kind, length in spans:
        if kind is None:
            tags += ["O"] * length
        elif scheme == "IOB2":
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
        elif scheme == "IOB1":
            tags += [f"{'B' if before == kind else 'I'}-{kind}", *[f"I-{kind}"] * (length - 1)]
        else:
            inside, last, single = tuple({"IOBES": "IES", "BILOU": "ILU", "BMES": "MES"}[scheme])
            middle = [f"{inside}-{kind}"] * (length - 2)
            tags += [f"{single}-{kind}"] if length == 1 else [f"B-{kind}", *middle, f"{last}-{kind}"]
        before = kind
    return tags


@settings(max_examples=100, deadline=None)
@given(st.lists(SPANS, min_size=1, max_size=5), st.sampled_from(["IOB1", "IOB2", "IOBES", "BILOU", "BMES"]))
def test_every_scheme_is_recognised_and_converted(corpus: list[Any], scheme: str) -> None:
    written = [write(spans, scheme) for spans in corpus]
    expected = [write(spans, "IOB2") for spans in corpus]
    named = cast(Scheme, "IOBES" if scheme == "BMES" else scheme)
    assert [convert(tags, named) for tags in written] == expected
    assert to_iob2(written) == expected
    if any(kind for spans in corpus for kind, _ in spans):
        # A corpus that has no adjacent entities of one type still tells IOB1 from IOB2 by its first entity.
        assert detect_scheme(written) == named
    assert all(strict_entities(tags) == lenient_entities(tags) for tags in expected)


def test_detection_golden_cases() -> None:
    assert detect_scheme([]) == detect_scheme([["O"]]) == detect_scheme([["B-A", "I-A"]]) == "IOB2"
    assert detect_scheme([["I-A", "B-A"], ["O"]]) == detect_scheme([["I-A", "I-A"]]) == "IOB1"
    assert detect_scheme([["O", "S-A"]]) == detect_scheme([["B-A", "E-A"]]) == "IOBES"
    assert detect_scheme([["O", "U-A"]]) == detect_scheme([["B-A", "L-A"]]) == "BILOU"
    # One stray I- makes no IOB1, and is left as it is.
    faulty = [["B-A", "I-A"], ["O", "B-A"], ["O", "I-A"]]
    assert detect_scheme(faulty) == "IOB2"
    assert to_iob2(faulty) == faulty
    # One stray B- makes no IOB2.
    assert detect_scheme([["I-A", "I-A"], ["O", "I-A"], ["O", "B-A"]]) == "IOB1"
    with pytest.raises(ValueError, match=r"\['S'\] \(IOBES\) and \['U'\] \(BILOU\)"):
        detect_scheme([["S-A"], ["U-A"]])
