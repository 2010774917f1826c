"""Scores of extractive question answering over data sets: SQuAD v1.1, SQuAD v2.0, CMRC 2018.

See research.metrics.squad_question for the rules of one question. `predictions` maps the id of a question to its
predicted answer, `answers` to the texts of its gold answers (none if it has no answer). All scores are fractions.

Legend: N questions, K counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.baselines import Baselines
from research.metrics.examples import NOTHING, Floats, words
from research.metrics.score import Score
from research.metrics.slicing import Cut, quarters, value_cuts
from research.metrics.squad_baselines import likest_sentence
from research.metrics.squad_question import Rules, question_scores
from research.metrics.text_baselines import most_frequent_answer

GROUPS = ("has_answer_", "no_answer_")
QUESTION_WORDS = ("who", "whose", "whom", "what", "which", "when", "where", "why", "how")
CHINESE_QUESTION_WORDS = ("为什么", "什么时候", "什么", "多少", "怎么", "如何", "哪", "谁", "何", "几")
NAMES = {
    "squad": "the official scorer of SQuAD v1.1",
    "squad_v2": "the official scorer of SQuAD v2.0, with the no-answer threshold that was best on validation",
    "cmrc": "the official scorer of CMRC 2018",
}


class Metric(BaseMetric):
    """Exact match and F1 of answers, means over questions; `settings`: "rules" and, for "squad_v2", "threshold".

    The columns are gold (lists of answers), answer and, for squad_v2, no_answer_score: a question counts as predicted
    to have no answer when its score exceeds the threshold. `best_*` are what the best threshold on the scored data
    would reach, and `no_answer_threshold` is the one to carry to other data.
    """

    scores = (
        Score("f1", "token F1"),
        Score("exact_match", "EM", is_proportion=True),
        Score("has_answer_f1", "token F1 with an answer"),
        Score("has_answer_exact_match", "EM with an answer"),
        Score("no_answer_f1", "token F1 without an answer"),
        Score("no_answer_exact_match", "EM without an answer"),
        Score("best_f1", "token F1 at the best threshold"),
        Score("best_exact_match", "EM at the best threshold"),
    )
    texts = lengths = ("question", "context")
    columns = ("answer", "answers", "no_answer_score", "n_best")

    @property
    def rules(self) -> Rules:
        rules: Rules = self.settings.get("rules", "squad")
        return rules

    @property
    def signature(self) -> str:
        return f"squad|average:questions|rules:{self.rules}"

    @property
    def sentence(self) -> str:
        return f"exact match and token-level F1, means over questions, by the rules of {NAMES[self.rules]}"

    def widths(self) -> dict[str, int]:
        groups = ("", *GROUPS) if self.rules == "squad_v2" else ("",)
        return {f"{group}{name}": 2 for group in groups for name in ("exact_match", "f1")}

    def counts(self, table: pa.Table) -> dict[str, Floats]:
        """For each score its value on the example, and 1; both 0 where the example is not of the score's group.

        Raises ValueError for "squad" and "cmrc" if a question has no gold answer.
        """
        gold = table.column("gold").to_pylist()
        values = question_values(table.column("answer").to_pylist(), gold, table.column("id").to_pylist(), self.rules)
        answerable = np.array([len(texts) > 0 for texts in gold])
        members = {"": np.ones(len(gold), dtype=bool)}
        if self.rules == "squad_v2":
            members |= {"has_answer_": answerable, "no_answer_": ~answerable}
            if "no_answer_score" in table.column_names:
                withheld = table.column("no_answer_score").to_numpy() > self.settings.get("threshold", 0.0)
                values = np.where(withheld[:, None], ~answerable[:, None], values)
        return {
            f"{group}{name}": np.column_stack([values[:, i] * mask, mask]).astype(np.float64)
            for group, mask in members.items()
            for i, name in enumerate(("exact_match", "f1"))
        }

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), ratio) if name in self.widths() else None

    def reported(self, sums: Blocks) -> list[str]:
        return [name for name in self.widths() if sums[name][1]]

    def beside(self, table: pa.Table) -> dict[str, float]:
        """The best that a threshold could reach, and that threshold, for SQuAD v2.0."""
        if self.rules != "squad_v2" or "no_answer_score" not in table.column_names:
            return {}
        names = ("answer", "gold", "no_answer_score")
        ids = table.column("id").to_pylist()
        texts, gold, doubts = (dict(zip(ids, table.column(name).to_pylist(), strict=True)) for name in names)
        return best_thresholds(texts, gold, doubts)

    def table(self, predictions: Sequence[Any], golds: Sequence[Any], **columns: Any) -> pa.Table:
        table = super().table(predictions, golds, **columns)
        return table.append_column("answer", pa.array(list(predictions), pa.string()))

    def baselines(self, table: pa.Table, train: pa.Table | None = None) -> Baselines:
        """The sentence most like the question (`squad_baselines`), the most frequent answer of the training data and,
        where some questions have none, no answer."""
        answers = most_frequent_answer(table, train)
        if {"question", "context"} <= set(table.column_names):
            pairs = zip(table.column("question").to_pylist(), table.column("context").to_pylist(), strict=True)
            answers["sentence most like the question"] = [likest_sentence(*pair) for pair in pairs]
        if self.rules == "squad_v2":
            answers["no answer"] = [""] * table.num_rows
        plain = table.drop_columns([name for name in ("answer", "no_answer_score") if name in table.column_names])
        return {name: self.score(plain.append_column("answer", pa.array(texts))) for name, texts in answers.items()}

    def example_scores(self, table: pa.Table) -> Floats:
        predictions, gold, ids = (table.column(name).to_pylist() for name in ("prediction", "gold", "id"))
        values: Floats = question_values(predictions, gold, ids, self.rules)[:, 1]
        return values

    def confidence(self, table: pa.Table) -> Floats:
        """Softmax over the n best answers, and over no answer where there may be none: the share of what was given."""
        shares = []
        columns = (table.column(name).to_pylist() for name in ("prediction", "n_best", "no_answer_score"))
        may_withhold = self.rules == "squad_v2"
        for answer, n_best, doubt in zip(*columns, strict=True):
            scores = np.array([each["score"] for each in n_best], dtype=np.float64)
            if not len(scores):
                shares.append(np.nan)
                continue
            weights = np.exp(scores - scores[0])
            withheld = float(np.exp(min(doubt, 50.0))) if may_withhold else 0.0
            shares.append((withheld if may_withhold and not answer else 1.0) / (weights.sum() + withheld))
        return np.array(shares)

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        gold, prediction = (table.column(name).to_pylist() for name in ("gold", "prediction"))
        return [" | ".join(texts) or NOTHING for texts in gold], [text or NOTHING for text in prediction]

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        gold = table.column("gold").to_pylist()
        if "question" in table.column_names:
            questions = table.column("question").to_pylist()
            yield from value_cuts("question word", [question_word(text) for text in questions])
        yield from value_cuts("answer", ["with an answer" if texts else "without an answer" for texts in gold])
        lengths = np.array([words(texts[0]) if texts else np.nan for texts in gold], dtype=np.float64)
        yield from quarters("length of answer (words)", lengths)


def best_thresholds(
    predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]], no_answer_probabilities: Mapping[str, float]
) -> dict[str, float]:
    """The best that a no-answer threshold could reach on this data, and the threshold to carry to other data.

    By the official scorer: `best_f1`, `best_f1_threshold`, `best_exact_match`, `best_exact_match_threshold`. Where
    answering nothing is best, its threshold is 0.0, which is right for probabilities alone: `no_answer_threshold` then
    lies below every score. A threshold chosen on the data it is scored on flatters.
    """
    values = question_values([predictions[q] for q in answers], list(answers.values()), list(answers), "squad_v2")
    scores = {}
    for i, name in enumerate(("exact_match", "f1")):
        best, threshold = _best_threshold(values[:, i], predictions, answers, no_answer_probabilities)
        scores[f"best_{name}"] = best
        scores[f"best_{name}_threshold"] = 0.0 if threshold is None else threshold
    lowest = min(no_answer_probabilities[question] for question in answers)
    return {**scores, "no_answer_threshold": lowest - 1.0 if threshold is None else threshold}


def question_values(
    predictions: Sequence[str | None], answers: Sequence[Sequence[str]], ids: Sequence[str], rules: Rules
) -> Floats:
    """Exact match and F1 (N, 2) of every question, without a threshold; a prediction None scores 0.

    Raises ValueError if there is no question, and for "squad" and "cmrc" if one has no answer.
    """
    if not len(answers):
        raise ValueError("there are no questions to score")
    if rules != "squad_v2":
        unanswerable = next((question for question, texts in zip(ids, answers, strict=True) if not len(texts)), None)
        if unanswerable is not None:
            raise ValueError(f"question {unanswerable!r} has no gold answer: score by SQuAD v2.0 instead")
    rows = zip(predictions, answers, strict=True)
    return np.array([(0.0, 0.0) if text is None else question_scores(text, golds, rules) for text, golds in rows])


def question_word(question: str) -> str:
    """`how many`, `who`, ...: the first question word, `other` where there is none."""
    tokens = [token.strip("?,.;:!\"'()“”‘’«»¿").lower() for token in question.split()]
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == "how" and following in ("many", "much", "long", "old", "far"):
            return f"how {following}"
        if token in QUESTION_WORDS:
            return token
    return next((word for word in CHINESE_QUESTION_WORDS if word in question), "other")


def _best_threshold(
    raw: np.ndarray,
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    no_answer_probabilities: Mapping[str, float],
) -> tuple[float, float | None]:
    """The best mean score of answering only questions up to a no-answer probability; None: by answering none.

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
    threshold = float(no_answer_probabilities[order[best - 1]]) if best else None
    return float(totals[best]) / len(answers), threshold
