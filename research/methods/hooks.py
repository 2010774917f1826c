"""What a method of training may do: few hooks, called by the module at fixed places of a step.

Each method keeps what the step plan promises: the same result for any micro-batches and ranks, and bit-equal resume.
So whatever it adds to the loss is a sum over targets, divided by the targets of the global batch; what it adds to
gradients it adds once a step; what it draws is drawn from torch's generator, which is seeded by (seed, step, rank), or
from (seed, step, what) where all ranks need the same; and all that it remembers is in its `state`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from research.common.errors import UserError
from research.config import component

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices
    from research.config.schema import Config
    from research.models.backbone import Backbone
    from research.models.embedding import RowEmbedding

# Vectors by kind, each (n, ...), and the n examples they are of.
Vectors = dict[str, tuple[Tensor, "Indices"]]
# The summed loss of a micro-batch in training, and the outputs it was made from.
Loss = Callable[["MicroBatch"], tuple[Tensor, Any]]


class Trained(Protocol):
    """What a method sees of the module that is trained."""

    config: Config
    backbone: Backbone
    rows: RowEmbedding | None

    data: Any  # the task's `TaskData`
    total_steps: int
    targets_are_tokens: ClassVar[bool]  # is a target one of the tokens of its window, as the start of an answer is?

    @property
    def step(self) -> int:
        """Optimiser steps done."""

    def outputs(self, micro: MicroBatch) -> Any:
        """The head's outputs for a micro-batch."""

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed over targets, with the run's label smoothing and class weights."""

    def target_logits(self, micro: MicroBatch, outputs: Any) -> list[Tensor]:
        """Logits of each target: (targets, classes), minus infinity where a target has no such class; for a task with
        several distributions a target, one tensor each, whose losses are averaged."""


class MethodHooks:
    """A method of training. By default each hook does nothing."""

    passes = 1.0  # forward and backward passes of a step, in plain ones
    acts_by_length = False  # what it does at a step depends on how long the run is
    needs_dense_embedding = False  # it reads or moves all rows of the word embedding at each step
    needs_unsharded_weights = False  # it reads or moves weights that trainer.strategy=fsdp shares out
    reads_training_texts = False  # as the files have them: it does not go with `augment`, which changes them
    needs_target_logits = False  # of the task: it compares distributions
    needs_target_examples = False  # of the task: it reads logits that were kept by example
    reads_unlabelled = False  # does it read the texts of data.unlabelled?
    claims: ClassVar[tuple[str, ...]] = ()  # what only one method of a run can do, as in "moves the embedded tokens"
    copies = 1  # of a micro-batch that are computed at a time: its token budget is divided by them

    def __init__(self, keys: Any) -> None:
        """`keys` are the method's section of the config."""
        self.keys = keys

    @property
    def is_off(self) -> bool:
        """At strength 0: the run is to the bit one without the method."""
        return False

    def on_model(self, module: Trained) -> None:
        """Once, before training: change or remember weights. Raises UserError for a model or task it does not suit."""

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        """The summed loss of a micro-batch in training; `plain` computes it without this method."""
        return plain(micro)

    def embed(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Vectors]:
        """For a method whose loss needs the whole step: its part of the loss of a micro-batch, and vectors by kind,
        each (n, ...), with the n examples they are of. It takes the place of `loss`."""
        raise NotImplementedError

    def step_loss(self, module: Trained, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
        """The loss summed over the targets of the whole step, from the vectors of all its micro-batches on all ranks,
        sorted by example."""
        raise NotImplementedError

    @property
    def needs_whole_step(self) -> bool:
        return type(self).step_loss is not MethodHooks.step_loss

    def learning_rate(self, module: Trained, name: str) -> float:
        """The factor of a weight's learning rate; weights of one factor are updated together."""
        return 1.0

    def at_step(self, module: Trained) -> AbstractContextManager[None]:
        """Surrounds the passes of a step and the exchange of gradients: other weights may stand in the model within."""
        return nullcontext()

    def after_backward(self, module: Trained) -> None:
        """Once a step, after the ranks exchanged gradients, before clipping: change each `p.grad` in place."""

    def after_step(self, module: Trained) -> None:
        """Once a step, when the weights have been updated."""

    def at_evaluation(self, module: Trained) -> AbstractContextManager[None]:
        """Surrounds evaluation and export: the model may have other weights within it."""
        return nullcontext()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the method."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""


def refuse_conflicts(methods: Mapping[str, MethodHooks], strategy: str, whole_step_task: str | None) -> None:
    """Raise UserError for methods that do not go together, not with the strategy, or not with a task whose loss is of
    whole steps."""
    owner: dict[str, str] = {}
    of_losses = [name for name, method in methods.items() if type(method).loss is not MethodHooks.loss]
    for name, method in methods.items():
        if whole_step_task is not None and (name in of_losses or method.needs_whole_step):
            raise UserError(f"methods.{name} does not go with task '{whole_step_task}', whose loss is of whole steps.")
        if method.needs_whole_step and of_losses:
            raise UserError(
                f"methods.{name} does not go with methods.{of_losses[0]}: its loss is of whole steps, the other's of "
                "micro-batches; choose one."
            )
        if method.needs_unsharded_weights and strategy == "fsdp":
            raise UserError(f"methods.{name} does not go with trainer.strategy=fsdp; use ddp.")
        for claim in method.claims:
            if claim in owner:
                raise UserError(f"methods.{name} does not go with methods.{owner[claim]}: each {claim}; choose one.")
            owner[claim] = name


@contextmanager
def with_weights(weights: Mapping[str, nn.Parameter], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it the weights have other values; after it their own, to the bit, whatever happened."""
    raw = {name: weights[name].data for name in others}
    try:
        for name, other in others.items():
            weights[name].data = other.to(raw[name].device)
        yield
    finally:
        for name, own in raw.items():
            weights[name].data = own


def chained(methods: list[MethodHooks], module: Trained, plain: Loss) -> Loss:
    """The loss with all methods in it, the first one outermost."""
    for method in reversed(methods):
        plain = _with(method, module, plain)
    return plain


def _with(method: MethodHooks, module: Trained, plain: Loss) -> Loss:
    return lambda micro: method.loss(module, micro, plain)


def entered(contexts: Iterable[AbstractContextManager[None]]) -> ExitStack:
    """All of these contexts in one; none is left entered where a later one fails."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        return stack.pop_all()


def methods_of(config: Config) -> dict[str, MethodHooks]:
    """The methods that a config switches on, at a strength above 0."""
    made = {name: component.load("method", keys.name).Method(keys) for name, keys in config.methods.items()}
    return {name: method for name, method in made.items() if not method.is_off}
