"""Splits of hub data sets, and what to tell a person when the hub cannot serve one."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import huggingface_hub

from research.common.errors import UserError
from research.common.hub import hub_answers


def load_hub(name: str, config: str | None, split: str, revision: str | None) -> datasets.Dataset:
    """Rows of a split expression of a hub data set, or of a local folder in the hub's format.

    Without network, what was downloaded before is served at once; UserError if there is nothing.
    """
    try:
        if os.path.isdir(name):
            return datasets.load_dataset(name, config, split=split, revision=revision)
        if hub_answers():
            return datasets.load_dataset(name, config, split=split, revision=revision)
        with _offline():
            rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except ConnectionError:
        raise UserError(_unreachable(name)) from None
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"{name}: {_first_line(error)} Check the name, or log in with `hf auth login`") from None
    except (datasets.exceptions.DatasetsError, ValueError, RuntimeError, OSError) as error:
        lost = "LocalEntryNotFoundError" in str(error)  # something answers, but it is not the hub
        raise UserError(_unreachable(name) if lost else f"{name} ({split}): {_remedy(error)}") from None
    _check_revision(name, revision, rows)
    return rows


def _unreachable(name: str) -> str:
    return (
        f"{name}: the hub ({huggingface_hub.constants.ENDPOINT}) cannot be reached and no copy of this "
        "data set is in the cache; give a local file, or run `research prepare` first where there is network"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _remedy(error: BaseException) -> str:
    message = _first_line(error)
    if "scripts are no longer supported" in message:
        return "comes as a loading script, which is no longer run; try the revision refs/convert/parquet"
    if isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__ is not None:
        message = f"its files cannot be read ({_first_line(error.__cause__)})"
    return f"{message}; check the split, the configuration and the revision"


@contextmanager
def _offline() -> Iterator[None]:
    """The libraries' offline mode, which they read from the environment only when imported."""
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _check_revision(name: str, revision: str | None, rows: datasets.Dataset) -> None:
    """Offline, `datasets` serves its newest copy whatever the revision: refuse another commit."""
    folders = [folder for file in rows.cache_files for folder in file["filename"].split(os.sep)]
    if revision and re.fullmatch("[0-9a-f]{40}", revision) and revision not in folders:
        raise UserError(
            f"{name}: the hub cannot be reached and the copy in the cache is not of revision {revision}; "
            "run `research prepare` on a machine with network first"
        )
