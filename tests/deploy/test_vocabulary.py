"""A smaller vocabulary splits the texts it covers as before, and the model answers them to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from research.cli import main
from research.common.errors import UserError
from research.deploy.exported import load_exported
from research.deploy.vocabulary import smaller_content, smaller_vocabulary
from research.inference.predictor import Predictor, trained_of
from research.tracking.run import Run
from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = [
    f"{a} {b} {c}"
    for a in ("walking", "walked", "talks")
    for b in ("lower", "lowest", "newer")
    for c in ("Oslo", "été")
]
COVERED, OTHERS = ["walking lowest Oslo", "talks newer", "été"], ["walked lower", "xylophone 漢"]


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama's: pieces of characters, and bytes for what has no piece; its special tokens come last."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=60))
    content = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), *content["vocab"]]
    merges = [tuple(merge) for merge in content["merges"]]
    model = models.BPE(
        {p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = trained.normalizer
    tokenizer.add_special_tokens(SPECIAL)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", ids)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    ids = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", ids)
    return tokenizer


KINDS = {each.__name__: each for each in (word_piece, byte_level, byte_fallback, unigram)}


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": 4}
    special = {f"{name}_token": SPECIAL[i] for name, i in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.mark.parametrize("kind", KINDS)
def test_covered_texts_are_split_as_before(kind: str) -> None:
    whole = fast(KINDS[kind]())
    used = {number for text in COVERED for number in whole(text)["input_ids"]}
    smaller = smaller_vocabulary(whole, used, whole.pad_token_id)
    mine = smaller.tokenizer
    assert len(mine) == len(smaller.kept) < len(whole)
    for text in COVERED:
        new = mine(text)["input_ids"]
        assert [smaller.kept[number] for number in new] == whole(text)["input_ids"]
        assert mine.convert_ids_to_tokens(new) == whole.convert_ids_to_tokens(whole(text)["input_ids"])
    pair = mine(COVERED[0], COVERED[1])["input_ids"]
    assert [smaller.kept[number] for number in pair] == whole(COVERED[0], COVERED[1])["input_ids"]
    for text in OTHERS:  # some tokens, never none
        new = mine(text)["input_ids"]
        assert max(new) < len(mine) and len(new) > 2
    padded = mine(["Oslo", COVERED[0]], padding=True)["input_ids"][0]
    assert padded[-1] == mine.pad_token_id and smaller.kept[mine.pad_token_id] == whole.pad_token_id
    assert {smaller.kept[number] for number in mine.all_special_ids} == {*whole.all_special_ids}


def test_merges_that_lead_to_no_kept_token_go() -> None:
    whole = fast(byte_level())
    content = json.loads(whole.backend_tokenizer.to_str())
    smaller, kept = smaller_content(content, whole("newer")["input_ids"])
    before, after = content["model"]["merges"], smaller["model"]["merges"]
    assert 0 < len(after) < len(before) and [merge for merge in before if merge in after] == after  # their order stays
    made = {"".join(merge if isinstance(merge, list) else merge.split(" ")) for merge in after}
    assert all(piece in "Ġnewer" for piece in made)
    assert len(kept) == len(SPECIAL) + 256 + len(made)


def test_other_kinds_are_refused() -> None:
    content = json.loads(byte_level().to_str())
    with pytest.raises(UserError, match="BPE with marks inside its pieces"):
        smaller_content({**content, "model": {**content["model"], "end_of_word_suffix": "</w>"}}, [5])
    with pytest.raises(UserError, match="a tokenizer of the kind Other"):
        smaller_content({**content, "model": {**content["model"], "type": "Other"}}, [5])
    with pytest.raises(UserError, match="the post-processor Other"):
        smaller_content({**content, "post_processor": {"type": "Other"}}, [5])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "model"), [("sentiment", "bert"), ("ner", "roberta")])
def test_outputs_are_the_same_to_the_bit(
    task: str, model: str, tmp_path: Path, task_data: dict[str, dict[str, str]], request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = make_tiny_model(tmp_path / "model", model)
    (tmp_path / "runs").mkdir()
    run = SmallRuns(tmp_path / "runs", folder, task_data, request).train(task)
    corpus = Path(task_data[task]["validation"])
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    (tmp_path / "more.txt").write_text("Anna\n\nOslo is 7 km\n")
    arguments = ["export", str(run.path), "--output", str(tmp_path / "out"), "--vocabulary"]
    assert main([*arguments, str(corpus), "--vocabulary", str(tmp_path / "more.txt")]) == 0
    assert "0 of 21 predictions changed" in capsys.readouterr().out
    both = Predictor(trained_of(run), "fp32"), load_exported(tmp_path / "out")
    field = "text" if task == "sentiment" else "tokens"
    texts: list[Any] = [row[field] for row in rows]
    texts += ["Oslo is 7 km" if task == "sentiment" else ["Oslo", "is", "7", "km"]]
    outputs = [each.outputs([each.question({field: text}) for text in texts])[1] for each in both]
    assert torch.equal(*outputs)
    tables: list[Any] = [each.module.backbone.model.get_input_embeddings() for each in both]
    sizes = [len(table.weight) for table in tables]
    assert sizes[1] == len(both[1].data.tokenizer) < sizes[0]
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["vocab_size"] == sizes[1]


@pytest.mark.slow
def test_texts_that_are_not_covered_are_counted(
    served_runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = served_runs["sentiment"]
    (tmp_path / "few.txt").write_text("the good film\nthe bad film a very\n")
    arguments = ["export", str(run.path), "--output", str(tmp_path / "out"), "--vocabulary", str(tmp_path / "few.txt")]
    assert main([*arguments, "--tolerance", "1"]) == 0
    said = capsys.readouterr().out
    known = {"the", "good", "film", "bad", "a", "very"}
    rows = [json.loads(line) for line in Path(str(run.config.data.validation)).read_text().splitlines()]
    others = sum(not {*row["text"].split()} <= known for row in rows)
    assert 0 < others < 21 and f"{others} of 21 texts hold tokens that the vocabulary has not" in said
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["not_covered"] == others
    (tmp_path / "none.txt").write_text("zzz\n")
    with pytest.raises(UserError, match=r"splits every text of .* otherwise; nothing was written"):
        exported(run, tmp_path / "none", tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"missing\.txt"):
        exported(run, tmp_path / "none", tmp_path / "missing.txt")
    assert not (tmp_path / "none").exists()


def exported(run: Run, output: Path, corpus: Path) -> None:
    from research.deploy.export import export

    export(run, output, vocabulary=[corpus])
