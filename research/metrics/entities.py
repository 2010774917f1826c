"""Entity-level scores of whole sentences, and the tag schemes that entities are written in.

Two readings of a tag sequence, which agree on well-formed IOB2:

- lenient: the rules of conlleval (Tjong Kim Sang 2004). An I- that nothing opened opens an entity.
- strict: IOB2 to the letter. Only B-X and the I-X that follow it make an entity.

On B-, I- and O tags the lenient reading is also that of seqeval's default mode. With E- and S- tags they
differ in two places, and here conlleval is followed:

- conlleval knows no S- tag. To it a run of S-X joins a chunk of type X beside it, and seqeval begins and ends
  an entity at each S-X.
- conlleval lets B-X after E-X of the same type go on with the chunk; seqeval begins a new one.

So tags in IOBES or BILOU are converted first (`to_iob2`), after which every scorer agrees. conlleval's
bracket notation is left out. An entity is (type, start, end) in words, `end` exclusive; a tag without a type,
a bare B or I, has the type `_`, as in seqeval.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa

Entity = tuple[str, int, int]
Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU"]

SCORES = ("precision", "recall", "f1", "strict_precision", "strict_recall", "strict_f1", "accuracy")  # some by type
_PREFIXES = frozenset("BIOESLUM")
# The pairs of neighbouring prefixes at which conlleval ends and starts a chunk; a change of type always does.
_CHUNK_ENDS = {"BB", "BO", "IB", "IO", "EE", "EI", "EO"}
_CHUNK_STARTS = {"BB", "IB", "OB", "OI", "EE", "EI", "OE"}


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Recognise the tag scheme of a corpus; look at all splits at once, since a short one shows too little.

    BMES, with M for I, counts as IOBES. Corpora have faults, so IOB1 and IOB2 are told apart by which has
    more breaches: of IOB2, an I- that opens an entity; of IOB1, a B- that does not stand right behind an
    entity of its own type. Raises ValueError for a tag of no scheme, and for E-, S- or M- beside L- or U-.
    """
    prefixes: set[str] = set()
    iob1_breaches = iob2_breaches = 0
    for tags in sentences:
        previous = ""
        for prefix, kind in map(_split, tags):
            prefixes.add(prefix)
            iob1_breaches += prefix == "B" and kind != previous
            iob2_breaches += prefix == "I" and kind != previous
            previous = kind
    iobes, bilou = prefixes & set("ESM"), prefixes & set("LU")
    if iobes and bilou:
        raise ValueError(f"tags begin with both {sorted(iobes)} (IOBES) and {sorted(bilou)} (BILOU)")
    if iobes or bilou:
        return "IOBES" if iobes else "BILOU"
    return "IOB1" if iob2_breaches > iob1_breaches else "IOB2"


def convert(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Rewrite the tags of one sentence from `scheme` to IOB2.

    IOB2 passes unchanged, faults included, so that gold data stays what was published.
    """
    if scheme == "IOB2":
        return list(tags)
    converted = []
    previous_prefix, previous_kind = "O", ""
    for prefix, kind in map(_split, tags):
        begins = prefix in "BSU" or kind != previous_kind or previous_prefix in "ESLU"
        if prefix == "O":
            converted.append("O")
        else:
            converted.append(f"{'B' if begins else 'I'}-{kind}")
        previous_prefix, previous_kind = prefix, kind
    return converted


def to_iob2(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """Recognise the scheme of a whole corpus and rewrite every sentence to IOB2."""
    scheme = detect_scheme(sentences)
    return [convert(tags, scheme) for tags in sentences]


def lenient_entities(tags: Sequence[str]) -> list[Entity]:
    """Entities of one sentence as conlleval reads them, in order; see the head of this file."""
    entities = []
    start = 0
    previous, previous_kind = "O", ""
    for position, (prefix, kind) in enumerate([*map(_split, tags), ("O", "")]):
        pair, changes = previous + prefix, kind != previous_kind
        if pair in _CHUNK_ENDS or (changes and previous != "O"):
            entities.append((previous_kind, start, position))
        if pair in _CHUNK_STARTS or (changes and prefix != "O"):
            start = position
        previous, previous_kind = prefix, kind
    return entities


def strict_entities(tags: Sequence[str]) -> list[Entity]:
    """Entities of one sentence by strict IOB2, in order; I- without its B-, and E- or S-, belong to none."""
    entities = []
    open_kind, start = "", 0
    for position, (prefix, kind) in enumerate([*map(_split, tags), ("O", "")]):
        if open_kind and not (prefix == "I" and kind == open_kind):
            entities.append((open_kind, start, position))
            open_kind = ""
        if prefix == "B":
            open_kind, start = kind, position
    return entities


def entity_scores(gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score the predicted tags of N whole sentences; every score but `support/` is a fraction.

    `precision`, `recall`, `f1` are micro averages of the lenient reading (conlleval; seqeval's default mode);
    `strict_precision`, `strict_recall`, `strict_f1` those of strict IOB2 (seqeval's mode="strict");
    `accuracy` is the share of words whose tags are equal. For every type in gold or prediction, lenient:
    `precision/<TYPE>`, `recall/<TYPE>`, `f1/<TYPE>` and `support/<TYPE>` (gold entities). Ratios with
    denominator 0 are 0.

    Raises ValueError when the numbers of sentences or of words differ.
    """
    strict = entity_counts(gold, prediction, strict=True).sum(axis=0)
    by_type = _counts_by_type(gold, prediction)
    words = zip(chain.from_iterable(gold), chain.from_iterable(prediction), strict=True)
    equal = [tag == other_tag for tag, other_tag in words]
    scores = _named("", sum(by_type.values(), np.zeros(3, dtype=np.int64)), "")
    scores |= _named("strict_", strict, "")
    scores["accuracy"] = sum(equal) / len(equal) if equal else 0.0
    for kind, counts in by_type.items():
        scores |= _named("", counts, f"/{kind}")
        scores[f"support/{kind}"] = float(counts[2])
    return scores


def entity_counts(
    gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]], *, strict: bool = False
) -> np.ndarray:
    """Per sentence the number of true positives, predicted entities and gold entities, (N, 3).

    The scores of any subset or resample of sentences follow from the summed rows by `precision_recall_f1`.
    Raises ValueError when the numbers of sentences or of words differ.
    """
    _check_lengths(gold, prediction)
    read = strict_entities if strict else lenient_entities
    counts = np.zeros((len(gold), 3), dtype=np.int64)
    for row, tags, other_tags in zip(counts, gold, prediction, strict=True):
        expected, found = set(read(tags)), set(read(other_tags))
        row[:] = len(expected & found), len(found), len(expected)
    return counts


def precision_recall_f1(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 (..., 3) from true positives, predicted and gold entities (..., 3)."""
    true_positives, predicted, gold = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    # A count of 0 in a denominator has a numerator of 0: dividing by 1 instead gives the 0 that is meant.
    precision = true_positives / np.maximum(predicted, 1)
    recall = true_positives / np.maximum(gold, 1)
    total = precision + recall
    f1 = 2 * precision * recall / np.where(total > 0, total, 1)
    return np.stack([precision, recall, f1], axis=-1)


def _named(before: str, counts: np.ndarray, after: str) -> dict[str, float]:
    names = (f"{before}{name}{after}" for name in ("precision", "recall", "f1"))
    return dict(zip(names, precision_recall_f1(counts).tolist(), strict=True))


def _counts_by_type(gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Lenient (3,) counts of every type, sorted by its name."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for tags, other_tags in zip(gold, prediction, strict=True):
        expected, found = set(lenient_entities(tags)), set(lenient_entities(other_tags))
        for column, entities in enumerate((expected & found, found, expected)):
            for kind, _, _ in entities:
                counts[kind][column] += 1
    return dict(sorted(counts.items()))


def _check_lengths(gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]) -> None:
    if len(gold) != len(prediction):
        raise ValueError(f"{len(gold)} gold sentences but {len(prediction)} predictions")
    for number, (tags, other_tags) in enumerate(zip(gold, prediction, strict=True)):
        if len(tags) != len(other_tags):
            raise ValueError(f"sentence {number} has {len(tags)} gold tags but {len(other_tags)} predicted")


@lru_cache(maxsize=4096)
def _split(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag: B-PER is B, PER; a type may hold hyphens."""
    prefix, _, kind = tag.partition("-")
    if prefix not in _PREFIXES or (prefix == "O" and kind):
        raise ValueError(f"{tag!r} is not a tag: expected O, or B, I, E, S, L, U or M, a hyphen and a type")
    return (prefix, "") if prefix == "O" else (prefix, kind or "_")


def score(table: pa.Table, settings: Mapping[str, Any]) -> dict[str, float]:
    """Score a predictions table whose columns gold and prediction hold a tag per word."""
    return entity_scores(table.column("gold").to_pylist(), table.column("prediction").to_pylist())
