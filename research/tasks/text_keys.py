"""Keys of every task whose answer is text: what the model reads, and how outputs are scored."""

from dataclasses import dataclass
from typing import Literal

from research.config.key import Rule, at_least, key

SOME = Rule(lambda v: bool(v) and len(set(v)) == len(v), "must name at least one metric, and none twice")
NO_COMET = Rule(
    lambda v: "comet" not in v,
    "cannot have comet: its package unbabel-comet needs transformers below 5 and NumPy below 2; install it in an "
    "environment of its own and give it source, prediction and gold of predictions/test.parquet",
)
METRICS = (SOME, NO_COMET)


@dataclass
class TextKeys:
    """Beside them a task has those of generation."""

    template: str | None = key(
        None, "what the model reads, as `summarize: {source}`; names fields and columns of the data in braces"
    )
    references: list[str] = key([], "columns of further references, where the data have them")
    chat: bool = key(False, "for decoders: source and target are turns in the tokenizer's chat template")
    system: str | None = key(None, "what the system says first in a chat that has no such turn")
    chat_template: str | None = key(None, "a file with a chat template (Jinja), instead of the tokenizer's")
    max_target_tokens: int = key(128, "targets are cut to so many tokens in the loss, never in the scores", at_least(2))
    source_language: str | None = key(None, "of a multilingual model, by its code, as `en_XX` or `eng_Latn`")
    target_language: str | None = key(
        None, "its code, which a multilingual model is made to write in; chooses the tokenisers of scores, as `zh`"
    )
    metrics: list[str] = key(
        ["rouge"], "what scores the outputs: bleu, chrf, ter, rouge, answers, bertscore; the first decides", *METRICS
    )
    bertscore_model: str | None = key(
        None, "the encoder whose vectors bertscore compares: a folder, or a name of the hub"
    )
    bertscore_layer: int | None = key(None, "the layer whose outputs they are; null: the last", at_least(1))
    bleu_tokenizer: Literal["auto", "13a", "zh", "intl", "char", "none"] = key(
        "auto", "of sacrebleu; auto: zh for Chinese targets, char for Japanese, Korean and Thai, 13a else"
    )
    rouge_tokenizer: Literal["auto", "english", "words"] = key(
        "auto", "english is rouge-score's own, words is for any script; auto: english for targets in ASCII letters"
    )
    rouge_stemmer: bool = key(True, "ROUGE compares the stems of English words (Porter)")
