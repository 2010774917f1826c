"""The encoded examples of several tasks as one store, and the part of a micro-batch that is of one task.

The examples of the tasks follow each other. All share the columns a model reads; the other columns keep the name of
their task in front (`ner label`) and hold nothing in the examples of other tasks. Each window has the number of its
task, and of the first example of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from research.batching.pack import MicroBatch, Stream
from research.batching.read_tokens import Mask
from research.batching.store import INPUT, Store, StreamColumns, constant, end_to_end

READ_BY_MODELS = ("input_ids", "token_type_ids")
TASK, FIRST = "number of the task", "first example of the task"  # of each window


class JointStore(Store):
    """Stores of one stream, by task."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        parts = {task: store.streams[INPUT] for task, store in stores.items()}
        sizes = {task: len(store) for task, store in stores.items()}
        self.first = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))  # example of each task
        stream = StreamColumns(end_to_end([part.windows for part in parts.values()]))
        for name in READ_BY_MODELS:
            if all(name in part.tokens for part in parts.values()):
                stream.tokens[name] = end_to_end([part.tokens[name] for part in parts.values()])
        for name, values in ((TASK, range(len(parts))), (FIRST, self.first.values())):
            columns = [constant(part.windows, x) for part, x in zip(parts.values(), values, strict=True)]
            stream.sequences[name] = end_to_end(columns)
        for task, part in parts.items():
            for own, joint in ((part.tokens, stream.tokens), (part.sequences, stream.sequences)):
                for name in own.keys() - set(READ_BY_MODELS):
                    of_tasks = [own[name] if other == task else size for other, size in sizes.items()]
                    joint[f"{task} {name}"] = end_to_end(of_tasks)
        self.columns = {**stream.tokens, **stream.sequences}
        self.streams = {INPUT: stream}
        self.stream_tokens = np.concatenate([store.stream_tokens for store in stores.values()])
        self.tokens = self.stream_tokens.sum(axis=1)
        self.targets = np.concatenate([store.targets for store in stores.values()])


@dataclass(frozen=True)
class Part:
    """The sequences of one task in a micro-batch, its columns under their own names, its examples numbered from 0."""

    micro: MicroBatch
    first: int  # number of the task's first example in the joint store
    places: Tensor  # of its tokens in the joint micro-batch


def parts_of(micro: MicroBatch, tasks: Iterable[str]) -> Iterator[tuple[str, Part]]:
    """The part of each of these tasks, all in their order, that has a sequence in a micro-batch."""
    joint = micro.first
    numbers, firsts = torch.stack([joint.sequences[TASK], joint.sequences[FIRST]]).cpu().numpy()  # one wait for both
    for number, task in enumerate(tasks):
        chosen = numbers == number
        if chosen.any():
            yield task, _part(micro, task, chosen, int(firsts[chosen.argmax()]))


def _part(micro: MicroBatch, task: str, chosen: Mask, first: int) -> Part:
    """`chosen`: (N,) the sequences of the task; `first`: number of its first example in the joint store."""
    joint, prefix = micro.first, f"{task} "
    places = torch.from_numpy(np.flatnonzero(np.repeat(chosen, joint.lengths))).to(joint.positions.device)
    tokens = {name: joint.tokens[name][places] for name in READ_BY_MODELS if name in joint.tokens}
    tokens |= {name.removeprefix(prefix): x for name, x in joint.tokens.items() if name.startswith(prefix)}
    sequences = {name.removeprefix(prefix): x for name, x in joint.sequences.items() if name.startswith(prefix)}
    examples = joint.examples[chosen] - first
    stream = Stream(tokens, sequences, joint.lengths[chosen], examples, None, joint.positions[places])
    return Part(MicroBatch({INPUT: stream}, idle=micro.idle), first, places)
