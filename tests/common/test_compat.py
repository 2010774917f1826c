"""Each private name of another library still is what `research.common.compat` takes it for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import datasets
import optuna
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from research.common import compat


def test_text_encodings() -> None:
    assert compat.is_text_encoding("utf-8") and compat.is_text_encoding("CP1252")
    assert not compat.is_text_encoding("hex")
    with pytest.raises(LookupError):
        compat.is_text_encoding("no such codec")


def test_native_attention() -> None:
    assert compat.native_attention(BertForSequenceClassification) == "sdpa"
    model = BertForSequenceClassification(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    model._supports_sdpa = False
    assert compat.native_attention(model) == "eager"


def test_dataset_fingerprint_follows_the_content() -> None:
    first, again, other = (datasets.Dataset.from_dict({"a": values}) for values in ([1], [1], [2]))
    assert compat.dataset_fingerprint(first) == compat.dataset_fingerprint(again)
    assert compat.dataset_fingerprint(first) != compat.dataset_fingerprint(other)


def test_foreach() -> None:
    tensors = [torch.tensor([3.0, 4.0]), torch.tensor([[2.0]])]
    assert [float(norm) for norm in compat.foreach_norm(tensors)] == [5.0, 2.0]
    compat.foreach_scale(tensors, torch.tensor(0.5))
    assert tensors[0].tolist() == [1.5, 2.0] and tensors[1].tolist() == [[1.0]]


def test_bf16_instructions_are_those_the_kernel_names() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert compat.multiplies_bf16() == any(flag.endswith("bf16") for flag in flags)


def test_products_with_blocked_weights() -> None:
    layer = torch.nn.Linear(24, 40)
    x = torch.randn(3, 5, 24)
    with torch.inference_mode():
        product = compat.multiply_blocked(x, compat.blocked_weight(layer.weight.detach()), layer.bias)
        torch.testing.assert_close(product, layer(x), atol=1e-5, rtol=0)


def test_optuna_storage_ids_and_distributions() -> None:
    study = optuna.create_study()
    trial = study.ask()
    storage = compat.study_storage(study)
    storage.set_trial_state_values(compat.trial_id(trial), optuna.trial.TrialState.WAITING)
    assert study.trials[0].state == optuna.trial.TrialState.WAITING
    number = optuna.distributions.IntDistribution(1, 9, step=2)
    assert compat.distribution_contains(number, 3) and not compat.distribution_contains(number, 4)
    with pytest.raises(ValueError):
        compat.distribution_contains(optuna.distributions.CategoricalDistribution(["a"]), "b")


@pytest.mark.slow
def test_wandb_core_reads_logs() -> None:
    done = subprocess.run([compat.wandb_core(), "leet", "inspect", "--help"], capture_output=True, text=True)
    assert "--run-file" in done.stdout + done.stderr or "-run-file" in done.stdout + done.stderr


def test_sacrebleu_counts_of_examples_add_up_to_the_corpus() -> None:
    from sacrebleu.metrics.ter import TER

    counts = compat.sacrebleu_statistics(TER(), ["a b", "c"], [["a b c", "b"], ["c"]])
    assert counts.tolist() == [[1.0, 2.0], [0.0, 1.0]]  # edits to the closest reference, their mean length
