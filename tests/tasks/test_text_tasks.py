"""What the tasks with text answers read and learn: templates, references, files, what is cut and what not.

The numbers of faults are those of a list of known mistakes in other trainers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from research.cli import main
from research.common.errors import UserError
from tests.tasks.test_translation import make_model, text
from tests.tasks.text_experiments import Rows, configured, first_row, opened

# --- templates ---------------------------------------------------------------------------------------


def test_a_template_names_fields_columns_and_the_data_s_own_names(tmp_path: Path) -> None:
    task = {"name": "summarization", "template": "{topic} : {document} ! "}
    rows = [{"document": "good film", "topic": "a river", "summary": "bad"}]
    data = opened(tmp_path, task, rows, "data.columns={source: document, target: summary}")
    read, predicted, prompt = first_row(data)
    assert prompt == ["[CLS]", "a", "river", ":", "good", "film", "!"] and predicted == ["bad", "[SEP]"]
    assert read == [*prompt, "bad"]


def test_a_template_may_do_without_the_source(tmp_path: Path) -> None:
    """Alpaca as prompt and completion; the rendered prompt is the source in predictions and overviews."""
    task = {"name": "generation", "template": "{instruction} {input} :"}
    rows = [{"instruction": "where", "input": "Oslo", "output": "a city"}, {"instruction": "who", "output": "Anna"}]
    data = opened(tmp_path, task, rows, "data.columns={target: output}")
    assert first_row(data)[2] == ["[CLS]", "where", "oslo", ":"]
    assert first_row(data, 1)[2] == ["[CLS]", "who", ":"]  # a missing input is empty
    assert data.splits["train"].rows["source"][:] == ["where Oslo :", "who  :"]
    assert data.overview["train"].duplicates == 0


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "{documents}",
            r"task.template names \{documents\}, but the columns of .* are document,.*mean \{document\}",
        ),
        ("{source", "expected '}' before end of string; write a brace of the text itself twice"),
        ("{source!r}", "braces hold the name of a field or column and nothing else"),
    ],
)
def test_bad_templates(template: str, sentence: str, tmp_path: Path) -> None:
    rows = [{"document": "good", "source": "good", "target": "bad"}]
    with pytest.raises(UserError, match=sentence):
        opened(tmp_path, {"name": "summarization", "template": template}, rows)


def test_training_and_generation_read_the_same_prompt(tmp_path: Path) -> None:  # fault 17
    """Prompt and target are encoded apart: no token of the prompt depends on the target that follows."""
    rows = [{"prompt": "Answer: ", "completion": "yes"}, {"prompt": "go", "completion": "od film"}]
    data = opened(tmp_path, {"name": "generation", "template": "{source}"}, rows)
    alone = data.tokenizer("go", add_special_tokens=True)["input_ids"][:-1]
    read, predicted, prompt = first_row(data, 1)
    assert prompt == text(data.tokenizer, alone) == read[: len(prompt)]  # not the "good" of "go" + "od"
    assert predicted == ["o", "##d", "film", "[SEP]"]


@pytest.mark.parametrize("long", ["truncate", "head_tail"])
def test_a_long_document_is_cut_and_never_the_template_or_the_target(long: str, tmp_path: Path) -> None:  # fault 18
    words = " ".join(["film", "book", "city", "river"] * 20)
    rows = [{"source": words, "target": "good bad"}, {"source": "film", "target": "good"}]
    task = {"name": "summarization", "template": "a : {source} ! of"}
    data = opened(tmp_path, task, rows, f"data.long={long}")
    _, predicted, prompt = first_row(data)
    assert len(prompt) == 31 and predicted == ["good", "bad", "[SEP]"]  # with the end token cut off it is 32
    assert prompt[:3] == ["[CLS]", "a", ":"] and prompt[-2:] == ["!", "of"]
    assert prompt[3:7] == ["film", "book", "city", "river"]
    assert (prompt[-3] == "river") is (long == "head_tail")
    assert data.cut == {"train": 1, "validation": 1}


def test_a_template_longer_than_max_length_is_refused(tmp_path: Path) -> None:
    task = {"name": "summarization", "template": "a b c d e f g h {source}"}
    with pytest.raises(UserError, match=r"rows.jsonl, the template alone has 10 tokens, more than data.max_length=8"):
        opened(tmp_path, task, [{"source": "film", "target": "good"}], "data.max_length=8")


# --- targets -----------------------------------------------------------------------------------------


def test_the_end_is_a_target_where_padding_is_the_same_token(tmp_path: Path) -> None:  # fault 3
    model = make_model(tmp_path / "eos", "gpt2", pad_token_id=3)
    data = opened(tmp_path, {"name": "generation"}, [{"prompt": "a", "completion": "good film"}], model=model)
    assert data.end == data.own.pad_token_id == 3
    assert first_row(data)[1] == ["good", "film", "[SEP]"] and data.stores["train"].targets.tolist() == [3.0]


def test_several_references_are_scored_and_the_first_is_learned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line says of which split the rows have not equally many."""
    rows: Rows = [
        {"source": "film", "target": ["good", "very good"]},
        {"source": "book", "target": "bad", "other": "not good"},
        {"source": "city", "other": "a city"},
    ]
    data = opened(tmp_path, {"name": "summarization", "references": ["other"]}, rows)
    assert [first_row(data, i)[1] for i in range(3)] == [["good", "[SEP]"], ["bad", "[SEP]"], ["a", "city", "[SEP]"]]
    said = {"text": "good", "ended": True, "stopped_by": "end", "others": []}
    table = data.table(data.splits["train"], {i: said for i in range(3)})
    assert table["gold"] == [["good", "very good"], ["bad", "not good"], ["a city"]]
    assert data.score_settings()["references"] == "var"
    assert "rows.jsonl: rows of train have 1 to 2 references; each is scored by its own." in caplog.text
    caplog.clear()
    opened(tmp_path, {"name": "summarization"}, [{"source": "film", "target": ["good", "bad"]}] * 2)
    assert "references" not in caplog.text


@pytest.mark.parametrize("bad", [[], ["good", ""], "  ", None])
def test_an_empty_reference_is_refused(bad: Any, tmp_path: Path) -> None:
    rows: Rows = [{"source": "film", "target": ["good"]}, {"source": "book", "target": bad}]
    with pytest.raises(UserError, match=r"line 2: the target is empty"):
        opened(tmp_path, {"name": "summarization"}, rows)


def test_a_score_that_no_metric_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer.monitor=rouge_l is not reported by task.metrics; these report bleu,"):
        opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "a"}], "trainer.monitor=rouge_l")
    data = opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "a"}], "task.metrics=[chrf]")
    assert data.scorer.scores[0].name == "chrf"


# --- questions ---------------------------------------------------------------------------------------


def test_a_question_is_complete_behind_its_context(tmp_path: Path) -> None:
    rows = [{"question": "where is Anna", "context": "film " * 60, "answers": {"text": ["Oslo", "in Oslo"]}}]
    data = opened(tmp_path, {"name": "generative_qa", "template": "{context} ? {question} :"}, rows)
    _, predicted, prompt = first_row(data)
    assert prompt[-5:] == ["?", "where", "is", "anna", ":"] and prompt.count("film") == 25
    assert predicted == ["oslo", "[SEP]"]
    bare = opened(tmp_path, {"name": "generative_qa"}, [{"question": "where", "answers": "Oslo"}])
    assert "context" not in bare.template_of(["question", "answers"]).text
    assert first_row(bare)[1] == ["oslo", "[SEP]"]


# --- files -------------------------------------------------------------------------------------------


def parallel(folder: Path, english: str, german: str) -> str:
    (folder / "train.en").write_text(english, encoding="utf-8")
    (folder / "train.de").write_text(german, encoding="utf-8")
    return str(folder / "train.{en,de}")


def test_two_parallel_files_are_pairs_of_lines(tmp_path: Path) -> None:
    name = parallel(tmp_path, "a film\ngood\nthe city\n", "ein\ngut\ndie\n")
    keys = (f"data.train={name}[1:]", f"data.validation={name}[:1]", "task.template={source} :")
    data = opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "b"}], *keys)
    assert data.splits["train"].rows["target"][:] == ["gut", "die"] and len(data.stores["validation"]) == 1
    assert data.splits["train"].where(0) == f"{name}, line 2" and data.splits["train"].fingerprint
    assert first_row(data, 1)[2] == ["[CLS]", "the", "city", ":"]


@pytest.mark.parametrize(
    ("english", "german", "sentence"),
    [
        ("a\nb\n", "a\n", r"train.en has 2 lines and .*train.de has 1 line: line 2 has no partner"),
        ("a\n \n", "a\nb\n", r"train.\{en,de\}, line 2: the source is empty"),
        ("a\n", "", r"train.\{en,de\}: is empty"),
    ],
)
def test_bad_parallel_files(english: str, german: str, sentence: str, tmp_path: Path) -> None:
    name = parallel(tmp_path, english, german)
    with pytest.raises(UserError, match=sentence):
        opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "b"}], f"data.train={name}")


def test_a_missing_half_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = parallel(tmp_path, "a\n", "b\n").replace("de", "fr")
    configured(tmp_path, {"name": "translation"}, [{"source": "a", "target": "b"}], model=None)
    assert main(["train", str(tmp_path / "e.yaml"), f"data.train={name}"]) == 2
    assert "train.fr: no such file; did you mean train." in capsys.readouterr().err


def test_a_hub_data_set_in_columns_of_its_own(tmp_path: Path) -> None:
    """As Parquet in a local folder of the hub's form, and as CSV."""
    rows = {"dialogue": ["a: film", "b: book"], "summary": ["good", "bad"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "hub" / "train" / "0000.parquet")
    (tmp_path / "rows.csv").write_text("dialogue,summary\na: film,good\nb: book,bad\n")
    usual = "data.columns={source: dialogue, target: summary}"
    hub = (f"data.name={tmp_path / 'hub'}", "data.train=train", "data.validation=null", usual)
    csv = (f"data.train={tmp_path / 'rows.csv'}", "data.validation=null", usual)
    task = {"name": "summarization", "template": "{dialogue} !"}
    found = [first_row(opened(tmp_path, task, [{"source": "a", "target": "b"}], *keys), 1) for keys in (hub, csv)]
    assert found[0] == found[1] and found[0][2] == ["[CLS]", "b", ":", "book", "!"]
