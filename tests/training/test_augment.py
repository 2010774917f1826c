"""Augmented training: belongs to (seed, epoch, id), and nothing else is changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.batching.plan import Indices
from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.methods.recorded_logits import FILE
from research.tracking.own_code import users_files
from research.tracking.run import Run
from research.training.build import build, open_data
from research.training.checkpoint import Checkpoint
from research.training.resume import identity_of, refuse_other_identity
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding

ALL: dict[str, Any] = {"delete": {"rate": 0.3}, "swap": {"share": 1.0}, "word_dropout": {}}
OF_NAMES: dict[str, Any] = {"entity": {"share": 1.0, "rate": 0.9}, "delete": {"rate": 0.3}}
OFF: dict[str, Any] = {"delete": {"rate": 0.0}, "swap": {"share": 0.0}, "entity": {"rate": 0.0}}


def config(small_runs: SmallRuns, task: str, *overrides: str, **sections: Any) -> Any:
    (_, path, *given), _ = small_runs.arguments(task, overrides, sections)
    return load_config(path, given)


def ids(store: Any, rows: Indices) -> list[list[int]]:
    return [row.tolist() for row in store.columns["input_ids"].rows(rows)]


@pytest.mark.slow
def test_texts_belong_to_seed_epoch_and_id(small_runs: SmallRuns, tmp_path: Path) -> None:
    """Another order of the file's rows, or fewer of them, changes no example's texts."""
    data = open_data(config(small_runs, "ner", augment=OF_NAMES))
    rows = np.arange(40)
    plain, first, second = (ids(store, rows) for store in (data.stores["train"], data.epochs(0), data.epochs(1)))
    assert data.epochs(0) is data.training_store(9) and data.epochs(1) is data.training_store(10)  # 40 rows, 4 a step
    assert sum(a != b for a, b in zip(plain, first, strict=True)) > 20
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 20
    few = open_data(config(small_runs, "ner", "data.max_train_examples=11", "data.sample=first", augment=OF_NAMES))
    assert ids(few.epochs(1), rows[:11]) == second[:11]
    other = open_data(config(small_runs, "ner", "seed=1", augment=OF_NAMES))
    assert ids(other.epochs(1), rows) != second
    unchanged = open_data(config(small_runs, "ner"))
    for split, count in (("validation", 21), ("test", 13)):
        assert len(data.stores[split]) == count
        for other in (few, unchanged):
            assert data.stores[split].digest == other.stores[split].digest
            assert ids(data.stores[split], rows[:count]) == ids(other.stores[split], rows[:count])


def test_labels_of_tokens_stay_right(small_runs: SmallRuns) -> None:
    """The tokenizer's words and the labels of an augmented store are those of `changed`."""
    data = open_data(config(small_runs, "ner", augment={**OF_NAMES, "swap": {"share": 1.0}}))
    store, labels = data.epochs(3), {i: tag for i, tag in enumerate(data.labels)}
    for row in range(40):
        [words] = data.epochs.changed(row, 3)
        [tokens], [label] = (store.columns[name].rows(np.array([row])) for name in ("input_ids", "label"))
        assert [labels[i] for i in label.tolist() if i >= 0] == [word.tag for word in words]
        assert store.targets[row] == len(words)
        text = data.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        assert text.replace(" ", "") == "".join(word.text for word in words).lower().replace(" ", "")


def test_switched_off_it_is_not_there(small_runs: SmallRuns) -> None:
    assert open_data(config(small_runs, "sentiment", augment=OFF)).epochs is None
    written = config(
        small_runs, "sentiment", "data.augment.delete.rate=0.2", data={"train": "a.jsonl", "augment": {"swap": {}}}
    )
    assert {name: keys.rate for name, keys in written.augment.items()} == {"swap": 0.1, "delete": 0.2}


@pytest.mark.slow
def test_what_is_not_augmented_is_refused(small_runs: SmallRuns, tmp_path: Path) -> None:
    for task in ("qa", "choice"):
        with pytest.raises(UserError, match=f"augment: task '{task}' is not augmented, for its answers are places"):
            open_data(config(small_runs, task, augment=ALL))
    for name, own in (("mixup", {}), ("distil", {"teacher": str(tmp_path)})):
        with pytest.raises(
            UserError, match=f"methods.{name} does not go with augment: it reads training texts as they"
        ):
            build(config(small_runs, "sentiment", augment=ALL, methods={name: own}))
    with pytest.raises(UserError, match=r"augmentation=swop must be one of .*Did you mean swap"):
        config(small_runs, "sentiment", augment={"swop": {}})
    with pytest.raises(UserError, match=r"augment.delete.rate=1.0 must be in \[0, 1\)"):
        config(small_runs, "sentiment", augment={"delete": {"rate": 1.0}})
    assert not (tmp_path / FILE).exists()


@pytest.mark.slow
def test_a_run_with_an_edited_table_is_another_one(small_runs: SmallRuns, tmp_path: Path) -> None:
    table, own = tmp_path / "table.tsv", tmp_path / "reverse.py"
    own.write_text("from research.data.augment.swap import Augmentation, Keys\n")
    augment = {"synonym": {"table": str(table)}, str(own): {}}
    found = []
    for content in ("good\tfine\n", "good\tfine\tgreat\n"):
        table.write_text(content)
        found.append(identity_of(build(config(small_runs, "sentiment", augment=augment))))
        assert found[-1]["files of augment"] == {"synonym.table": hashlib.sha256(content.encode()).hexdigest()}
    saved = Checkpoint(tmp_path, 3, {"identity": found[0]})
    refuse_other_identity(saved, found[0])
    with pytest.raises(UserError, match=r"is of another experiment: files of augment: {'synonym.table': "):
        refuse_other_identity(saved, found[1])
    assert users_files(config(small_runs, "sentiment", augment=augment), "accuracy") == {"augmentation reverse": own}


@pytest.mark.slow
@pytest.mark.process
def test_layout_ranks_and_kills_change_nothing(small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """Over two epochs, killed in the second."""
    start = ("optim.batch_size=24", "optim.max_steps=4", "optim.balance_classes=true")
    reference = small_runs.train("ner", *start, augment=OF_NAMES)
    assert "augment: entity, delete; other texts in each epoch" in capsys.readouterr().err
    plain = small_runs.train("ner", *start)
    assert [row["train/loss"] for row in plain.metrics() if "train/loss" in row] != [
        row["train/loss"] for row in reference.metrics() if "train/loss" in row
    ]
    one_by_one = ("trainer.tokens_per_microbatch=1", "trainer.packing=false", "data.num_workers=3")
    assert_same_up_to_rounding(small_runs.train("ner", *start, *one_by_one, augment=OF_NAMES), reference)
    assert_same_up_to_rounding(small_runs.train_ranks("ner", 2, *start, augment=OF_NAMES), reference)
    arguments, folder = small_runs.stopped(3, "ner", *start, augment=OF_NAMES)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)
