"""Runs that begin with a run of their own seed: `runs/mlm/seed0` for seed 0, `runs/mlm/seed1` for seed 1.

Both are parts of one system, whose name is that of its parents without the seed; the seed's variance is that of both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from research.report.records import Record

SEED = re.compile(r"/seed\d+(?=/|$)")


def with_common_parents(records: Sequence[Record]) -> list[Record]:
    """The records, those of one system under one name of what they begin with."""
    named = list(records)
    names = [str(record.config["model"]["name"]) for record in records]
    roots = [SEED.sub("", name).removesuffix("/model") for name in names]
    for root in dict.fromkeys(roots):
        places = [i for i, other in enumerate(roots) if other == root]
        own = all(names[i] == SEED.sub(f"/seed{records[i].seed}", names[i]) for i in places)
        if own and len({names[i] for i in places}) > 1:
            for i in places:
                named[i] = replace(records[i], parents=root)
    return named
