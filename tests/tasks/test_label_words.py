"""Labels as words and hypotheses: the scores are those of the model itself, at the mask, of a pair, after a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.training.build import build as build_module
from tests.conftest import copied, make_tiny_model, write_experiment, write_jsonl
from tests.small_runs import SmallRuns, weights
from tests.tasks.test_conformance import INFERENCE
from tests.tasks.test_translation import make_model

ROWS = [{"text": "very good film " * (1 + i % 3), "label": "pos" if i % 2 else "neg"} for i in range(8)]
WORDS = "task.verbalizer={pos: good, neg: bad}"


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model with its head."""
    folder = make_tiny_model(tmp_path_factory.mktemp("masked") / "model")
    torch.manual_seed(1)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    return folder


def build(folder: Path, task: str, model: Path, *overrides: str, rows: Any = ROWS) -> Any:
    file = str(write_jsonl(folder / "rows.jsonl", rows))
    data = {"train": file, "validation": copied(file), "max_length": 48, "max_overlap": 1.0}
    write_experiment(folder / "e.yaml", task, model, data, optim={"max_steps": 0})
    return build_module(load_config(folder / "e.yaml", overrides)).eval()


def outputs(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        store = module.data.stores["validation"]
        found: torch.Tensor = module.outputs(pack(store, np.arange(len(store)), module.backbone.packed))
    return found


@pytest.mark.slow
def test_the_logits_of_a_cloze_are_the_models_own_at_the_mask(tmp_path: Path, masked: Path) -> None:
    module = build(tmp_path, "prompt", masked, WORDS)
    tokenizer, model = AutoTokenizer.from_pretrained(masked), AutoModelForMaskedLM.from_pretrained(masked).eval()
    texts = [f"{row['text']} It was [MASK]." for row in ROWS]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**tokens).logits[tokens["input_ids"] == tokenizer.mask_token_id]
    expected = logits[:, tokenizer.convert_tokens_to_ids(["bad", "good"])]
    assert module.backbone.packed and module.data.labels == ["neg", "pos"]
    assert torch.allclose(outputs(module), expected, atol=1e-5)
    padded = build(tmp_path, "prompt", masked, WORDS, "trainer.packing=false")
    assert torch.allclose(outputs(padded), expected, atol=1e-5)
    calibrated = outputs(build(tmp_path, "prompt", masked, WORDS, "task.calibrate=true"))
    free = tokenizer([f"{text} It was [MASK]." for text in ("N/A", " ", "")], padding=True, return_tensors="pt")
    with torch.inference_mode():
        at_mask = model(**free).logits[free["input_ids"] == tokenizer.mask_token_id]
    own = at_mask[:, tokenizer.convert_tokens_to_ids(["bad", "good"])]
    assert torch.allclose(calibrated.softmax(-1), divided(expected, own), atol=1e-5)
    assert not torch.allclose(calibrated.softmax(-1), expected.softmax(-1), atol=1e-4)


def divided(scores: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Probabilities (E, C) over the mean of those of texts without content, normalised: Zhao et al. 2021."""
    quotient = scores.softmax(-1) / free.softmax(-1).mean(0)
    return quotient / quotient.sum(-1, keepdim=True)


@pytest.mark.slow
def test_a_cloze_of_a_pair(tmp_path: Path, masked: Path) -> None:
    """Both texts are in the template; those without content stand for both."""
    rows = [{**row, "text_pair": f"a bad book {i}"} for i, row in enumerate(ROWS)]
    template = "task.template={text} is {mask} for {text_pair}"
    tokenizer, model = AutoTokenizer.from_pretrained(masked), AutoModelForMaskedLM.from_pretrained(masked).eval()

    def at_mask(pairs: list[tuple[str, str]]) -> torch.Tensor:
        tokens = tokenizer([f"{a} is [MASK] for {b}" for a, b in pairs], padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**tokens).logits[tokens["input_ids"] == tokenizer.mask_token_id]
        found: torch.Tensor = logits[:, tokenizer.convert_tokens_to_ids(["bad", "good"])]
        return found

    expected = at_mask([(row["text"], row["text_pair"]) for row in rows])
    assert torch.allclose(outputs(build(tmp_path, "prompt", masked, WORDS, template, rows=rows)), expected, atol=1e-5)
    calibrated = outputs(build(tmp_path, "prompt", masked, WORDS, template, "task.calibrate=true", rows=rows))
    free = at_mask([("N/A", "N/A"), (" ", " "), ("", "")])
    assert torch.allclose(calibrated.softmax(-1), divided(expected, free), atol=1e-5)
    with pytest.raises(UserError, match=r"task.template names {text_pair}, but the columns of .* are text"):
        build(tmp_path, "prompt", masked, WORDS, template)


@pytest.mark.slow
def test_a_long_text_keeps_the_mask_and_its_own_masks_are_none(tmp_path: Path, masked: Path) -> None:
    rows = [{"text": "good [MASK] film " * 40, "label": "pos"}, {"text": "bad", "label": "neg"}]
    for way in ("truncate", "head_tail"):
        data = build(tmp_path, "prompt", masked, WORDS, f"data.long={way}", rows=rows).data
        store, mask = data.stores["train"], data.tokenizer.mask_token_id
        assert store.tokens[0] <= 48 and store.tokens[0] > 44 and data.cut["train"] == 1
        for i in range(2):
            ids, marks = (store.columns[name].rows(np.array([i]))[0] for name in ("input_ids", "mask"))
            assert (ids == mask).sum() == 1 and ((ids == mask) == marks).all()
    with pytest.raises(UserError, match=r"the template alone has .* more than data.max_length=8"):
        build(tmp_path, "prompt", masked, WORDS, "task.template={text} was it good or was it bad {mask}",
              "data.max_length=8")  # fmt: skip


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "task.verbalizer={pos: goods, neg: bad}",
            r"'goods', the word of label 'pos', is not one token .* 2 \(good, #",
        ),
        ("task.verbalizer={pos: good, neg: good}", "'good', the word of label 'pos', is that of label 'neg' too"),
        ("task.verbalizer={pos: good, nag: bad}", "task.verbalizer names nag, but the labels are neg, pos"),
        ("task.template={text} is", "must have one {mask} and a field"),
        ("task.template={mask}", "must have one {mask} and a field"),
        ("task.template={text} {mask} {mask}", "must have one {mask}"),
        ("task.template={body} {mask}", "task.template names {body}, but the columns of .* are text"),
    ],
)
def test_templates_and_words_that_cannot_be(tmp_path: Path, masked: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(tmp_path, "prompt", masked, *([WORDS] if "template" in override else []), override)


@pytest.mark.slow
def test_a_label_is_a_hypothesis(tmp_path: Path, tiny_model: Path) -> None:
    model = make_tiny_model(tmp_path / "nli", **INFERENCE)
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_pretrained(model).save_pretrained(model)
    rows = [{**row, "label": ["film", "book", "city"][i % 3]} for i, row in enumerate(ROWS)]
    (tmp_path / "said.tsv").write_text("book\tbad book\nfilm\tlong film\ncity\t\n")
    keys = ["task.hypothesis=a {label}", "task.descriptions={film: good film}", "data.label_descriptions=said.tsv"]
    module = build(tmp_path, "nli_zero_shot", model, *keys, rows=rows)
    tokenizer, plain = AutoTokenizer.from_pretrained(model), AutoModelForSequenceClassification.from_pretrained(model)
    stated = ["a bad book", "a city", "a good film"]  # of the labels in order

    def entailed(texts: list[str]) -> torch.Tensor:
        each = [text for text in texts for _ in stated]
        tokens = tokenizer(each, stated * len(texts), padding=True, return_tensors="pt")
        with torch.inference_mode():
            found: torch.Tensor = plain.eval()(**tokens).logits[:, 1].view(-1, 3)
        return found

    expected = entailed([row["text"] for row in rows])
    assert torch.allclose(outputs(module), expected, atol=1e-5)
    calibrated = outputs(build(tmp_path, "nli_zero_shot", model, *keys, "task.calibrate=true", rows=rows))
    assert torch.allclose(calibrated.softmax(-1), divided(expected, entailed(["N/A", "[MASK]", ""])), atol=1e-5)
    with pytest.raises(UserError, match="'novel' has a description and is no label; the labels are book, city, film"):
        build(tmp_path, "nli_zero_shot", model, "task.descriptions={novel: long book}", rows=rows)
    with pytest.raises(UserError, match="no label 'entailment' among LABEL_0, LABEL_1; name a model of natural"):
        build(tmp_path, "nli_zero_shot", tiny_model)
    with pytest.raises(UserError, match=r"must name {label}, and nothing else"):
        build(tmp_path, "nli_zero_shot", model, "task.hypothesis=a label")


@pytest.mark.slow
def test_a_decoder_scores_words_after_its_demonstrations(tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    model = make_model(folder, "gpt2")
    keys = ["task.verbalizer={pos: very good, neg: bad}", "task.demonstrations=2", "task.template={text} is"]
    module = build(tmp_path, "in_context", model, *keys, "task.separator= and ", "data.max_length=64")
    shown = module.data.shown
    assert sorted(label for _, label in shown) == ["neg", "pos"]
    before = "".join(f"{text} is {'very good' if label == 'pos' else 'bad'} and " for text, label in shown)
    tokenizer, plain = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()

    def likelihood(text: str, word: str) -> float:
        prompt = tokenizer(f"{before}{text} is")["input_ids"]
        answer = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            log_p = plain(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(float(log_p[len(prompt) - 1 + k, token]) for k, token in enumerate(answer))

    texts = [row["text"] for row in ROWS[:3]]
    expected, free = (
        torch.tensor([[likelihood(text, word) for word in ("bad", "very good")] for text in several])
        for several in (texts, ["N/A", "[MASK]", ""])
    )
    assert torch.allclose(outputs(module)[:3], expected, atol=1e-4)
    again = [*keys, "task.separator= and ", "data.max_length=64", "task.calibrate=true"]
    calibrated = outputs(build(tmp_path, "in_context", model, *again))[:3].softmax(-1)
    assert torch.allclose(calibrated, divided(expected, free), atol=1e-4)
    other = build(tmp_path, "in_context", model, *keys, "seed=5")
    assert other.data.shown != shown
    with pytest.raises(UserError, match=r"task 'in_context' trains nothing: set optim.max_steps=0"):
        build(tmp_path, "in_context", model, "optim.max_steps=1")
    with pytest.raises(UserError, match=r"task.demonstrations=9: there are 8 training examples"):
        build(tmp_path, "in_context", model, "task.demonstrations=9")


@pytest.mark.slow
def test_a_run_without_a_step_or_a_score(small_runs: SmallRuns) -> None:
    """It makes the run folder of a model as it is, which then predicts."""
    data = {"train": small_runs.data["sentiment"]["train"], "max_length": 48}
    run = small_runs.train("sentiment", data=data, optim={"max_steps": 0})
    assert run.result is not None and run.result["steps"] == 0 and not any(run.result["metrics"].values())
    assert main(["predict", str(run.path), "--text", "a film"]) == 0


@pytest.mark.slow
def test_a_run_without_a_step(small_runs: SmallRuns, masked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zero-shot: scores of validation and test, weights as they were; few-shot learns the words; no ONNX."""
    small_runs.model = masked
    words = "task.verbalizer={positive: good, negative: bad}"
    run = small_runs.train("prompt", words, optim={"max_steps": 0})
    assert run.result is not None and run.result["steps"] == 0
    assert {*run.result["metrics"]["validation"]} >= {"accuracy", "loss"} and run.result["metrics"]["test"]
    before = AutoModelForMaskedLM.from_pretrained(masked).state_dict()
    assert all(bool((w == before[name]).all()) for name, w in weights(run).items())
    learned = small_runs.train("prompt", words, optim={"max_steps": 40, "batch_size": 8, "lr": 5e-3})
    assert learned.result is not None and learned.result["metrics"]["test"]["accuracy"] == 1.0
    output = str(run.path.parent / "out")
    assert main(["export", str(run.path), "--output", output, "--format", "onnx"]) == 2
    assert "task 'prompt' scores words at some tokens alone, which --format onnx" in capsys.readouterr().err
    assert main(["export", str(learned.path), "--output", output]) == 0
