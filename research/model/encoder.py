"""Loading an encoder with a head, and feeding it micro-batches packed or padded alike.

Shapes: T tokens, N sequences, L longest, C classes, H width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers import logging as transformers_logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from research.data.hub import hub_answers
from research.data.layout import make_layout
from research.data.pack import MicroBatch
from research.errors import UserError
from research.model.attention import PACKED
from research.model.dropout import swap_dropout

if TYPE_CHECKING:
    from research.config import Config

log = logging.getLogger("research")
PROBE_TOLERANCE = 1e-4  # of the largest output; a leak between sequences shows at 1e-2 and above


class Encoder(nn.Module):
    """A `transformers` model with a head, whose logits come back flat whatever the batching.

    `packed` says how it is fed; `first_position` is where its position ids start (2 for RoBERTa's family).
    """

    def __init__(self, model: PreTrainedModel, packing: bool | str = "auto") -> None:
        super().__init__()
        self.model = model
        self.first_position = 0
        self.packed = False
        self.packing_note = "padded: trainer.packing is false"
        if packing is not False:
            with without_advice():  # on attention that some architectures cannot be told
                self.packed, self.packing_note = self._try_packing()
            if packing is True and not self.packed:
                raise UserError(
                    f"trainer.packing is true, but {type(model).__name__} cannot be packed: {self.packing_note}; "
                    "leave it at auto to train it with padded micro-batches."
                )
        if not self.packed:
            model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
        base = model.base_model
        if self.packed and base is not model:
            base.register_forward_hook(self._restore_sequences, with_kwargs=True)

    def token_logits(self, micro: MicroBatch) -> dict[str, Tensor]:
        """Outputs of a token-level head, each (T, ...) in float32."""
        output = self._forward(micro, restore=False)
        flat = (lambda x: x[0, : micro.size]) if self.packed else micro.fold
        return {name: flat(x).float() for name, x in output.items() if "logits" in name}

    def sequence_logits(self, micro: MicroBatch) -> Tensor:
        """Outputs of a sequence-level head: (N, C) in float32."""
        logits: Tensor = self._forward(micro, restore=True)["logits"].float()
        return logits

    def _forward(self, micro: MicroBatch, restore: bool) -> Any:
        types = micro.tokens.get("token_type_ids")
        if self.packed and micro.layout is not None:
            row = micro.layout.fill  # a repeated first token has a row in every embedding
            inputs: dict[str, Any] = {
                "input_ids": row(micro.tokens["input_ids"]),
                "position_ids": row(micro.positions) + self.first_position,
                "layout": micro.layout,
            }
            if types is not None:
                inputs["token_type_ids"] = row(types)
            if restore:
                self._restoring = micro
                inputs["attention_mask"] = (micro.unfolded < micro.size).long()
        else:
            inputs = {
                "input_ids": micro.unfold(micro.tokens["input_ids"], self.model.config.pad_token_id or 0),
                "attention_mask": (micro.unfolded < micro.size).long(),
            }
            if types is not None:
                inputs["token_type_ids"] = micro.unfold(types, 0)
        try:
            return self.model(**inputs)
        finally:
            self._restoring = None

    _restoring: MicroBatch | None = None

    def _restore_sequences(self, base: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Before a sequence-level head: (1, T, H) becomes (N, L, H), and the pooler sees first tokens again."""
        micro = self._restoring
        if micro is None:
            return output
        output.last_hidden_state = micro.unfold(output.last_hidden_state[0, : micro.size], 0)
        pooler = getattr(base, "pooler", None)
        if pooler is not None:
            activation = getattr(base, "pooler_activation", None)  # ALBERT's pooler is a bare linear layer
            x = output.last_hidden_state
            output.pooler_output = activation(pooler(x[:, 0])) if activation else pooler(x)
        return output

    @torch.no_grad()
    def _try_packing(self) -> tuple[bool, str]:
        """Does this encoder give the same outputs packed as padded? A small batch decides, never the class name."""
        base, training = self.model.base_model, self.model.training
        lengths = _probe_lengths(self.model.config)
        T = int(lengths.sum())
        ids = torch.from_numpy(np.random.default_rng(0).integers(5, min(1000, self.model.config.vocab_size), T))
        positions = torch.cat([torch.arange(n) for n in lengths.tolist()])
        layout = make_layout(lengths)
        micro = MicroBatch({"input_ids": ids}, {}, lengths, lengths, layout, positions)
        pad = self.model.config.pad_token_id or 0
        ids[ids == pad] -= 1
        try:
            base.eval()
            self.model.set_attn_implementation("eager")
            mask = (micro.unfolded < T).long()
            expected = micro.fold(base(input_ids=micro.unfold(ids, pad), attention_mask=mask)[0])
            self.model.set_attn_implementation(PACKED)
            for first in (0, pad + 1):
                try:
                    got = base(input_ids=layout.fill(ids), position_ids=layout.fill(positions) + first, layout=layout)[
                        0
                    ][0, :T]
                except Exception as error:
                    return False, f"it does not take packed input ({str(error).splitlines()[0]})"
                difference = float((got - expected).abs().max() / expected.abs().max())
                if difference < PROBE_TOLERANCE:
                    self.first_position = first
                    return True, f"packed: equal to padded {f'within {difference:.0e}' if difference else 'to the bit'}"
            return False, f"its sequences see each other when packed (outputs differ by {difference:.0e})"
        except Exception as error:
            return False, f"the probe failed ({str(error).splitlines()[0]})"
        finally:
            self.model.train(training)


def _probe_lengths(config: PretrainedConfig) -> np.ndarray:
    """A few short sequences, and one longer than any sliding window of the encoder."""
    window = getattr(config, "sliding_window", None) or getattr(config, "local_attention", None) or 0
    longest = min(2 * window + 8 if window else 24, (getattr(config, "max_position_embeddings", None) or 512) - 4)
    return np.array([max(longest, 8), 7, 5, 2], dtype=np.int64)


def load_config(config: Config, labels: Sequence[str] = ()) -> PretrainedConfig:
    """The model's own config with the head's labels and `model.dropout` in it.

    Raises UserError for a folder that is not a model, a hub name without network and a decoder.
    """
    name = config.model.name
    _refuse_empty_folder(name)
    # Without labels two, for the start and the end of a span, whatever the weights were tuned for before.
    ids = {label: i for i, label in enumerate(labels or ("LABEL_0", "LABEL_1"))}
    head = {"num_labels": len(ids), "id2label": {i: label for label, i in ids.items()}, "label2id": ids}
    try:
        own = AutoConfig.from_pretrained(name, **_source(config), **head)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(_not_found(name, error)) from None
    kind = own.model_type
    if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or own.is_encoder_decoder:
        family = "a decoder" if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else "not an encoder"
        raise UserError(
            f"{name} is a '{kind}' model, {family}; task '{config.task}' fine-tunes encoders such as bert, roberta, "
            "xlm-roberta, distilbert, electra, albert, deberta-v2 or modernbert."
        )
    positions = getattr(own, "max_position_embeddings", None)
    if positions:
        usable = positions - (own.pad_token_id + 1 if kind in ("roberta", "xlm-roberta", "camembert") else 0)
        if config.data.max_length > usable:
            raise UserError(
                f"data.max_length={config.data.max_length} is more than the {usable} positions of {name}; "
                f"set it to {usable} or less (longer texts are windowed or cut there)."
            )
    if config.model.dropout is not None:
        for key, value in own.to_dict().items():
            if "dropout" in key and not isinstance(value, bool | str):
                setattr(own, key, config.model.dropout)
    return own


def load_model(config: Config, own: PretrainedConfig, auto_class: Any) -> PreTrainedModel:
    """The pretrained encoder with a freshly initialised head of `auto_class`, in float32.

    Raises UserError when the weights are missing, cut short or of another shape.
    """
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
                ignore_mismatched_sizes=True,  # a head tuned for other labels is made anew
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise UserError(f"The weights of {name} are damaged or cut short ({error}); fetch them again.") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(_not_found(name, error)) from None
    wrong = sorted(key for key, *_ in loaded["mismatched_keys"] if key.startswith(f"{model.base_model_prefix}."))
    if wrong:
        raise UserError(
            f"The weights of {name} are of another shape than its config.json says: {', '.join(wrong[:3])}."
        )
    if config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not torch.cuda.is_available():
        swap_dropout(model)
    trainable: PreTrainedModel = model.train()
    return trainable


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


def load_tokenizer(config: Config) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer. Raises UserError when it is missing or has a slow one only."""
    name = config.model.name
    _refuse_empty_folder(name)
    try:
        prefix = {"add_prefix_space": True} if _byte_level(name) else {}
        tokenizer = AutoTokenizer.from_pretrained(name, **_source(config), **prefix)
    except Exception as error:  # each tokenizer class fails in a way of its own
        raise UserError(_no_tokenizer(name, error)) from None
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(_no_tokenizer(name, None))
    return tokenizer  # type: ignore[return-value]


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


def _refuse_empty_folder(name: str) -> None:
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{name} is not a model folder: it has no config.json.")
    if not folder.exists() and name.startswith(("/", "./", "../", "~")):
        raise UserError(f"There is no model folder {name}.")


def _has_only_pickle(name: str) -> bool:
    folder = Path(name)
    return folder.is_dir() and not any(folder.glob("*.safetensors")) and any(folder.glob("pytorch_model*.bin"))


def _no_tokenizer(name: str, error: Exception | None) -> str:
    detail = f" ({str(error).splitlines()[0]})" if error and str(error) else ""
    return (
        f"{name} has no fast tokenizer{detail}; put its tokenizer.json there, or convert a slow one once with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)."
    )


def _not_found(name: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    if Path(name).is_dir():
        return f"No usable weights in the model folder {name}: {said}"
    if not hub_answers():
        said = "the hub cannot be reached, and it is not in the cache"
    return (
        f"The model {name} is neither a local folder nor to be had from the hub ({said}). Check the name; on a machine "
        "without network, load it once where there is one, or point model.name at a local folder."
    )
