"""Load a pretrained config, model and tokenizer, from the hub or a folder, with errors that name the cause."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers import logging as transformers_logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from research.common import compat
from research.common.errors import UserError, is_out_of_memory
from research.common.hub import hub_answers
from research.common.text import one_line
from research.config import component
from research.models import scratch
from research.models.dropout import swap_dropout
from research.models.folder import refuse_odd_folder
from research.models.head import fit_head
from research.models.kept_layers import keep_layers

if TYPE_CHECKING:
    from research.config.schema import Config


ENCODER, DECODER, ENCODER_DECODER = "encoder", "decoder", "encoder-decoder"
EXAMPLES = {  # family -> architectures people know
    ENCODER: "bert, roberta, xlm-roberta, distilbert, electra, albert, deberta-v2 or modernbert",
    DECODER: "gpt2, llama, qwen2, qwen3, mistral, gemma3 or phi3",
    ENCODER_DECODER: "t5, mt5, bart, mbart, marian, pegasus or m2m_100",
}


def family_of(own: PretrainedConfig) -> str | None:
    """encoder, decoder or encoder-decoder, from a model's config; None for what is none of them, such as images."""
    if own.is_encoder_decoder:
        return ENCODER_DECODER
    if own.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(own, "is_decoder", False):
        return ENCODER
    return DECODER if own.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def load_config(config: Config, labels: Sequence[str] = (), families: Collection[str] = (ENCODER,)) -> PretrainedConfig:
    """The model's own config with the labels of an encoder's head and `model.dropout` in it.

    Raises UserError for a folder that is not a model, a hub name without network and a family the task is not for.
    """
    name = config.model.name
    refuse_odd_folder(name)
    # Without labels two, for the start and the end of a span, whatever the weights were tuned for before.
    ids = {label: i for i, label in enumerate(labels or ("LABEL_0", "LABEL_1"))}
    head: dict[str, Any] = {"id2label": {i: label for label, i in ids.items()}, "label2id": ids}
    if ENCODER not in families:
        head = {}
    try:
        own: PretrainedConfig = AutoConfig.from_pretrained(name, **_source(config), **head)
    except Exception as error:  # each config class fails in a way of its own
        raise UserError(_not_found(name, error)) from None
    kind, family = own.model_type, family_of(own)
    if family not in families:
        is_one = f"{'an' if family[0] == 'e' else 'a'} {family}" if family else "neither encoder nor decoder"
        wanted = " and ".join(f"{each}s such as {EXAMPLES[each]}" for each in families)
        task = f"task '{config.task.name}' fine-tunes {wanted}"
        raise UserError(f"{name} is a '{kind}' model, {is_one}; {task}.{served_tasks(family)}")
    usable = usable_positions(own)
    if usable and config.data.max_length > usable:
        raise UserError(
            f"data.max_length={config.data.max_length} is more than the {usable} positions of {name}; "
            f"set it to {usable} or less (longer texts are windowed or cut there)."
        )
    if config.model.dropout is not None:
        for key, value in own.to_dict().items():
            if ("dropout" in key or key.endswith("pdrop")) and not isinstance(value, bool | str):
                setattr(own, key, config.model.dropout)
    return own


def served_tasks(family: str | None) -> str:
    """A sentence on the tasks of the package that a family of models serves; none where there is none."""
    found = [task for task in component.names("task") if family in component.load("task", task).Module.heads()]
    return f" It serves {', '.join(found)}." if found else ""


def usable_positions(own: PretrainedConfig) -> int | None:
    """How many tokens a model has positions for; None where they have no limit."""
    positions: int | None = getattr(own, "max_position_embeddings", None)
    if positions and own.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= own.pad_token_id + 1
    return positions


def load_model(config: Config, own: PretrainedConfig, auto_class: Any) -> PreTrainedModel:
    """The model with a head of `auto_class`, in float32: its own for the same labels, else a new one.

    Raises UserError when the weights are missing, cut short or of another shape.
    """
    name = config.model.name
    model: Any
    if scratch.is_start(name):
        with without_advice():
            model = scratch.new_model(name, own, auto_class)
    else:
        model = _pretrained(config, own, auto_class)
    if config.model.keep_layers:
        keep_layers(model, config.model.keep_layers)
    model.pretrained_weights = {name for name, _ in model.named_parameters()} - model.new_weights
    fit_head(model, name, AutoConfig.from_pretrained(name, **_source(config)).id2label or {}, model.new_weights)
    if config.model.gradient_checkpointing:
        own_name = getattr(model, "activation_checkpointing_enable", None)  # the newer name
        (own_name or model.gradient_checkpointing_enable)({"use_reentrant": False})
        model.disable_input_require_grads()  # which that enables: there would be a backward pass through frozen layers
    if not torch.cuda.is_available():
        swap_dropout(model)
    trainable: PreTrainedModel = model.train()
    return trainable


def _pretrained(config: Config, own: PretrainedConfig, auto_class: Any) -> Any:
    """The model with its weights; those it has none for are its `new_weights`."""
    name = config.model.name
    try:
        with without_advice():  # the head is meant to be new
            model, loaded = auto_class.from_pretrained(
                name,
                config=own,
                **_source(config),
                dtype=torch.float32,
                attn_implementation="eager",
                use_safetensors=None if _has_only_pickle(name) else True,
                ignore_mismatched_sizes=True,  # a head tuned for other labels is made again
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise UserError(f"The weights of {name} are damaged or cut short ({error}); fetch them again.") from None
    except Exception as error:  # each model class fails in a way of its own
        if is_out_of_memory(error):
            raise
        raise UserError(_not_found(name, error)) from None
    model.new_weights = {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])}
    wrong = sorted(key for key, *_ in loaded["mismatched_keys"] if key.startswith(f"{model.base_model_prefix}."))
    if wrong:
        raise UserError(
            f"The weights of {name} are of another shape than its config.json says: {', '.join(wrong[:3])}."
        )
    return model


@contextmanager
def without_advice() -> Iterator[None]:
    """No log lines or progress bars of `transformers` on what is meant to be so."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def load_tokenizer(config: Config, prefix_space: bool = True) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer; `prefix_space`: words may come split, the first looks like all others.

    Raises UserError when it is missing or has a slow one only.
    """
    name = config.model.name
    refuse_odd_folder(name)
    try:
        prefix = {"add_prefix_space": True} if prefix_space and _byte_level(name) else {}
        tokenizer = AutoTokenizer.from_pretrained(name, **_source(config), **prefix)
    except Exception as error:  # each tokenizer class fails in a way of its own
        raise UserError(_no_tokenizer(name, error)) from None
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(_no_tokenizer(name, None))
    return tokenizer  # type: ignore[return-value]


def restore_limits(tokenizer: PreTrainedTokenizerFast, as_loaded: str) -> None:
    """Give a tokenizer the truncation and padding settings of its JSON as it was loaded; encoding changes them."""
    loaded, backend = Tokenizer.from_str(as_loaded), tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if loaded.truncation:
        backend.enable_truncation(**loaded.truncation)
    if loaded.padding:
        backend.enable_padding(**loaded.padding)
    tokenizer.init_kwargs.pop("local_files_only", None)  # how it was fetched, which its files would tell otherwise


def _source(config: Config) -> dict[str, Any]:
    """Which files of a model, and from the cache alone where the hub does not answer: it would be asked for minutes."""
    source = {"revision": config.model.revision, "trust_remote_code": config.model.trust_remote_code}
    return source if Path(config.model.name).is_dir() else {**source, "local_files_only": not hub_answers()}


def _byte_level(name: str) -> bool:
    """RoBERTa's byte-level BPE needs a blank before the first word when words come split."""
    file = Path(name) / "tokenizer.json"
    if not file.is_file():
        return any(part in name.lower() for part in ("roberta", "bart", "deberta-base", "modernbert"))
    content = json.loads(file.read_text(encoding="utf-8"))
    pre = content.get("pre_tokenizer") or {}
    return "ByteLevel" in {pre.get("type"), *(p.get("type") for p in pre.get("pretokenizers", []))}


def _has_only_pickle(name: str) -> bool:
    folder = Path(name)
    return folder.is_dir() and not any(folder.glob("*.safetensors")) and any(folder.glob("pytorch_model*.bin"))


def _no_tokenizer(name: str, error: Exception | None) -> str:
    if error is not None and compat.needs_remote_code(error):
        return _not_found(name, error)
    detail = f" ({str(error).splitlines()[0]})" if error and str(error) else ""
    return (
        f"{name} has no fast tokenizer{detail}; put its tokenizer.json there, or convert a slow one once with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)."
    )


def _not_found(name: str, error: Exception) -> str:
    if compat.needs_remote_code(error):
        return (
            f"{name} brings Python code of its own, which runs only when this command asks for it: read it, then give "
            "model.trust_remote_code=true to train, --trust-remote-code to evaluate and predict, "
            "research.load(run, trust_remote_code=True) in Python."
        )
    said = one_line(error)
    if Path(name).is_dir():
        return f"The model folder {name} cannot be used: {said}"
    if not hub_answers():
        said = "the hub cannot be reached, and it is not in the cache"
    return (
        f"The model {name} is neither a local folder nor to be had from the hub ({said}). Check the name; on a machine "
        "without network, load it once where there is one, or point model.name at a local folder."
    )
