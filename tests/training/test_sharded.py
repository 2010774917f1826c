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


def test_an_average_of_weights_that_are_shared_out_is_refused(
    small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, _ = small_runs.arguments("sentiment", [FSDP, "methods.ema.decay=0.9"], {})
    assert main(arguments) == 2
    assert "methods.ema does not go with trainer.strategy=fsdp; use ddp." in capsys.readouterr().err
