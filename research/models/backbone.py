"""Feed a model of `transformers` with micro-batches, packed or padded alike: encoders, decoders and encoder-decoders.

Shapes: T tokens of a stream, N sequences, L longest, C classes, W width of the model, K tokens that are asked for,
V vocabulary.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import EncoderDecoderModel, PreTrainedModel

from research.batching.pack import MicroBatch, Stream
from research.batching.read_tokens import ALL, FIRST, Reading
from research.batching.store import INPUT, SOURCE, TARGET
from research.common import compat
from research.common.errors import UserError
from research.models import last_layer, prompted
from research.models.architecture import attention_family, drop_no_layers, head_bias, output_layer, padding_id
from research.models.attention import CROSS, Plans, mark_cross_attention
from research.models.frozen import FrozenLayers, run_above
from research.models.linear_cross_entropy import LARGE_SCORES, linear_cross_entropy, plain_cross_entropy
from research.models.load import DECODER, ENCODER, ENCODER_DECODER, without_advice
from research.models.positions import follow_sequences, set_plans
from research.models.probe import TOLERANCE, in_evaluation, probe_batch, try_packing


class Backbone(nn.Module):
    """A `transformers` model with a head, whose outputs come back flat whatever the batching.

    `family` is encoder, decoder or encoder-decoder; `packed` says how it is fed; `first_position` is where its position
    ids start (2 for RoBERTa's family).
    """

    def __init__(self, model: PreTrainedModel, packing: bool | str = "auto", trains_alone: bool = False) -> None:
        """`trains_alone`: in training, too, compute the last layer for the tokens alone that are read."""
        super().__init__()
        self.model = model
        mark_cross_attention(model)
        self.family = attention_family(model)
        self.taught = follow_sequences(model)  # modules whose positions follow the plans of a row
        self.first_position = 0
        self.prompt_tokens, self.words = 0, 0  # in front of each sequence, by ids from `words` on
        self.packed = False
        self.packing_note = "padded: trainer.packing is false"
        if packing is not False:
            with without_advice():  # on attention that some architectures cannot be given
                self.packed, self.packing_note = try_packing(self)
            if packing is True and not self.packed:
                raise UserError(
                    f"trainer.packing is true, but {type(model).__name__} cannot be packed: {self.packing_note}; "
                    "leave it at auto to train it with padded micro-batches."
                )
        if not self.packed:
            model.set_attn_implementation(compat.native_attention(model))
        if drop_no_layers(model):
            self.packing_note += "; LayerDrop is off, whose draws would depend on the micro-batches"
        self.frozen: FrozenLayers | None = None  # whose outputs may be given
        self.quiet: list[nn.Module] = []  # without dropout in training, too
        self.asked_of: set[str] = set()  # which tokens' outputs the task has read
        self.reads_alone = last_layer.reads_alone(self, probe_batch(model.config), TOLERANCE)
        self.trains_alone = trains_alone and self.reads_alone
        base, head = model.base_model, self.head
        if self.packed and base is not model:
            base.register_forward_hook(self._restore_sequences, with_kwargs=True)
        if head is not None:
            head.register_forward_pre_hook(self._keep_asked)

    _restoring: Stream | None = None  # a sequence-level head is coming
    _restored: int | None = None  # how many tokens of each sequence it is given; None: all
    reading: Reading | None = None  # what the last layer is computed for, if not for all tokens
    _asked: Tensor | None = None  # (K,) places of the flattened hidden states that are scored over the vocabulary
    _states: list[Tensor] | None = None  # where the (K, W) hidden states are to be left, and none scored

    @property
    def head(self) -> nn.Module | None:
        """The layer that scores the vocabulary, if the model has one."""
        return output_layer(self.model)

    def token_logits(self, micro: MicroBatch, which: str = ALL) -> dict[str, Tensor]:
        """Outputs of a token-level head, each (T, ...) in float32; of `which` tokens, 0 at others."""
        self.asked_of.add(which)
        micro = self.lengthened(micro)
        output = run_above(self, self.model, micro.first, self.inputs_of(micro, which))
        return {name: self._own(micro.first, x).float() for name, x in output.items() if "logits" in name}

    def sequence_logits(self, micro: MicroBatch) -> Tensor:
        """Outputs of a sequence-level head: (N, C) in float32."""
        first = self.packed and (self._alone or self.frozen is not None) and self._first_suffices
        self.asked_of.add(FIRST if first else ALL)
        return self.logits_of(micro, FIRST if first and self._alone else ALL)

    def logits_of(self, micro: MicroBatch, which: str) -> Tensor:
        """As `sequence_logits`, of which the head is given these tokens' hidden states."""
        micro = self.lengthened(micro)
        inputs = self.inputs_of(micro, which)
        if self.packed:
            self._restoring, self._restored = micro.first, 1 if which == FIRST else None
            inputs["attention_mask"] = micro.first.mask[:, : self._restored]
        try:
            logits: Tensor = run_above(self, self.model, micro.first, inputs)["logits"].float()
        finally:
            self._restoring = None
        return logits

    @property
    def _alone(self) -> bool:
        """Does the last layer compute the tokens alone that are read? In training this changes what dropout draws."""
        return self.trains_alone if self.model.training else self.reads_alone

    @cached_property
    def _first_suffices(self) -> bool:
        """Does the sequence-level head read the first token of each sequence alone?"""
        return last_layer.first_suffices(self, probe_batch(self.model.config), TOLERANCE)

    def hidden_states(self, stream: Stream, which: str = ALL) -> Tensor:
        """What the model says of each token of one stream, below any head: (T, W) in float32; 0 at those not asked."""
        self.asked_of.add(which)
        micro = self.lengthened(MicroBatch({INPUT: stream}))
        inputs = self.inputs_of(micro, which)
        return self._own(micro.first, run_above(self, self.model.base_model, micro.first, inputs)[0]).float()

    def train(self, mode: bool = True) -> Backbone:
        """As usual, but for the modules that have no dropout in training either."""
        super().train(mode)
        for module in self.quiet:
            module.training = False
        return self

    def inputs_of(self, micro: MicroBatch, which: str) -> dict[str, Any]:
        """The inputs of a pass of which these tokens' outputs are read; the last layer may compute no other."""
        inputs = self.inputs(micro)
        alone = self.packed and self._alone and not self.prompt_tokens
        if self.frozen is not None and micro.first.features is not None:
            alone = alone and not self.frozen.are_all  # else the last layer is skipped
        self.reading = micro.first.reading(which) if alone else None
        if self.reading is not None:
            inputs["plans"].reading = self.reading
        return inputs

    def vocabulary_logits(self, micro: MicroBatch, asked: Tensor) -> Tensor:
        """Scores over the vocabulary at these tokens of the predicting stream, and nowhere else: (K, V) in float32.

        `asked`: (K,) indices of the target's tokens in an encoder-decoder, of the only stream's elsewhere.
        """
        micro = self.lengthened(micro)
        stream = self.predicting(micro)
        if self.prompt_tokens and stream is micro.first:
            asked = (stream.positions >= self.prompt_tokens).nonzero().squeeze(1)[asked]
        self._asked = asked if self.packed else stream.mask.flatten().nonzero().squeeze(1)[asked]
        try:
            logits: Tensor = self.model(**self.inputs(micro))["logits"]
        finally:
            self._asked = None
        return logits[0].float()

    def vocabulary_losses(
        self, micro: MicroBatch, asked: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of the vocabulary at these tokens: summed, smoothed, and of each without smoothing, (K,).

        Where the scores would be many, they are made and forgotten chunk by chunk.
        """
        head: Any = self.head
        if getattr(head, "out_features", 0) * len(asked) < LARGE_SCORES or not self.is_linear_head:
            return plain_cross_entropy(self.vocabulary_logits(micro, asked), targets, smoothing)
        states, bias = self._states_of(micro, asked), head_bias(self.model, head)
        return linear_cross_entropy(states, head.weight, bias, targets, smoothing)

    @cached_property
    def is_linear_head(self) -> bool:
        """Are the scores of the vocabulary the output layer's product alone? A cap, or a scale, would be lost."""
        head: Any = self.head
        if type(head) is not nn.Linear or isinstance(head.weight, DTensor):
            return False
        device = head.weight.device
        micro, asked = probe_batch(self.model.config, self.packed).to(device), torch.arange(4, device=device)
        with in_evaluation(self.model):
            states, bias = self._states_of(micro, asked), head_bias(self.model, head)
            scores = self.vocabulary_logits(micro, asked)
            own = states @ head.weight.T + (0 if bias is None else bias)
        return bool((scores - own).abs().max() <= 1e-4 * own.abs().max())

    def _states_of(self, micro: MicroBatch, asked: Tensor) -> Tensor:
        """What the output layer reads at these tokens, (K, W)."""
        states: list[Tensor] = []
        self._states = states
        try:
            self.vocabulary_logits(micro, asked)
        finally:
            self._states = None
        return states[0]

    def predicting(self, micro: MicroBatch) -> Stream:
        """The stream whose tokens the model's outputs belong to."""
        return micro.streams[TARGET] if self.family == ENCODER_DECODER else micro.first

    def lengthened(self, micro: MicroBatch) -> MicroBatch:
        """The micro-batch with the adapter's prompt, if any, in front of each sequence."""
        return prompted.lengthened(micro, self.prompt_tokens, self.words)

    def _own(self, stream: Stream, x: Tensor) -> Tensor:
        """As `flat`, without the tokens of the prompt."""
        if self.reading is not None:
            return self.reading.spread(x[0], stream.size)
        x = self.flat(stream, x)
        return x[stream.positions >= self.prompt_tokens] if self.prompt_tokens else x

    def flat(self, stream: Stream, x: Tensor) -> Tensor:
        """(1, T + filler, ...) or (N, L, ...) -> (T, ...)."""
        return x[0, : stream.size] if self.packed else stream.unpad(x)

    def inputs(self, micro: MicroBatch) -> dict[str, Any]:
        """Keyword arguments of the model's forward pass."""
        plans = None
        if self.family != ENCODER_DECODER:
            inputs = self._of_stream(micro.first)
        else:
            inputs = self._of_stream(micro.streams[SOURCE])
            of_target = self._of_stream(micro.streams[TARGET])
            inputs |= {f"decoder_{name}": x for name, x in of_target.items()}
            if self.packed and not isinstance(self.model, EncoderDecoderModel):  # their stacks take no position ids
                del inputs["position_ids"], inputs["decoder_position_ids"]
        if self.packed:
            plans = self._plans(micro)
            inputs["plans"] = plans
            if isinstance(self.model, EncoderDecoderModel):  # two models: the decoder gets what is named so
                inputs["decoder_plans"] = plans
        if self.family != ENCODER:
            inputs["use_cache"] = False
        set_plans(self.taught, plans)
        return inputs

    def _of_stream(self, stream: Stream) -> dict[str, Any]:
        ids, types = stream.tokens["input_ids"], stream.tokens.get("token_type_ids")
        if self.packed and stream.layout is not None:
            row = stream.layout.fill  # a repeated first token has a row in every embedding
            inputs: dict[str, Any] = {
                "input_ids": row(ids),
                "position_ids": row(stream.positions) + self.first_position,
            }
            if types is not None:
                inputs["token_type_ids"] = row(types)
            return inputs
        inputs = {"input_ids": stream.pad(ids, padding_id(self.model.config)), "attention_mask": stream.mask}
        if types is not None:
            inputs["token_type_ids"] = stream.pad(types, 0)
        return inputs

    def _plans(self, micro: MicroBatch) -> Plans:
        """The plan of each of the model's kinds of attention."""
        names = {ENCODER: SOURCE, DECODER: TARGET} if self.family == ENCODER_DECODER else {self.family: None}
        plans = Plans({})
        for role, name in names.items():
            stream = micro.streams[name] if name else micro.first
            if stream.layout is not None:
                plans.by_role[role] = stream.layout.attention
                plans.positions[role] = stream.layout.fill(stream.positions)[0]
        if micro.cross is not None:
            plans.by_role[CROSS] = micro.cross
        return plans

    def _restore_sequences(self, base: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Before a sequence-level head: (1, T, W) becomes (N, L or 1, W), and the pooler sees first tokens again."""
        stream = self._restoring
        if stream is None:
            return output
        x, reading = output.last_hidden_state[0], self.reading
        states = stream.pad(x[: stream.size], 0) if reading is None else x[: reading.size, None]
        output.last_hidden_state = states[:, : self._restored]
        pooler = getattr(base, "pooler", None)
        if pooler is not None:
            activation = getattr(base, "pooler_activation", None)  # ALBERT's pooler is a bare linear layer
            x = output.last_hidden_state
            output.pooler_output = activation(pooler(x[:, 0])) if activation else pooler(x)
        return output

    def _keep_asked(self, head: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        """Before the layer that scores the vocabulary: (1 or N, T or L, W) becomes (1, K, W)."""
        if self._asked is None:
            return None
        if args[0].ndim != 3:
            raise UserError(f"{type(self.model).__name__} scores more than one next token; it cannot be trained here.")
        states = args[0].flatten(0, 1)[self._asked]
        if self._states is not None:
            self._states.append(states)
            states = states[:0]
        return (states[None],)
