"""What frozen layers put out is computed once: the same run with and without, and the layers rest."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from research.adapters.hooks import layer_stacks
from research.batching.features import OFFSETS, ROWS
from research.cluster.group import RankGroup
from research.cluster.ranks import World
from research.cluster.signals import STOPPED, StopFlag
from research.common.errors import UserError
from research.config.component import choose
from research.config.load import load_config
from research.config.schema import Config
from research.models.load import load_model
from research.training import build
from research.training import run as training
from research.training.feature_files import cache_folder, remove_oldest
from research.training.features import note, reason_against, reuse_features
from tests.small_runs import SmallRuns, assert_same_up_to_rounding, losses

pytestmark = pytest.mark.slow
EPOCHS = "optim.max_steps=12"  # of 4 examples: 40 are an epoch
QUIET = "model.frozen_dropout=false"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Grows with each pass through the lowest layer's feed-forward."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    counted: list[int] = []

    def counting(config: Config, *given: Any) -> Any:
        model = load_model(config, *given)
        lowest: Any = layer_stacks(model)[0][1][0]
        lowest.intermediate.register_forward_hook(lambda module, args, output: counted.append(1))
        return model

    monkeypatch.setattr(build.build, "__defaults__", (None, None, counting))
    return counted


@pytest.mark.parametrize(
    ("task", "adapter", "last_layer"), [("sentiment", "head", "all"), ("ner", "head", "read"), ("ner", "freeze", "all")]
)
def test_a_run_on_kept_features_is_the_run_without(
    small_runs: SmallRuns, passes: list[int], task: str, adapter: str, last_layer: str
) -> None:
    section: dict[str, Any] = {"adapter": {"name": adapter, **({"layers": 1} if adapter == "freeze" else {})}}
    found = []
    for reuse in ("false", "auto", "true"):
        passes.clear()
        keys = (EPOCHS, QUIET, f"trainer.last_layer={last_layer}", f"trainer.reuse_features={reuse}")
        run = small_runs.train(task, *keys, **section)
        found.append((losses(run), run.result["metrics"], len(passes)))
    (without, scores, always), (first, own, once), (again, _, never) = found
    assert first == pytest.approx(without, abs=1e-6) and again == first
    for split in ("validation", "test"):
        assert own[split] == pytest.approx(scores[split], abs=1e-6)
    assert always > once > never
    tokens = {len(np.load(file)) for file in cache_folder().glob(f"*/{ROWS}")}  # one file a split
    assert len(tokens) == 3
    if task == "sentiment":
        assert tokens == {40, 21, 13}  # the first token of each text
    kept_bytes = sum(file.stat().st_size for file in cache_folder().glob("*/*"))
    remove_oldest(kept_bytes - 1)
    assert len(list(cache_folder().iterdir())) == 2


def test_damaged_features_are_computed_again_and_foreign_files_left(small_runs: SmallRuns, passes: list[int]) -> None:
    def train(*more: str) -> tuple[list[float], int]:
        passes.clear()
        return losses(small_runs.train("sentiment", EPOCHS, *more, adapter="head")), len(passes)

    assert train("trainer.reuse_features=auto")[1] > 12 and not cache_folder().exists()  # the key alone starts it
    first, all_passes = train(QUIET)
    rows, ends = sorted(cache_folder().glob(f"*/{ROWS}")), sorted(cache_folder().glob(f"*/{OFFSETS}"))
    content = bytearray(rows[0].read_bytes())
    content[-2] ^= 64  # one bit
    rows[0].write_bytes(content)
    rows[1].write_bytes(rows[1].read_bytes()[:-8])
    ends[2].write_bytes(b"")
    (cache_folder() / "notes.txt").write_text("of somebody else")
    assert train(QUIET) == (first, all_passes)
    again, resting = train(QUIET)
    assert again == first and resting < all_passes
    assert (cache_folder() / "notes.txt").exists() and len(list(cache_folder().iterdir())) == 4
    for file in cache_folder().glob("*/*"):
        file.unlink()
    for folder in cache_folder().iterdir():
        if folder.is_dir():
            folder.rmdir()
            folder.write_text("a file where the folder was")
    assert train(QUIET)[0] == first


@pytest.mark.process
def test_two_ranks_read_what_the_first_of_them_computed(small_runs: SmallRuns, passes: list[int]) -> None:
    """The first run computes them, the second finds them; `true` refuses to go on without."""
    section: dict[str, Any] = {"adapter": {"name": "freeze", "layers": 1}}
    without = small_runs.train("ner", EPOCHS, QUIET, "trainer.reuse_features=false", **section)
    for _ in range(2):
        run = small_runs.train_ranks("ner", 2, EPOCHS, QUIET, "trainer.reuse_features=true", **section)
        assert_same_up_to_rounding(run, without)


def module_of(small_runs: SmallRuns, model: Path, task: str, **sections: Any) -> Any:
    config = Config(task=choose("task", task), adapter=choose("adapter", "freeze", layers=1))
    config.model.name, config.model.frozen_dropout = str(model), False
    for name, value in {**small_runs.data["sentiment"], "max_length": 48}.items():
        setattr(config.data, name, value)
    config.trainer.precision = "fp32"
    for name, value in sections.items():
        section, key = name.split("__")
        setattr(getattr(config, section), key, value)
    return build.build(config).train()


def test_frozen_layers_have_no_dropout_where_that_is_asked_for(small_runs: SmallRuns, tiny_model: Path) -> None:
    module = module_of(small_runs, tiny_model, "sentiment")
    stack = layer_stacks(module.backbone.model)[0][1]
    dropouts = [[m.training for m in layer.modules() if isinstance(m, nn.Dropout)] for layer in stack]
    assert not any(dropouts[0]) and all(all(each) for each in dropouts[1:]) and module.training
    assert "the lowest 1 layers" in note(module, reason_against(module))
    for keys, why in (
        ({"trainer__features_gib": 1e-9}, "more than trainer.features_gib"),
        ({"optim__max_steps": 1}, "shorter than an epoch"),
    ):
        assert why in str(reason_against(module_of(small_runs, tiny_model, "sentiment", **keys)))


def test_a_worker_that_was_stopped_between_two_runs_computes_no_features(
    small_runs: SmallRuns, passes: list[int]
) -> None:
    (_, experiment, run_dir, *keys), folder = small_runs.arguments("sentiment", (EPOCHS, QUIET), {"adapter": "head"})
    with StopFlag() as flag:
        flag.signal = signal.SIGTERM
        assert training.train(load_config(experiment, [run_dir, *keys]), stop_flag=flag) == STOPPED
        assert not cache_folder().exists() and not list(folder.glob("checkpoints/*"))
        flag.signal = None
        assert training.train(load_config(experiment, [run_dir, *keys]), stop_flag=flag) == 0
        assert cache_folder().exists()


def test_ranks_follow_the_first_one_in_whether_features_are_reused(
    small_runs: SmallRuns, tiny_model: Path, passes: list[int]
) -> None:
    """A rank that waited for one without features would wait indefinitely."""
    store = dist.HashStore()
    store.set("choice/1", json.dumps("the disk of the first rank is full"))
    store.set("done/1/0", "")
    second = RankGroup(World(rank=1, size=2, local_rank=1, local_size=2), store)
    module = module_of(small_runs, tiny_model, "sentiment", trainer__reuse_features=True)
    with pytest.raises(UserError, match=r"trainer.reuse_features=true: the disk of the first rank is full\."):
        reuse_features(module, second, torch.device("cpu"), nullcontext)
    assert not cache_folder().exists()
