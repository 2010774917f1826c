"""A model that begins from scratch: a folder with its config and a new tokenizer, and weights drawn by the seed.

The folder is as `from_pretrained` reads one, but has no weights; `load_model` draws them. A bert2bert
(Rothe et al. 2020, Leveraging Pre-trained Checkpoints for Sequence Generation Tasks) takes both halves from a BERT;
the attention between them is new.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from research.common.errors import UserError
from research.common.text import one_line
from research.config.schema import ScratchConfig
from research.models.folder import refuse_odd_folder

MARK = "scratch.json"  # in the folder of a model without weights: the keys it was made by
PAD, BEGIN, END, UNKNOWN, MASK = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
SENTINELS = 100  # of an encoder-decoder, which T5's span corruption writes in the place of spans
FRAMES = {  # what a family's tokenizer puts around a text, and around a pair
    "bert": (f"{BEGIN} $A {END}", f"{BEGIN} $A {END} $B:1 {END}:1"),
    "bart": (f"{BEGIN} $A {END}", f"{BEGIN} $A {END} $B {END}"),
    "gpt2": (f"{BEGIN} $A", f"{BEGIN} $A $B"),
    "llama": (f"{BEGIN} $A", f"{BEGIN} $A $B"),
    "t5": (f"$A {END}", f"$A $B {END}"),
    "marian": (f"$A {END}", f"$A $B {END}"),
}
IN_TWO_HALVES = ("t5", "bart", "marian")


def is_start(name: str) -> bool:
    """Is this the folder of a model that begins without weights of its own?"""
    return (Path(name) / MARK).is_file()


def write_start(folder: Path, keys: ScratchConfig, texts: Iterable[str]) -> None:
    """Write the folder of a model by its keys, with a tokenizer trained on texts (none: every byte is a token)."""
    folder.mkdir(exist_ok=True)
    if keys.family == "bert2bert":
        tokenizer, config = _tokenizer_of(str(keys.encoder)), bert2bert(str(keys.encoder))
    else:
        tokenizer = trained_tokenizer(keys, texts)
        config = architecture(keys, tokenizer)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    (folder / MARK).write_text(json.dumps(vars(keys), indent=1), encoding="utf-8")


def trained_tokenizer(keys: ScratchConfig, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Sennrich et al. 2016, Radford et al. 2019): any text can be written in it, none is unknown.

    The same texts give the same tokenizer; a merge needs two occurrences.
    """
    special = list(SPECIAL)
    if keys.family in IN_TWO_HALVES:
        special += [f"<extra_id_{i}>" for i in range(SENTINELS)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=keys.vocabulary or 8000, min_frequency=2, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(texts, trainer)
    single, pair = FRAMES[str(keys.family)]
    of_frame = [(token, bpe.token_to_id(token)) for token in (BEGIN, END)]
    bpe.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=of_frame)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, bos_token=BEGIN, eos_token=END, unk_token=UNKNOWN, mask_token=MASK,
        cls_token=BEGIN, sep_token=END, extra_special_tokens=special[len(SPECIAL) :],
        model_max_length=keys.positions or 512, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def architecture(keys: ScratchConfig, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """The config of a family at these sizes; all else as `transformers` has it by default."""
    L, W, P = keys.layers or 4, keys.width or 256, keys.positions or 512
    H, family = keys.heads or max(1, W // 64), str(keys.family)
    tokens = {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", L), ("ffn_dim", 4 * W), ("attention_heads", H))
    }
    of_bart = {"d_model": W, "max_position_embeddings": P, "forced_eos_token_id": None, **halves}
    of_bert = {"hidden_size": W, "num_hidden_layers": L, "num_attention_heads": H, "max_position_embeddings": P}
    sizes: dict[str, dict[str, Any]] = {
        "bert": {**of_bert, "intermediate_size": 4 * W},
        "gpt2": {"n_embd": W, "n_layer": L, "n_head": H, "n_positions": P},
        "llama": {**of_bert, "intermediate_size": 8 * W // 3, "num_key_value_heads": H, "tie_word_embeddings": True},
        "t5": {"d_model": W, "d_kv": W // H, "d_ff": 4 * W, "num_layers": L, "num_heads": H,
               "decoder_start_token_id": tokenizer.pad_token_id},
        "bart": {**of_bart, "decoder_start_token_id": tokenizer.eos_token_id},
        "marian": {**of_bart, "decoder_start_token_id": tokenizer.pad_token_id, "decoder_vocab_size": len(tokenizer),
                   "scale_embedding": True},
    }  # fmt: skip
    return AutoConfig.for_model(family, **tokens, **sizes[family])


def bert2bert(encoder: str) -> PretrainedConfig:
    """The config of an encoder-decoder made of a BERT twice. Raises UserError for another model."""
    own = _bert_config(encoder)
    tokenizer = _tokenizer_of(encoder)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(own, copy.deepcopy(own))
    config.decoder_start_token_id, config.pad_token_id = tokenizer.cls_token_id, tokenizer.pad_token_id
    config.eos_token_id, config.vocab_size = tokenizer.sep_token_id, own.vocab_size
    config.max_position_embeddings = own.max_position_embeddings
    config.tie_word_embeddings = False  # the two halves' tables; the decoder ties its own to its head
    found: PretrainedConfig = config
    return found


def new_model(folder: str, own: PretrainedConfig, auto_class: Any) -> Any:
    """The model of a start folder with a head of `auto_class`, in float32, its weights drawn from the generator.

    It knows which weights are new (`new_weights`).
    """
    encoder = json.loads((Path(folder) / MARK).read_text(encoding="utf-8"))["encoder"]
    if encoder is None:
        model: Any = auto_class.from_config(own, dtype=torch.float32, attn_implementation="eager")
        model.new_weights = {name for name, _ in model.named_parameters()}
        return model
    if not isinstance(own, EncoderDecoderConfig):
        raise UserError(f"model.scratch.family=bert2bert writes text; it has no head for {auto_class.__name__}.")
    model = EncoderDecoderModel(own)  # from_encoder_decoder_pretrained gives its layers configs of their own
    model.set_attn_implementation("eager")
    weights = BertModel.from_pretrained(encoder).state_dict()
    old = set[str]()
    for place, half in (("encoder.", model.encoder), ("decoder.bert.", model.decoder.bert)):
        missing = half.load_state_dict(weights, strict=False).missing_keys
        old |= {place + name for name in half.state_dict() if name not in missing}
    model.new_weights = {name for name, _ in model.named_parameters()} - old
    return model.float()


def _bert_config(encoder: str) -> BertConfig:
    refuse_odd_folder(encoder)
    try:
        own = AutoConfig.from_pretrained(encoder)
    except Exception as error:  # each config class fails in a way of its own
        raise UserError(f"model.scratch.encoder={encoder} cannot be read: {one_line(error)}.") from None
    if not isinstance(own, BertConfig):
        raise UserError(f"model.scratch.encoder={encoder} is a '{own.model_type}' model; bert2bert is made of a BERT.")
    return own


def _tokenizer_of(encoder: str) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
    except Exception as error:  # each tokenizer class fails in a way of its own
        raise UserError(f"model.scratch.encoder={encoder} has no tokenizer: {one_line(error)}.") from None
    return tokenizer  # type: ignore[return-value]


def texts_in(value: Any) -> Iterator[str]:
    """All texts of a cell: itself, or those of its lists and of its mappings' values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)
