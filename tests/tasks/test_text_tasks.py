"""What the tasks with text answers read and learn: templates, chats, languages, references, what is cut and what not.

The numbers of faults are those of a list of known mistakes in other trainers: masks that miss the end token, doubled
start tokens, boundaries that move, languages that do not act.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, MBartTokenizer, NllbTokenizer

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import Config
from research.data.languages import bleu_tokenizer, rouge_tokenizer
from research.models.generate import prompts
from research.training.build import build, open_data
from tests.conftest import write_jsonl
from tests.models.test_families import BART
from tests.tasks.test_translation import make_model, text

CHAT = (
    "{% for m in messages %}[CLS]{{ m.role }} : {{ m.content }}[SEP]{% endfor %}"
    "{% if add_generation_prompt %}[CLS]assistant : {% endif %}"
)


Rows = list[dict[str, Any]]


def configured(folder: Path, task: dict[str, Any], rows: Rows, *keys: str, model: Path | None) -> Config:
    """A task on rows that serve as training and validation data."""
    file = write_jsonl(folder / "rows.jsonl", rows)
    (folder / "chat.jinja").write_text(CHAT)
    content = {
        "task": {"max_new_tokens": 8, "max_target_tokens": 8, **task},
        "model": {"name": str(model or gpt2())},
        "data": {"train": str(file), "validation": str(file), "max_length": 32, "max_overlap": 1.0},
        "trainer": {"precision": "fp32", "devices": 1},
        "wandb": {"mode": "disabled"},
        "run_dir": str(folder / "run"),
    }
    path = folder / "e.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return load_config(path, keys)


def built(folder: Path, task: dict[str, Any], rows: Rows, *keys: str, model: Path | None = None) -> Any:
    return build(configured(folder, task, rows, *keys, model=model))


def opened(folder: Path, task: dict[str, Any], rows: Rows, *keys: str, model: Path | None = None) -> Any:
    """The data alone."""
    return open_data(configured(folder, task, rows, *keys, model=model))


MODELS: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> None:
    MODELS[:] = [make_model(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")]


def gpt2() -> Path:
    return MODELS[0]


def first_row(data: Any, row: int = 0) -> tuple[list[str], list[str], list[str]]:
    """What a decoder reads of an example, what it predicts, and the prompt it generates from, as pieces."""
    micro = pack(data.stores["train"], np.array([row]))
    tokenizer, labels = data.tokenizer, micro.tokens["label"]
    return (
        text(tokenizer, micro.tokens["input_ids"]), text(tokenizer, labels[labels >= 0]),
        text(tokenizer, prompts(micro)[0]),
    )  # fmt: skip


# --- templates ----------------------------------------------------------------------------------------


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


# --- targets ------------------------------------------------------------------------------------------


def test_the_end_is_a_target_where_padding_is_the_same_token(tmp_path: Path) -> None:  # fault 3
    model = make_model(tmp_path / "eos", "gpt2", pad_token_id=3)
    data = opened(tmp_path, {"name": "generation"}, [{"prompt": "a", "completion": "good film"}], model=model)
    assert data.end == data.own.pad_token_id == 3
    assert first_row(data)[1] == ["good", "film", "[SEP]"] and data.stores["train"].targets.tolist() == [3.0]


def test_several_references_are_scored_and_the_first_is_learned(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("bad", [[], ["good", ""], "  ", None])
def test_an_empty_reference_is_refused(bad: Any, tmp_path: Path) -> None:
    rows: Rows = [{"source": "film", "target": ["good"]}, {"source": "book", "target": bad}]
    with pytest.raises(UserError, match=r"line 2: the target is empty"):
        opened(tmp_path, {"name": "summarization"}, rows)


def test_scorers_cut_words_by_the_letters_of_the_targets_or_the_language(tmp_path: Path) -> None:
    def chosen(texts: str, language: str | None = None) -> tuple[str, str]:
        return bleu_tokenizer(language, [texts]), rouge_tokenizer(language, [texts])

    assert chosen("a good film") == chosen("Das ist gut", "en_XX") == ("13a", "english")
    assert chosen("Mädchen und größer") == chosen("Das ist gut", "de") == ("13a", "words")
    assert chosen("我喜歡貓") == chosen("", "zho_Hans") == ("zh", "words")
    assert chosen("これはねこです") == chosen("", "ja_XX") == ("char", "words")
    rows = [{"source": "a", "target": "größer"}]
    settings = opened(tmp_path, {"name": "translation"}, rows, "task.bleu_tokenizer=char").score_settings()
    assert settings["bleu_tokenizer"] == "char" and settings["rouge_tokenizer"] == "words"


def test_a_score_that_no_metric_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer.monitor=rouge_l is not reported by task.metrics; these report bleu,"):
        opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "a"}], "trainer.monitor=rouge_l")
    data = opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "a"}], "task.metrics=[chrf]")
    assert data.scorer.scores[0].name == "chrf"


# --- questions ----------------------------------------------------------------------------------------


def test_a_question_is_complete_behind_its_context(tmp_path: Path) -> None:
    rows = [{"question": "where is Anna", "context": "film " * 60, "answers": {"text": ["Oslo", "in Oslo"]}}]
    data = opened(tmp_path, {"name": "generative_qa", "template": "{context} ? {question} :"}, rows)
    _, predicted, prompt = first_row(data)
    assert prompt[-5:] == ["?", "where", "is", "anna", ":"] and prompt.count("film") == 25
    assert predicted == ["oslo", "[SEP]"]
    bare = opened(tmp_path, {"name": "generative_qa"}, [{"question": "where", "answers": "Oslo"}])
    assert "context" not in bare.template_of(["question", "answers"]).text
    assert first_row(bare)[1] == ["oslo", "[SEP]"]


# --- chats --------------------------------------------------------------------------------------------

MESSAGES = {
    "messages": [
        {"role": "user", "content": "where"},
        {"role": "assistant", "content": "Oslo"},
        {"role": "user", "content": [{"type": "text", "text": "who"}]},
        {"role": "assistant", "content": "Anna"},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "where"}, {"from": "gpt", "value": "Oslo"},
        {"from": "human", "value": "who"}, {"from": "gpt", "value": "Anna"},
    ]
}  # fmt: skip
ALPACA = {"instruction": "who", "input": "", "output": "Anna", "history": [["where", "Oslo"]]}


def chat(folder: Path, row: dict[str, Any], *keys: str) -> Any:
    task = {"name": "dialogue", "chat_template": str(folder / "chat.jinja")}
    return opened(folder, task, [row], "data.max_length=64", *keys)


@pytest.mark.parametrize("row", [MESSAGES, SHAREGPT, ALPACA], ids=["messages", "sharegpt", "alpaca"])
def test_every_turn_of_the_assistant_is_learned_and_the_last_is_generated(row: dict[str, Any], tmp_path: Path) -> None:
    """The template has no `{% generation %}` marks (fault 4); each answer's end token is a target; one start token
    (fault 16)."""
    data = chat(tmp_path, row)
    read, predicted, prompt = first_row(data)
    turns = ["[CLS]", "user", ":", "where", "[SEP]", "[CLS]", "assistant", ":", "oslo", "[SEP]"]
    turns = [piece for word in turns for piece in data.tokenizer.tokenize(word)]
    assert read[: len(turns)] == turns and predicted == ["oslo", "[SEP]", "anna", "[SEP]"]
    assert read[:2] != ["[CLS]", "[CLS]"] and read == [*prompt, "anna"]
    assert data.golds(data.splits["train"].rows[:], 1) == [["Anna"]]
    last = chat(tmp_path, row, "task.train_on=last")
    assert first_row(last)[1] == ["anna", "[SEP]"] and first_row(last)[2] == prompt


def test_of_a_long_chat_the_oldest_turns_go_and_the_system_stays(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "good"}]
    for i in range(6):
        turns += [{"role": "user", "content": f"film {i}"}, {"role": "assistant", "content": f"book {i}"}]
    data = chat(tmp_path, {"messages": turns}, "data.max_length=60")
    read, predicted, prompt = first_row(data)
    assert "good" in prompt and "0" not in read and "5" in prompt and predicted[-3:] == ["book", "5", "[SEP]"]
    assert len(prompt) <= 60 and data.cut["train"] == 1
    asked = {"messages": [{"role": "user", "content": "film " * 50 + "river"}, {"role": "assistant", "content": "a"}]}
    cut = chat(tmp_path, asked, "data.max_length=30")
    assert len(first_row(cut)[2]) <= 30 and "river" in first_row(cut)[2] and first_row(cut)[1] == ["a", "[SEP]"]


def test_source_and_target_as_turns(tmp_path: Path) -> None:
    task = {"name": "summarization", "chat": True, "system": "good", "template": "say {source}"}
    rows = [{"source": "film " * 40 + "river", "target": "bad"}]
    data = opened(tmp_path, {**task, "chat_template": str(tmp_path / "chat.jinja")}, rows, "data.max_length=48")
    _, predicted, prompt = first_row(data)
    assert len(prompt) <= 48 and "river" not in prompt and predicted == ["bad", "[SEP]"]
    assert prompt[-len(data.tokenizer.tokenize("assistant :")) :] == data.tokenizer.tokenize("assistant :")
    assert data.tokenizer.chat_template == CHAT  # and is in the exported model


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"messages": MESSAGES["messages"][:3]}, "line 1: the chat ends with the user; there is no answer"),
        (
            {"messages": [{"role": "bot", "content": "a"}]},
            "line 1, turn 1: the role 'bot' is unknown; the roles",
        ),
        ({"conversations": [{"from": "human", "value": " "}]}, "line 1, turn 1: the human's turn is empty"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "the assistant speaks before any user"),
        ({"messages": MESSAGES["messages"][:2] + MESSAGES["messages"][1:2]}, "turn 3: the assistant speaks twice"),
        (
            {"messages": [*MESSAGES["messages"], {"role": "system", "content": "a"}]},
            "turn 5: the system speaks",
        ),
        ({"messages": "hello"}, "line 1: the chat holds str, not a list of turns"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "turn 1: a part of the content is no text"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "item 1 of the history is no pair"),
        ({"text": "a"}, "line 1: there is no chat; write messages, conversations, or instruction and output"),
    ],
)
def test_bad_chats(row: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        chat(tmp_path, row)


def test_chats_that_a_model_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer of .*gpt2 has no chat template; give one as a Jinja file"):
        opened(tmp_path, {"name": "dialogue"}, [MESSAGES])
    bart = make_model(tmp_path / "bart", "bart")
    with pytest.raises(UserError, match=r"task.chat=true is for decoders; .*bart is an encoder-decoder"):
        opened(tmp_path, {"name": "summarization", "chat": True}, [{"source": "a", "target": "b"}], model=bart)
    with pytest.raises(UserError, match=r"task.chat_template and task.system act in a chat alone"):
        opened(tmp_path, {"name": "summarization", "system": "good"}, [{"source": "a", "target": "b"}])
    (tmp_path / "odd.jinja").write_text(CHAT.replace("m.content", "(m.content if loop.last else 'gone')"))
    with pytest.raises(UserError, match=r"turn 2: the chat template renders this turn another way once others follow"):
        opened(tmp_path, {"name": "dialogue", "chat_template": str(tmp_path / "odd.jinja")}, [MESSAGES])
    with pytest.raises(UserError, match=r"task.chat_template=.*none.jinja cannot be read"):
        opened(tmp_path, {"name": "dialogue", "chat_template": str(tmp_path / "none.jinja")}, [MESSAGES])


def test_an_encoder_decoder_reads_a_chat_as_lines(tmp_path: Path) -> None:
    data = opened(tmp_path, {"name": "dialogue"}, [MESSAGES], model=make_model(tmp_path / "bart", "bart"))
    assert data.splits["train"].rows["source"][:] == ["user: where\nassistant: Oslo\nuser: who"]
    store = data.stores["train"]
    label = store.columns["target.label"].rows(np.array([0]))[0]
    assert text(data.tokenizer, label) == ["anna", "[SEP]"]


def test_many_targets_of_a_row_weigh_and_score_as_padded_ones(tmp_path: Path) -> None:
    task = {"name": "dialogue", "chat_template": str(tmp_path / "chat.jinja")}
    keys = ("auto", "false")
    packed, padded = (built(tmp_path, task, [SHAREGPT], "data.max_length=64", f"trainer.packing={way}") for way in keys)
    losses, texts = [], []
    for module in (packed.eval(), padded.eval()):
        micro = pack(module.data.stores["train"], np.arange(1), module.backbone.packed)
        with torch.no_grad():
            losses.append(float(module.loss(micro)[0]))
            texts.append(module.decode(micro, None))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and texts[0] == texts[1]
    assert packed.data.stores["train"].targets.tolist() == [4.0] and packed.backbone.packed


# --- languages ----------------------------------------------------------------------------------------


def multilingual(folder: Path, tokenizer: Any) -> Path:
    tokenizer.save_pretrained(folder)
    settings = {**BART, "vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = AutoConfig.for_model("bart", **{**settings, "decoder_start_token_id": 2, "init_std": 0.15})
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder


def letters(first: list[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate([*first, *"▁abcdefghijklmnopqrstuvwxyz"])}


def test_a_model_of_many_languages_begins_with_the_one_that_is_named(tmp_path: Path) -> None:  # fault 12
    codes = ["eng_Latn", "deu_Latn", "fra_Latn"]
    nllb = NllbTokenizer(vocab=letters(["<s>", "<pad>", "</s>", "<unk>"]), additional_special_tokens=codes)
    model = multilingual(tmp_path / "nllb", nllb)
    task = {"name": "translation", "source_language": "eng_Latn", "target_language": "deu"}
    module = built(tmp_path, task, [{"source": "ab", "target": "cd"}], model=model).eval()
    tokenizer, german = module.data.tokenizer, nllb.convert_tokens_to_ids("deu_Latn")
    micro = pack(module.data.stores["train"], np.array([0]), module.backbone.packed)
    assert text(tokenizer, micro.streams["source"].tokens["input_ids"])[0] == "eng_Latn"
    label = text(tokenizer, micro.streams["target"].tokens["label"])
    assert label[0] == "deu_Latn" and label[-1] == "</s>"
    assert module.generate(micro)[0].tokens[0] == german
    with pytest.raises(UserError, match=r"task.target_language=german is no language of the tokenizer's 3; .* as "):
        opened(tmp_path, {**task, "target_language": "german"}, [{"source": "ab", "target": "cd"}], model=model)


def test_mbart_starts_with_the_language_and_ends_with_the_end(tmp_path: Path) -> None:
    vocab = [(piece, -1.0) for piece in letters(["<s>", "<pad>", "</s>", "<unk>", "en_XX", "de_DE", "<mask>"])]
    model = multilingual(tmp_path / "mbart", MBartTokenizer(vocab=vocab))
    task = {"name": "translation", "source_language": "en", "target_language": "de_DE"}
    module = built(tmp_path, task, [{"source": "ab", "target": "cd"}], model=model).eval()
    micro = pack(module.data.stores["train"], np.array([0]), module.backbone.packed)
    target = {
        name: text(module.data.tokenizer, micro.streams["target"].tokens[name]) for name in ("input_ids", "label")
    }
    assert target["input_ids"][0] == "de_DE" and target["label"][-1] == "</s>" and "de_DE" not in target["label"]
    assert module.generate.settings.decoder_start_token_id == module.data.own.decoder_start_token_id
    assert module.generate.settings.forced_bos_token_id is None


def test_a_source_language_of_a_model_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task.source_language=en: the tokenizer of .*gpt2 knows no languages"):
        opened(tmp_path, {"name": "translation", "source_language": "en"}, [{"source": "a", "target": "a"}])


# --- files --------------------------------------------------------------------------------------------


def parallel(folder: Path, english: str, german: str) -> str:
    (folder / "train.en").write_text(english, encoding="utf-8")
    (folder / "train.de").write_text(german, encoding="utf-8")
    return str(folder / "train.{en,de}")


def test_two_parallel_files_are_pairs_of_lines(tmp_path: Path) -> None:
    name = parallel(tmp_path, "a film\ngood\nthe city\n", "ein\ngut\ndie\n")
    keys = (f"data.train={name}", f"data.validation={name}[:2]", "task.template={source} :")
    data = opened(tmp_path, {"name": "translation"}, [{"source": "a", "target": "b"}], *keys)
    assert data.splits["train"].rows["target"][:] == ["ein", "gut", "die"] and len(data.stores["validation"]) == 2
    assert data.splits["train"].where(1) == f"{name}, line 2" and data.splits["train"].fingerprint
    assert first_row(data, 2)[2] == ["[CLS]", "the", "city", ":"]


@pytest.mark.parametrize(
    ("english", "german", "sentence"),
    [
        ("a\nb\n", "a\n", r"train.en has 2 lines and .*train.de has 1 lines: line 2 has no partner"),
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
