"""Languages of texts: the tokens that name them in multilingual models, and how scorers cut them into words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from research.common.errors import UserError

CODE = re.compile(r"__[a-z]{2,3}__|[a-z]{2,3}_[A-Z][A-Za-z]+")  # M2M: __de__; mBART: de_DE; NLLB: deu_Latn
HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\uac00-\ud7af]")  # Thai, kana, Hangul
MOST_FOREIGN = 1e-3  # of the letters of an English text
BY_CODE = {
    "zh": "zh",
    "zho": "zh",
    "cmn": "zh",
    "yue": "zh",
    **dict.fromkeys(["ja", "jpn", "ko", "kor", "th", "tha"], "char"),
}


def language_token(tokenizer: Any, name: str, key: str) -> int | None:
    """The id of the token that names a language; None where the tokenizer has no languages.

    Raises UserError for a language that it does not know.
    """
    known: dict[str, int] = {token: i for token, i in tokenizer.get_vocab().items() if CODE.fullmatch(token)}
    known = {token: i for token, i in known.items() if i in tokenizer.added_tokens_decoder}
    if not known:
        return None
    found = [token for token in known if token in (name, f"__{name}__") or token.split("_")[0] == name]
    if len(found) == 1:
        return known[found[0]]
    near = found or difflib.get_close_matches(name, known, 3, 0.4) or sorted(known)[:5]
    raise UserError(
        f"{key}={name} is no language of the tokenizer's {len(known)}; give its code, as {', '.join(near)}."
    )


def use_languages(tokenizer: Any, source: str | None, target: str | None, model: str) -> int | None:
    """Tell a tokenizer its languages; the token of the target's, where it has one.

    Raises UserError for a source language where the tokenizer knows none, and for a language that it does not know.
    """
    first = None
    if source is not None:
        token = language_token(tokenizer, source, "task.source_language")
        if token is None:
            raise UserError(
                f"task.source_language={source}: the tokenizer of {model} knows no languages; remove the key, or say "
                "it in task.template."
            )
        tokenizer.src_lang = tokenizer.convert_ids_to_tokens(token)
    if target is not None:
        first = language_token(tokenizer, target, "task.target_language")
        if first is not None:
            tokenizer.tgt_lang = tokenizer.convert_ids_to_tokens(first)
    return first


def ends_with(tokenizer: Any, token: int) -> bool:
    """Does the tokenizer write a token behind a target, instead of before it?"""
    return bool(tokenizer(text_target="a")["input_ids"][-1] == token)


def bleu_tokenizer(language: str | None, texts: Iterable[str]) -> str:
    """sacrebleu's tokeniser for targets in a language, or with the letters of these texts."""
    if language is not None:
        return BY_CODE.get(re.split("[_-]", language.strip("_"))[0].lower(), "13a")
    letters = [c for text in texts for c in text if c.isalpha()]
    han, unspaced = (sum(bool(kind.match(c)) for c in letters) for kind in (HAN, UNSPACED))
    if unspaced > 0.1 * len(letters):
        return "char"
    return "zh" if han > 0.3 * len(letters) else "13a"


def rouge_tokenizer(language: str | None, texts: Iterable[str]) -> str:
    """english where rouge-score's own tokeniser, which drops all but ASCII letters, loses nothing; words else."""
    if language is not None:
        return "english" if re.split("[_-]", language.strip("_"))[0].lower() in ("en", "eng") else "words"
    letters = [c for text in texts for c in text if c.isalpha()]
    foreign = sum(not c.isascii() for c in letters)
    return "english" if foreign <= MOST_FOREIGN * len(letters) else "words"
