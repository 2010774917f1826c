"""Ranks that share one model out, with adapters and methods: equal to one process, or refused."""

from __future__ import annotations

import pytest

from research.cli import main
from tests.small_runs import SmallRuns, assert_same_up_to_rounding, losses

FSDP = "trainer.strategy=fsdp"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("override", ["adapter={name: lora, rank: 4}", "methods.fgm.epsilon=0.5"])
def test_an_adapter_or_method_trains_a_model_that_is_shared_out(override: str, small_runs: SmallRuns) -> None:
    alone = small_runs.train("sentiment", override)
    shared = small_runs.train_ranks("sentiment", 2, FSDP, override)
    assert len(losses(shared)) == 6
    assert_same_up_to_rounding(shared, alone)


@pytest.mark.parametrize(
    ("override", "named"), [("methods.ema.decay=0.9", "methods.ema"), ("adapter=adalora", "adapter=adalora")]
)
def test_what_needs_whole_weights_or_gradients_is_refused(
    override: str, named: str, small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, _ = small_runs.arguments("sentiment", [FSDP, override], {})
    assert main(arguments) == 2
    assert f"{named} does not go with trainer.strategy=fsdp; use ddp." in capsys.readouterr().err
