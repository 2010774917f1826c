"""Scores of extractive question answering, by the rules of the official scorers.

- SQuAD v1.1 (Rajpurkar et al. 2016, evaluate-v1.1.py): `exact_match`, `token_f1`, `squad_scores`.
- SQuAD v2.0 (Rajpurkar et al. 2018, evaluate-v2.0.py): `squad_v2_scores`. Beside the threshold it differs in
  empty texts: a question without an answer has the empty gold answer, which an empty prediction meets with
  F1 1; v1.1 gives F1 0 to two empty texts.
- CMRC 2018 (Cui et al. 2019, cmrc2018_evaluate.py): `cmrc_exact_match`, `cmrc_f1`, `cmrc_scores`.

`predictions` maps the id of a question to its predicted answer, `answers` to the texts of its gold answers
(none if it has no answer). The best match among the gold answers counts. All scores are fractions.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from research.metrics.treebank import treebank_words

Rules = Literal["squad", "squad_v2", "cmrc"]
SCORES = ("exact_match", "f1", "best_exact_match", "best_f1")  # the best: of squad_v2, which reports more beside

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# The scorer's list also has "……", which never equals the single character it is compared with.
_CMRC_PUNCTUATION = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_CMRC_WITHOUT_PUNCTUATION = str.maketrans("", "", _CMRC_PUNCTUATION)
_CMRC_ALONE = rf"\u4e00-\u9fa5{re.escape(_CMRC_PUNCTUATION)}"
_CMRC_SEGMENT = re.compile(f"([{_CMRC_ALONE}])|([^{_CMRC_ALONE}]+)")


# One question asks for the same few texts again and again: the cache need not outlast it.
@lru_cache(maxsize=256)
def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation and the articles a, an, the, and make all white space one blank."""
    text = text.lower().translate(_ASCII_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals a normalised answer, else 0 (SQuAD v1.1)."""
    normalized = normalize_answer(prediction)
    return float(any(normalize_answer(answer) == normalized for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 of the bags of normalised words, with the best of the answers (SQuAD v1.1)."""
    predicted = normalize_answer(prediction).split()
    return max(_bag_f1(predicted, normalize_answer(answer).split()) for answer in answers)


def squad_scores(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """SQuAD v1.1: `exact_match` and `f1` over all questions of `answers`.

    As in the official scorer a question without a prediction scores 0, and a prediction for an unknown
    question is ignored. Raises ValueError if a question has no answer: those belong to v2.0.
    """
    exact, f1 = per_question(predictions, answers, "squad")
    return {"exact_match": _mean(exact), "f1": _mean(f1)}


def cmrc_scores(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """CMRC 2018: `exact_match` and `f1` (`cmrc_exact_match`, `cmrc_f1`); missing predictions score 0."""
    exact, f1 = per_question(predictions, answers, "cmrc")
    return {"exact_match": _mean(exact), "f1": _mean(f1)}


def squad_v2_scores(
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    no_answer_probabilities: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """SQuAD v2.0: a question counts as predicted to have no answer when its probability exceeds `threshold`.

    Returns `exact_match` and `f1`; the same over the questions with and over those without an answer, where
    there are any (`has_answer_exact_match`, `has_answer_f1`, `no_answer_exact_match`, `no_answer_f1`); and
    with `no_answer_probabilities` (any score that rises with the belief in no answer will do) the best that
    a threshold could reach, and that threshold: `best_exact_match`, `best_exact_match_threshold`, `best_f1`,
    `best_f1_threshold`. A threshold chosen on the data it is scored on flatters: carry it from validation.

    Raises ValueError if a question has no prediction or no probability.
    """
    exact, f1 = per_question(predictions, answers, "squad_v2")
    answerable = np.array([len(texts) > 0 for texts in answers.values()])
    withheld = np.zeros(len(answers), dtype=bool)
    if no_answer_probabilities is not None:
        _require(no_answer_probabilities, answers, "no-answer probability")
        withheld = np.array([no_answer_probabilities[question] > threshold for question in answers])
    scores = {}
    for name, raw in (("exact_match", exact), ("f1", f1)):
        final = np.where(withheld, ~answerable, raw)
        scores[name] = _mean(final)
        for group, members in (("has_answer", answerable), ("no_answer", ~answerable)):
            if members.any():
                scores[f"{group}_{name}"] = _mean(final[members])
        if no_answer_probabilities is not None:
            best, best_threshold = _best_threshold(raw, predictions, answers, no_answer_probabilities)
            scores[f"best_{name}"] = best
            scores[f"best_{name}_threshold"] = best_threshold
    return scores


def per_question(
    predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]], rules: Rules = "squad"
) -> tuple[np.ndarray, np.ndarray]:
    """Exact match (N,) and F1 (N,) of every question, in the order of `answers`, by one scorer's rules.

    With "squad_v2" the predictions are taken as they are, without a threshold: an empty one means no answer.
    Raises ValueError if there is no question, for "squad" and "cmrc" if a question has no answer, for
    "squad_v2" if one has no prediction.
    """
    if not answers:
        raise ValueError("there are no questions to score")
    if rules == "squad_v2":
        _require(predictions, answers, "prediction")
    else:
        unanswerable = [question for question, texts in answers.items() if len(texts) == 0]
        if unanswerable:
            raise ValueError(f"question {unanswerable[0]!r} has no gold answer: score by SQuAD v2.0 instead")
    score_exact, score_f1 = (cmrc_exact_match, cmrc_f1) if rules == "cmrc" else (exact_match, token_f1)
    exact, f1 = np.zeros(len(answers)), np.zeros(len(answers))
    for row, (question, texts) in enumerate(answers.items()):
        if question not in predictions:
            continue
        prediction = predictions[question]
        if rules == "squad_v2":
            texts = [text for text in texts if normalize_answer(text)] or [""]
        exact[row] = score_exact(prediction, texts)
        # In v2.0 two empty texts agree. Where only one is empty, both scorers give 0.
        both_empty = rules == "squad_v2" and texts == [""]
        f1[row] = exact[row] if both_empty else score_f1(prediction, texts)
    return exact, f1


def remove_punctuation(text: str) -> str:
    """Lower-case, strip, and drop the punctuation of CMRC's list, which leaves ASCII .,;!?'\"() in place."""
    return text.lower().strip().translate(_CMRC_WITHOUT_PUNCTUATION)


def mixed_segmentation(text: str, drop_punctuation: bool = False) -> list[str]:
    """Segment as CMRC does: every Chinese character and listed mark alone, the rest as English words.

    A dropped mark does not part what it stood between: "a-b" is the one word "ab".
    """
    text = remove_punctuation(text) if drop_punctuation else text.lower().strip()
    segments: list[str] = []
    for alone, run in _CMRC_SEGMENT.findall(text):
        segments.extend([alone] if alone else treebank_words(run))
    return segments


def find_lcs(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest run of neighbouring segments that both contain."""
    places: dict[str, list[int]] = {}
    for place, segment in enumerate(second):
        places.setdefault(segment, []).append(place)
    longest = 0
    lengths: dict[int, int] = {}  # place in `second` -> length of the common run that ends there
    for segment in first:
        lengths = {place: lengths.get(place - 1, 0) + 1 for place in places.get(segment, ())}
        longest = max(longest, *lengths.values()) if lengths else longest
    return longest


def cmrc_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if prediction and an answer are equal without case and listed punctuation, else 0 (CMRC 2018)."""
    plain = remove_punctuation(prediction)
    return float(any(remove_punctuation(answer) == plain for answer in answers))


def cmrc_f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 of the longest common run of segments, with the best of the answers (CMRC 2018)."""
    predicted = mixed_segmentation(prediction, drop_punctuation=True)
    scores = []
    for answer in answers:
        expected = mixed_segmentation(answer, drop_punctuation=True)
        scores.append(_f1(find_lcs(expected, predicted), len(predicted), len(expected)))
    return max(scores)


def _bag_f1(predicted: list[str], expected: list[str]) -> float:
    common = Counter(predicted) & Counter(expected)
    return _f1(sum(common.values()), len(predicted), len(expected))


def _f1(common: int, predicted: int, expected: int) -> float:
    if common == 0:
        return 0.0
    precision, recall = common / predicted, common / expected
    return 2 * precision * recall / (precision + recall)


def _mean(scores: np.ndarray) -> float:
    # Summed one by one, as the official scorers do: numpy's pairwise sum differs in the last digit.
    return sum(scores.tolist()) / len(scores)


def _best_threshold(
    raw: np.ndarray,
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    no_answer_probabilities: Mapping[str, float],
) -> tuple[float, float]:
    """The best mean score (and its threshold) of answering only questions up to a no-answer probability.

    It starts from answering none, admits questions from the lowest probability up, and keeps the first
    maximum. As in the official scorer, questions of equal probability are admitted one after another in the
    order of the mapping, so that the maximum may lie between them.
    """
    gains = {
        question: score if len(texts) else -float(bool(predictions[question]))
        for (question, texts), score in zip(answers.items(), raw.tolist(), strict=True)
    }
    known = [question for question in no_answer_probabilities if question in gains]
    order = sorted(known, key=lambda question: no_answer_probabilities[question])
    unanswerable = sum(len(texts) == 0 for texts in answers.values())
    totals = np.cumsum([unanswerable, *(gains[question] for question in order)])
    best = int(totals.argmax())
    threshold = float(no_answer_probabilities[order[best - 1]]) if best else 0.0
    return float(totals[best]) / len(answers), threshold


def _require(given: Mapping[str, object], answers: Mapping[str, Sequence[str]], what: str) -> None:
    missing = [question for question in answers if question not in given]
    if missing:
        raise ValueError(f"{len(missing)} questions have no {what}, the first is {missing[0]!r}")


def score(table: pa.Table, settings: Mapping[str, Any]) -> dict[str, float]:
    """Score a predictions table with the columns id, gold (lists of answers), answer and no_answer_score.

    `settings` has the rules ("squad", "squad_v2" or "cmrc") and the threshold of "squad_v2".
    """
    ids = table.column("id").to_pylist()
    answers = dict(zip(ids, table.column("gold").to_pylist(), strict=True))
    predictions = dict(zip(ids, table.column("answer").to_pylist(), strict=True))
    if settings["rules"] == "squad_v2":
        doubts = dict(zip(ids, table.column("no_answer_score").to_pylist(), strict=True))
        return squad_v2_scores(predictions, answers, doubts, settings["threshold"])
    return cmrc_scores(predictions, answers) if settings["rules"] == "cmrc" else squad_scores(predictions, answers)
