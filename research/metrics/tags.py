"""Tag schemes of entities, and the two readings of a tag sequence, which agree on well-formed IOB2.

- lenient: the rules of conlleval (Tjong Kim Sang 2004). An I- that nothing opened opens an entity.
- strict: IOB2 to the letter. Only B-X and the I-X that follow it make an entity.

On B-, I- and O tags the lenient reading is also that of seqeval's default mode. With E- and S- tags they
differ in two places, and here conlleval is followed:

- conlleval knows no S- tag. To it a run of S-X joins a chunk of type X beside it, and seqeval begins and ends
  an entity at each S-X.
- conlleval lets B-X after E-X of the same type continue the chunk; seqeval begins a new one.

So tags in IOBES or BILOU are converted first (`to_iob2`), after which every scorer agrees. conlleval's
bracket notation is left out. An entity is (type, start, end) in words, `end` exclusive; a tag without a type,
a bare B or I, has the type `_`, as in seqeval.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

Entity = tuple[str, int, int]
Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU"]

_PREFIXES = frozenset("BIOESLUM")
# The pairs of neighbouring prefixes at which conlleval ends and starts a chunk; a change of type always does.
_CHUNK_ENDS = {"BB", "BO", "IB", "IO", "EE", "EI", "EO"}
_CHUNK_STARTS = {"BB", "IB", "OB", "OI", "EE", "EI", "OE"}


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Recognise the tag scheme of a corpus; look at all splits at once, since a short one shows too little.

    BMES, with M for I, counts as IOBES. Corpora have faults, so IOB1 and IOB2 are distinguished by which has
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
    """Recognise the scheme of a corpus and rewrite every sentence to IOB2."""
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


@lru_cache(maxsize=4096)
def _split(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag: B-PER is B, PER; a type may hold hyphens."""
    prefix, _, kind = tag.partition("-")
    if prefix not in _PREFIXES or (prefix == "O" and kind):
        raise ValueError(f"{tag!r} is not a tag: expected O, or B, I, E, S, L, U or M, a hyphen and a type")
    return (prefix, "") if prefix == "O" else (prefix, kind or "_")
