"""Distillation from recorded logits: the formula, the record, and the teachers that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.config.component import choose, load
from research.methods.distil import divergence
from research.methods.recorded_logits import FILE, RecordedLogits, facts_of
from research.training.module import TaskModule
from tests.methods.conftest import Build, random_teacher
from tests.small_runs import TASKS, SmallRuns

DISTIL: dict[str, Any] = {"alpha": 0.25, "temperature": 3.0}


def test_divergence_is_that_of_torch_and_leaves_missing_classes_out() -> None:
    z, v = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.kl_div(F.log_softmax(z, 1), F.softmax(v, 1), reduction="sum")
    assert float(divergence(z, v)) == pytest.approx(float(expected), rel=1e-12)
    z.requires_grad_()
    lost = torch.full((5, 2), -torch.inf, dtype=torch.float64)
    (wide := divergence(torch.cat([z, lost], 1), v)).backward()
    assert float(wide.detach()) == pytest.approx(float(expected), rel=1e-12)
    torch.testing.assert_close(z.grad, F.softmax(z, 1).detach() - F.softmax(v, 1))  # Hinton's gradient, at T = 1


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_loss_is_the_papers(task: str, make: Build, tmp_path: Path) -> None:
    """(1 - alpha) CE + alpha T^2 KL, of examples in any order."""
    plain = make(task).eval()
    random_teacher(plain, tmp_path / "teacher")
    own = {"distil": {**DISTIL, "teacher": str(tmp_path / "teacher")}}
    module, teacher = make(task, methods=own).eval(), RecordedLogits.read(str(tmp_path / "teacher"))
    rows = np.array([7, 3, 11])
    micro = pack(module.data.stores["train"], rows)
    loss, outputs = plain.loss(micro)
    students, together = plain.target_logits(micro, outputs), teacher.of(rows)
    apart = [teacher.of(np.array([row])) for row in rows]
    terms = []
    for d, z in enumerate(students):
        assert together[d].shape == z.shape and bool(((together[d] == -torch.inf) == (z == -torch.inf)).all())
        assert [len(part[d]) for part in apart] == [int((plain.target_examples(micro) == row).sum()) for row in rows]
        for mine, theirs in zip(z, (row for part in apart for row in part[d]), strict=True):
            mine, theirs = mine[mine > -torch.inf], theirs[theirs > -torch.inf]
            terms.append(F.kl_div(F.log_softmax(mine / 3, 0), F.softmax(theirs / 3, 0), reduction="sum"))
    expected = 0.75 * loss + 0.25 * 9 * torch.stack(terms).sum() / len(students)
    assert float(module.training_loss(micro)[0].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_other_teachers_are_refused_in_a_sentence(make: Build, tmp_path: Path) -> None:
    run, module = tmp_path / "teacher", make("sentiment")
    method = load("method", "distil").Method

    def refused(said: str, teacher: str | None = str(run)) -> None:
        with pytest.raises(UserError, match=said):
            method(choose("method", "distil", teacher=teacher, **DISTIL)).on_model(module)

    refused("needs a teacher: set methods.distil.teacher", None)
    refused("is no finished run: it has no result.json")
    random_teacher(module, run)
    content = (run / FILE).read_bytes()
    (run / FILE).unlink()
    refused(f"write them once by `research evaluate {run} --split train --logits`")
    (run / FILE).write_bytes(b"no tensors")
    refused(r"train.safetensors is damaged .*; remove it and record the logits again")
    (run / FILE).write_bytes(content)
    (run / "result.json").write_text("{ }")
    refused(r"is of an earlier training of .*; remove it and record the logits again")


@pytest.mark.slow
def test_teachers_of_other_labels_or_data_are_refused(make: Build, tmp_path: Path) -> None:
    module = make("sentiment")
    random_teacher(module, tmp_path / "teacher")
    others = {
        "labels": (["bad", "good"], "its labels are bad, good; here they are negative, positive"),
        "rows": ("0" * 64, "its training data are of another file, or an edited one"),
        "drawn": ("stratified 8, seed 0", "its training data are stratified 8, seed 0; here all rows"),
        "examples": (8, "its training data are 8 examples; here 40"),
        "encoded_xxh3": ("0", r"its windows are cut otherwise; tokenizer and data\.max_length must be the teacher's"),
    }
    for name, (other, said) in others.items():
        teacher = RecordedLogits.read(str(tmp_path / "teacher"))
        teacher.refuse_other(module)
        teacher.facts[name] = other
        with pytest.raises(UserError, match=f"teacher, a run of other labels or data: {said}"):
            teacher.refuse_other(module)
    qa = make("qa")
    assert qa.targets_are_tokens and facts_of(qa.data, "train", True)["encoded_xxh3"] == qa.data.stores["train"].digest


def test_a_task_that_does_not_say_whose_its_logits_are_cannot_be_recorded(make: Build) -> None:
    with pytest.raises(UserError, match="task 'sentiment' does not say whose its logits are"):
        TaskModule.target_examples(make("sentiment"), None)


@pytest.mark.slow
def test_a_student_learns_from_a_run_of_the_harness(
    small_runs: SmallRuns, make: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    """Record once, read, train: trained on the teacher's answers alone, a student agrees with it in the end."""
    teacher = small_runs.train("ner", "optim.max_steps=40")
    command = ["evaluate", str(teacher.path), "--split", "train", "--logits"]
    assert main([*command[:3], "test", "--logits"]) == 2
    assert main(command) == 0 and main(command) == 2
    said = capsys.readouterr().err
    assert "--logits are those of the training data, which a student learns from; say --split train, not test" in said
    assert "train.safetensors is there already; remove it to record the logits again" in said
    recorded = RecordedLogits.read(str(teacher.path))
    own = {"distil": {"alpha": 1.0, "temperature": 2.0, "teacher": str(teacher.path)}}
    student = small_runs.train("ner", "optim.max_steps=40", "seed=3", methods=own)
    losses = [row["train/loss"] for row in student.metrics() if "train/loss" in row]
    assert losses[-1] < losses[0] / 5
    assert (
        recorded.facts["examples"] == 40
        and recorded.facts["labels"] == json.loads((teacher.path / "result.json").read_text())["learned"]["labels"]
    )
