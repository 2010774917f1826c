"""Score distributions."""

import numpy as np
import pytest

from research.metrics.score import Score
from research.report.figures.scores import draw_scores, swarm
from research.report.figures.style import applied


def test_dots_that_would_hide_each_other_are_moved_apart() -> None:
    values = np.array([0.80, 0.801, 0.90, 0.802])
    offsets = swarm(values, 0.01)
    assert offsets[2] == 0
    assert len({float(offsets[i]) for i in (0, 1, 3)}) == 3


def test_each_run_is_a_dot_and_the_mean_a_diamond() -> None:
    rows = {"one": np.array([0.7, 0.8, 0.9]), "single": np.array([0.6])}
    with applied():
        axes = draw_scores(rows, "test F1", Score("f1", "F1")).axes[0]
    dots = {line.get_gid(): line.get_xdata().tolist() for line in axes.lines if line.get_gid()}
    assert dots == {"one": [0.7, 0.8, 0.9], "single": [0.6]}
    diamonds = [line.get_xdata() for line in axes.lines if line.get_marker() == "D"]
    assert len(diamonds) == 1 and diamonds[0] == pytest.approx([0.8])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "single"]
