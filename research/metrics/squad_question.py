"""Exact match and F1 of one question, by the rules of the official scorers.

- SQuAD v1.1 (Rajpurkar et al. 2016, evaluate-v1.1.py): `exact_match`, `token_f1`.
- SQuAD v2.0 (Rajpurkar et al. 2018, evaluate-v2.0.py) differs in empty texts: a question without an answer has the
  empty gold answer, which an empty prediction meets with F1 1; v1.1 gives F1 0 to two empty texts.
- CMRC 2018 (Cui et al. 2019, cmrc2018_evaluate.py): `cmrc_exact_match`, `cmrc_f1`.

The best match among the gold answers counts. All scores are fractions.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from research.metrics.treebank import treebank_words

Rules = Literal["squad", "squad_v2", "cmrc"]

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


def question_scores(prediction: str, answers: Sequence[str], rules: Rules) -> tuple[float, float]:
    """Exact match and F1 of one question by one scorer's rules; no gold answers: it has none (SQuAD v2.0)."""
    if rules == "cmrc":
        return cmrc_exact_match(prediction, answers), cmrc_f1(prediction, answers)
    if rules == "squad":
        return exact_match(prediction, answers), token_f1(prediction, answers)
    texts = [text for text in answers if normalize_answer(text)] or [""]
    exact = exact_match(prediction, texts)
    # In v2.0 two empty texts agree. Where only one is empty, both scorers give 0.
    return exact, exact if texts == [""] else token_f1(prediction, texts)


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
