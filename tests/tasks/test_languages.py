"""Translation models of many languages: which tokens name source and target, and what the scorers cut words by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, MBartTokenizer, NllbTokenizer

from research.batching.pack import pack
from research.common.errors import UserError
from research.data.languages import bleu_tokenizer, rouge_tokenizer
from tests.models.test_families import BART
from tests.tasks.test_translation import text
from tests.tasks.text_experiments import built, opened


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
    assert module.generate(micro)[0].tokens[0] == german == module.backbone.model.generation_config.forced_bos_token_id
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
