"""Label new text with a finished run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from research.common.errors import UserError
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.inference.inputs import as_file, read_as_asked
from research.inference.outputs import writer_of
from research.tracking import predictions
from research.tracking.run import Run
from research.training.build import build
from research.training.trainer import make_trainer

log = logging.getLogger("research")
_MOST_NAMED = 10  # labels


def predict(
    run: Run,
    source: str | None,
    target: str,
    *,
    texts: Sequence[str] = (),
    overrides: Sequence[str] = (),
    escape_formulas: bool = False,
    trust_remote_code: bool = False,
) -> int:
    """Label a file, standard input (`-`) or `texts` with a finished run; returns the number of rows.

    The suffix of `target` is its format; `-` is JSON lines on standard output. `overrides` say how the input is read,
    as in `data.columns.text=body`. Raises UserError for what cannot be read or written.
    """
    writer_of(target, (), escape_formulas)  # a folder that cannot be written is reported first
    config = finished_config(run, trust_remote_code)
    read_as_asked(config, source, overrides)
    data = task_data(run, config)
    with as_file(data, source, texts) as path:
        try:
            data.open_input(path, finished_result(run)["learned"])
        except UserError as error:
            raise UserError(str(error).replace(path, source or "--text")) from None
        module = build(config, data)
        make_trainer(config, [], []).predict(module, datamodule=data, return_predictions=False)
        split = data.splits["input"]
        columns = data.table(split, module.gathered_predictions()[0])
        if not set(data.gold) & set(split.rows.column_names):
            del columns["gold"]
        elif data.scorer.has_labels:
            warn_of_unknown_labels(split.origin.replace(path, source or "--text"), columns["gold"], data.labels)
        table = predictions.make_table(split, columns, data.metric_name, data.score_settings())
    writer_of(target, data.labels, escape_formulas)(table)
    return int(table.num_rows)


def warn_of_unknown_labels(origin: str, golds: Sequence[str | None], known: Sequence[str]) -> None:
    """Say which gold labels the run has not, for its predictions cannot be right there."""
    counts = Counter(gold for gold in golds if gold is not None and gold not in known)
    if counts:
        named = ", ".join(f"'{label}' ({count:,})" for label, count in counts.most_common(_MOST_NAMED))
        log.warning(
            "%s: %s of %s gold labels are none of the run's (%s): %s; no prediction can be right there.",
            origin, f"{counts.total():,}", f"{len(golds):,}", ", ".join(known[:_MOST_NAMED]), named,
        )  # fmt: skip
