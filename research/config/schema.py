"""The schema of an experiment, and how YAML, `extends` and overrides meet it.

One experiment = the defaults below <- the file it `extends` <- its own YAML <- `key=value` of the
command line. Unknown keys, wrong types and impossible values are refused with the key, the file,
what is allowed and the nearest name. Nothing here imports torch: a typo is reported within a second.

Tasks, adapters, methods and callbacks are chosen by name and bring keys of their own (`research/config/component.py`):
`schema_of` makes the schema of an experiment, an instance of `Config` with its components' keys in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, Literal

from omegaconf import MISSING

from research.common import compat
from research.common.errors import UserError
from research.config import component
from research.config.component import Named
from research.config.key import broken_rules

DATA_SUFFIXES = (
    ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".conll", ".conllu", ".bio", ".iob", ".iob2", ".txt"
)  # fmt: skip
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "conll", "squad", "semeval", "text")  # of data.format
ONE_OF = {"task": "task", "adapter": "adapter"}  # section that names one component -> its kind
SOME_OF = {"methods": "method", "callbacks": "callback"}  # section that names any number of them -> their kind


@dataclass
class ModelConfig:
    name: str = MISSING  # a hub name or a local folder
    revision: str | None = None
    dropout: float | None = None  # null keeps the model's own; a number sets every dropout
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False


@dataclass
class DataConfig:
    name: str | None = None  # hub data set; null: train, validation and test are local files
    config: str | None = None
    revision: str | None = None
    train: str | None = None  # a local file, or a split of the hub data set
    validation: str | None = None
    test: str | None = None
    columns: dict[str, str] = field(default_factory=dict)  # field of the task -> column of the data
    format: str | None = None  # of files whose name does not say it; null: by suffix
    encoding: str | None = None  # null: UTF-8, or UTF-16 with a byte order mark
    separator: str | None = None  # of CSV cells; null: what the first line shows
    quoting: Literal["auto", "double", "none", "backslash"] = "auto"  # auto: double in CSV, none in TSV
    header: bool = True  # false: CSV columns are named by their numbers from 1
    labels: list[str] | None = None  # null: collected over all splits
    cluster: str | None = None  # column that says which examples belong together, for intervals and tests
    title: str | None = None  # what tables call the data set; null: its hub name, or the folder of its file
    max_length: int = 128  # tokens of one window
    max_train_examples: int | None = None
    max_eval_examples: int | None = None
    num_workers: int = 1  # threads that prepare batches ahead; 0: each when it is needed


@dataclass
class OptimConfig:
    lr: float = 5e-5
    warmup_ratio: float = 0.1
    warmup_steps: int | None = None  # wins over warmup_ratio
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01  # spares biases and norms
    batch_size: int = 32  # examples in one optimiser step, over all devices
    epochs: float = 3
    max_steps: int | None = None  # wins over epochs
    max_grad_norm: float | None = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    label_smoothing: float = 0.0
    class_weights: dict[str, float] = field(default_factory=dict)  # label -> weight in the loss; others weigh 1
    balance_classes: bool = False  # weigh each class by the inverse of its frequency
    patience: int | None = None  # evaluations without a better score before stopping early


@dataclass
class TrainerConfig:
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"  # of a node; auto: as many as were started, every GPU, or one CPU process
    num_nodes: int | Literal["auto"] = "auto"  # auto: as many as srun or torchrun has started it on
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    packing: bool | Literal["auto"] = "auto"
    tokens_per_microbatch: int | None = None  # null: by device
    sparse_embedding: bool | Literal["auto"] = "auto"  # update only the rows a step uses
    evaluate_every_steps: int | None = None  # null: after each epoch
    monitor: str | None = None  # null: the task's own metric; loss and calibration_error are minimised
    log_every_steps: int = 25
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = 10.0
    keep: int = 2  # newest checkpoints kept beside the best
    keep_predictions: bool = False  # those of each evaluation, not of the best alone
    progress: bool | Literal["auto"] = "auto"


@dataclass
class WandbConfig:
    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "research"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    tensorboard: bool = False  # write TensorBoard events beside it


@dataclass
class Config:
    task: Named = field(default_factory=Named)
    seed: int = 0
    seed_init: int | None = None  # null: seed
    seed_order: int | None = None  # null: seed
    run_dir: str | None = None  # null: runs/<experiment>/seed<seed>
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    adapter: Named = field(default_factory=lambda: component.choose("adapter", "full"))
    methods: dict[str, Named] = field(default_factory=dict)
    callbacks: dict[str, Named] = field(default_factory=dict)

    @property
    def init_seed(self) -> int:
        return self.seed if self.seed_init is None else self.seed_init

    @property
    def order_seed(self) -> int:
        return self.seed if self.seed_order is None else self.seed_order


def schema_of(contents: Sequence[dict[str, Any]]) -> tuple[Config, list[dict[str, Any]]]:
    """The schema with the own keys of the components that the contents choose by name; a later content overrides.

    Also the contents, without the own keys of a component that a later content replaces or switches off.
    """
    schema, contents = Config(), [dict(content) for content in contents]
    for section, kind in ONE_OF.items():
        name = _chosen(contents, section) or getattr(schema, section).name
        if name != MISSING:
            setattr(schema, section, component.choose(kind, name))
    for section, kind in SOME_OF.items():
        given: dict[str, Any] = {}  # name -> own keys or False; the last content's
        for content in contents:
            given |= content.get(section) or {}
        for content in contents:
            if section in content:
                content[section] = {n: own for n, own in content[section].items() if given[n] is not False and own}
        for name in (name for name, own in given.items() if own is not False):
            chosen = _chosen([content.get(section, {}) for content in contents], name) or name
            getattr(schema, section)[name] = component.choose(kind, chosen)
    return schema, contents


def _chosen(contents: list[dict[str, Any]], section: str) -> str | None:
    """The name that a section has in the last content to name one; own keys given before it was renamed are dropped."""
    chosen = None
    for i, content in enumerate(contents):
        name = (content.get(section) or {}).get("name", MISSING)
        if name == MISSING:
            continue
        if chosen not in (None, name):
            for earlier in contents[:i]:
                earlier.pop(section, None)
        chosen = name
    return chosen


def sections(schema: Any) -> dict[str, Any]:
    """The keys of a schema, an instance: those that hold keys of their own with their schema, the others with None."""
    found: dict[str, Any] = {}
    for f in fields(schema):
        value = getattr(schema, f.name)
        is_section = is_dataclass(value) or (isinstance(schema, Config) and f.name in SOME_OF)
        found[f.name] = value if is_section else None
    return found


def all_keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a schema, dotted."""
    inner = schema if isinstance(schema, dict) else sections(schema)
    for name, section in inner.items():
        if section is None:
            yield prefix + name
        else:
            yield from all_keys(section, f"{prefix}{name}.")


def check(config: Config, origin: str) -> None:
    """Raise UserError with every impossible value at once."""
    wrong = [
        f"{key}={value} {rule}"
        for keys, holds, rule in RULES
        for key in keys.split()
        if not holds(value := attrgetter(key)(config))
    ]
    wrong += broken_keys(config)
    o, t = config.optim, config.trainer
    if o.class_weights and o.balance_classes:
        wrong.append(f"optim.balance_classes={o.balance_classes} does not go with class_weights: drop one")
    if t.strategy == "fsdp" and t.precision == "fp16":
        wrong.append(f"trainer.precision={t.precision} does not go with trainer.strategy=fsdp: use bf16 or fp32")
    if wrong:
        raise UserError(f"{origin}: " + "; ".join(wrong) + ".")


def is_codec(name: str) -> bool:
    """Whether Python can decode text by this name."""
    try:
        return compat.is_text_encoding(name)
    except LookupError:
        return False


def broken_keys(section: Any, prefix: str = "") -> list[str]:
    """Every value of a section, and of those inside it, that breaks a rule of its key."""
    if isinstance(section, dict):
        return [line for name, inner in section.items() for line in broken_keys(inner, f"{prefix}{name}.")]
    wrong: list[str] = []
    inner = sections(section)
    for f in fields(section):
        if inner[f.name] is not None:
            wrong += broken_keys(inner[f.name], f"{prefix}{f.name}.")
        else:
            value = getattr(section, f.name)
            wrong += [f"{prefix}{f.name}={value} {text}" for text in broken_rules(f, value)]
    return wrong


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


# keys, what their values must fulfil, and how to say it
RULES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("seed seed_init seed_order", _or_null(lambda v: 0 <= v < 2**32), "must be a whole number from 0 below 2**32"),
    ("model.dropout", _or_null(lambda v: 0 <= v < 1), "must be null or in [0, 1)"),
    ("data.train", lambda v: v is not None, "must name a file, or a split of data.name"),
    ("data.max_length", lambda v: v >= 8, "must be at least 8 tokens"),
    ("data.format", _or_null(lambda v: v in FORMATS), f"must be one of {', '.join(FORMATS)}"),
    ("data.encoding", _or_null(is_codec), "is no text encoding Python knows; names are utf-8, cp1252, gb18030, ..."),
    ("data.separator", _or_null(lambda v: len(v) == 1 and v not in '"\r\n'), "must be one character"),
    ("data.title", _or_null(lambda v: v.isprintable() and v.strip()), "must be a name on one line"),
    ("data.labels", _or_null(lambda v: len(set(v)) == len(v)), "has a label twice"),
    ("trainer.log_every_steps trainer.keep", lambda v: v >= 1, "must be at least 1"),
    ("data.num_workers", lambda v: v >= 0, "must be 0 or more"),
    ("optim.lr", lambda v: math.isfinite(v) and v > 0, "must be a number above 0, such as 5e-5"),
    ("optim.warmup_ratio", lambda v: 0 <= v <= 1, "must be in [0, 1]"),
    ("optim.warmup_steps", _or_null(lambda v: v >= 0), "must be 0 or more"),
    ("optim.weight_decay", lambda v: 0 <= v < math.inf, "must be 0 or more"),
    ("optim.batch_size", lambda v: v >= 1, "must be at least 1 example"),
    ("optim.epochs", lambda v: 0 < v < math.inf, "must be above 0"),
    ("optim.beta1 optim.label_smoothing", lambda v: 0 <= v < 1, "must be in [0, 1)"),
    ("optim.beta2", lambda v: 0 < v < 1, "must be in (0, 1)"),
    ("optim.eps", lambda v: v > 0, "must be above 0"),
    ("optim.class_weights", lambda v: all(0 < weight < math.inf for weight in v.values()), "must be above 0"),
    ("trainer.devices trainer.num_nodes", lambda v: v == "auto" or int(v) >= 1, "must be auto or at least 1"),
    (
        "data.max_train_examples data.max_eval_examples optim.max_grad_norm optim.max_steps optim.patience "
        "trainer.tokens_per_microbatch trainer.evaluate_every_steps trainer.checkpoint_every_steps "
        "trainer.checkpoint_every_minutes",
        _or_null(lambda v: v > 0), "must be above 0, or null",
    ),
]  # fmt: skip


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved config as plain, JSON-ready values."""
    return asdict(config)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`optim.lr: 5e-05 -> 3e-05` for every key whose value differs."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def result_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that decides the numbers; the rest is layout, place and logging."""
    kept = {key: value for key, value in config.items() if key not in ("run_dir", "wandb", "trainer")}
    kept["data"] = {k: v for k, v in config["data"].items() if k not in ("num_workers", "title", "cluster")}
    deciding = ("precision", "evaluate_every_steps", "monitor", "sparse_embedding")
    kept["trainer"] = {k: v for k, v in config["trainer"].items() if k in deciding}
    return kept
