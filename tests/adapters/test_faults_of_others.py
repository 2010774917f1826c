"""Known mistakes of other trainers of adapters and methods: none is made here.

AdaLoRA that never reallocates, or is lost at a resume     test_adalora.py: ranks differ; test_adapters.py: resumed
an adapter on a checkpoint without a pooler                below
heads that are not saved (ModernBERT's for QA)             test_adapters.py: heads that peft forgets, resumed
DoRA's magnitudes, lost by AutoModel (0.002 to 0.01 off)   test_adapters.py: merged and adapter give the same outputs
an adapted model that is wrapped again                     test_adapters.py, test_unmerged.py: refused
nothing trained, without a word                            test_adapters.py: refused; BitFit without biases too
a scale that is merged twice                               test_adapters.py: the export is what peft itself merges
a prompt or prefix beyond the positions                    test_unmerged.py: refused before training
prefix with gradient checkpointing                         test_unmerged.py: equal to a run without
dropout that comes back in frozen layers                   tests/training/test_features.py
frozen weights, biases and norms that move                 test_adapters.py, tests/training/test_frozen.py
a Fisher of batches, a head of another size                tests/methods/test_ewc.py
averages that are lost or swapped at a resume              tests/methods/test_every_method.py: killed and resumed
a divergence summed where the loss is a mean               tests/methods/test_every_method.py: micro-batches
label smoothing that is dropped                            tests/tasks/test_extractive_qa.py, test_step.py
a perturbation that is not taken back after an error       tests/methods/test_adversarial.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns

pytestmark = pytest.mark.slow


def test_a_pooler_that_the_checkpoint_lacks_is_kept_with_the_adapter(small_runs: SmallRuns, tmp_path: Path) -> None:
    """Each load of such a checkpoint draws another pooler; the adapter's is the one that was trained."""
    folder = make_tiny_model(tmp_path / "without-pooler")
    file = folder / "model.safetensors"
    save_file({k: w for k, w in load_file(file).items() if "pooler" not in k}, file, {"format": "pt"})
    run = small_runs.train("sentiment", f"model.name={folder}", adapter={"name": "lora", "rank": 2})
    ids, found = torch.arange(10, 30)[None], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(folder)
        with torch.no_grad():
            found.append(PeftModel.from_pretrained(base, run.path / "adapter").eval()(ids).logits)
    merged = AutoModelForSequenceClassification.from_pretrained(run.model).eval()
    with torch.no_grad():
        expected = merged(ids).logits
    for logits in found:
        torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)
