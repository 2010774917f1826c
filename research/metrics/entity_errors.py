"""What kind of mistake each wrong entity is.

Gold and predicted entities of a sentence are paired one to one: first those with equal words, then those that share
words, the larger share first. So every gold and every predicted entity has exactly one kind:

- correct: equal words, equal type
- type: equal words, another type
- boundary: shared words, equal type
- both: shared words, another type
- missed: a gold entity without a partner
- spurious: a predicted entity without a partner

These are the categories of MUC-5 (Chinchor & Sundheim 1993) with partial matches split by type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from research.metrics.tags import Entity, lenient_entities

LEGEND = (
    "Boundary: shared words, right type; type: same words, other type; both: shared words, other type; missed: gold "
    "without a partner; spurious: predicted without one (counted under its own type)."
)
KINDS = ("correct", "type", "boundary", "both", "missed", "spurious")


class Pair(NamedTuple):
    kind: str
    gold: Entity | None
    predicted: Entity | None


def pairs(gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[Pair]:
    """Each entity of one sentence with its partner and the kind of the pair."""
    candidates = []
    for g, (kind, start, end) in enumerate(gold):
        for p, (other_kind, other_start, other_end) in enumerate(predicted):
            shared = min(end, other_end) - max(start, other_start)
            if shared > 0:
                exact = (start, end) == (other_start, other_end)
                size = max(end, other_end) - min(start, other_start)
                candidates.append((not exact, kind != other_kind, -shared / size, g, p))
    matched: dict[int, int] = {}
    found: list[Pair] = []
    for inexact, other_type, _, g, p in sorted(candidates):
        if g not in matched and p not in matched.values():
            matched[g] = p
            kind = ("both" if other_type else "boundary") if inexact else ("type" if other_type else "correct")
            found.append(Pair(kind, gold[g], predicted[p]))
    found += [Pair("missed", entity, None) for g, entity in enumerate(gold) if g not in matched]
    found += [Pair("spurious", None, entity) for p, entity in enumerate(predicted) if p not in matched.values()]
    return found


def all_pairs(gold: Iterable[Sequence[str]], prediction: Iterable[Sequence[str]]) -> list[list[Pair]]:
    """`pairs` of each sentence, from its gold and predicted tags."""
    rows = zip(gold, prediction, strict=True)
    return [pairs(lenient_entities(tags), lenient_entities(other_tags)) for tags, other_tags in rows]


def counts(sentences: Iterable[Sequence[Pair]]) -> dict[str, Counter[str]]:
    """Kind -> type -> how many; the type is the gold entity's, of spurious ones the predicted."""
    counted: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for sentence in sentences:
        for kind, gold, predicted in sentence:
            counted[kind][(gold or predicted or ("", 0, 0))[0]] += 1
    return counted


def confusion(sentences: Iterable[Sequence[Pair]]) -> Counter[tuple[str, str]]:
    """(gold type, predicted type) -> how many pairs; `none` stands for a missing partner."""
    named = ((gold[0] if gold else "none", other[0] if other else "none") for s in sentences for _, gold, other in s)
    return Counter(named)
