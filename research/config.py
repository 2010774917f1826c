"""The schema of an experiment, and how YAML, `extends` and overrides meet it.

One experiment = the defaults below <- the file it `extends` <- its own YAML <- `key=value` of the
command line. Unknown keys, wrong types and impossible values are refused with the key, the file,
what is allowed and the nearest name. Nothing here imports torch: a typo is told within a second.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from research.errors import UserError

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".conll", ".bio", ".iob", ".iob2", ".txt")


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
    labels: list[str] | None = None  # null: collected over all splits
    max_length: int = 128  # tokens of one window
    stride: int = 128  # tokens two windows of one long example share
    max_answer_tokens: int = 30
    scorer: Literal["squad", "cmrc"] = "squad"
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
    task: str = MISSING
    seed: int = 0
    seed_init: int | None = None  # null: seed
    seed_order: int | None = None  # null: seed
    run_dir: str | None = None  # null: runs/<experiment>/seed<seed>
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    @property
    def init_seed(self) -> int:
        return self.seed if self.seed_init is None else self.seed_init

    @property
    def order_seed(self) -> int:
        return self.seed if self.seed_order is None else self.seed_order


def task_names() -> list[str]:
    """Every file of research/tasks is a task, found by its name."""
    folder = Path(__file__).parent / "tasks"
    return sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "base"))


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment and check it whole.

    Raises UserError that lists every mistake found, each with the file or argument it stands in.
    """
    path = Path(path)
    layers = [(str(path), read_yaml(path))]
    parent = layers[0][1].pop("extends", None)
    if parent is not None:
        base = (path.parent / str(parent)).resolve()
        content = read_yaml(base, named_in=path)
        if "extends" in content:
            raise UserError(f"{base} itself extends another file; `extends` goes one level deep, so merge the two.")
        layers.insert(0, (os.path.relpath(base), content))
    merged = OmegaConf.structured(Config)
    for origin, content in layers:
        refuse_unknown_keys(content, origin)
        merged = merge(merged, content, origin)
    for argument in overrides:
        content = parse_override(argument)
        refuse_unknown_keys(content, f"argument '{argument}'")
        merged = merge(merged, content, f"argument '{argument}'")
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise UserError(f"{path} does not say {' and '.join(missing)}; add {'them' if len(missing) > 1 else 'it'}.")
    config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    settle_paths(config, path)
    check(config, str(path))
    return config


def read_yaml(path: Path, named_in: Path | None = None, what: str = "experiment") -> dict[str, Any]:
    """A YAML file as plain dicts."""
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 3)
        hint = f" Did you mean {', '.join(str(path.parent / n) for n in near)}?" if near else ""
        where = f" (named by `extends` in {named_in})" if named_in else ""
        raise UserError(f"There is no {what} file {path}{where}.{hint}")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except Exception as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold `key: value` lines at its top level.")
    refuse_interpolations(content, str(path))
    return content  # type: ignore[return-value]


def parse_override(argument: str) -> dict[str, Any]:
    """`optim.lr=3e-5` -> {"optim": {"lr": 3e-5}}; the value is YAML and may contain `=`."""
    key, equals, _ = argument.partition("=")
    if not equals or not key.strip():
        raise UserError(f"'{argument}' is not of the form key=value, as in optim.lr=3e-5.")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist([argument]), resolve=False)
    except Exception as error:
        raise UserError(f"The value of '{argument}' is not valid YAML: {' '.join(str(error).split())}") from None
    refuse_interpolations(content, f"argument '{argument}'")
    return content  # type: ignore[return-value]


def refuse_interpolations(content: Any, origin: str, key: str = "") -> None:
    """Raise UserError for a `${...}`: resolved, an environment variable would stand in the run folder and at W&B."""
    if isinstance(content, dict | list):
        inner = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in inner:
            refuse_interpolations(value, origin, f"{key}.{name}".lstrip("."))
    elif isinstance(content, str) and "${" in content:
        raise UserError(f"{origin}: {key} is '{content}', but ${{...}} is not filled in here; write the value itself.")


def refuse_unknown_keys(content: dict[str, Any], origin: str, schema: type = Config, prefix: str = "") -> None:
    """Raise UserError for the first key the schema does not have, naming the nearest one."""
    hints = get_type_hints(schema)
    for key, value in content.items():
        if key not in hints:
            elsewhere = [full for full in all_keys() if full.split(".")[-1] == str(key)]
            near = difflib.get_close_matches(str(key), hints, 1) or elsewhere
            prefixed = [n if "." in n else prefix + n for n in near[:1]]
            hint = f" Did you mean {prefixed[0]}?" if prefixed else ""
            place = f"'{prefix.rstrip('.')}'" if prefix else "the top level"
            raise UserError(f"{origin}: unknown key '{prefix}{key}'.{hint} Keys at {place}: {', '.join(hints)}.")
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                names = ", ".join(get_type_hints(hints[key]))
                raise UserError(f"{origin}: '{prefix}{key}' holds keys ({names}), not the value {value!r}.")
            refuse_unknown_keys(value, origin, hints[key], f"{prefix}{key}.")  # type: ignore[arg-type]


def all_keys(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted."""
    for name, hint in get_type_hints(schema).items():
        if is_dataclass(hint):
            yield from all_keys(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name


def merge(base: Any, content: dict[str, Any], origin: str) -> Any:
    """`content` over `base`, the OmegaConf of a schema. Raises UserError for a value of the wrong type."""
    try:
        return OmegaConf.merge(base, content)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a key"
        said = str(error).splitlines()[0].replace("$VALUE_TYPE", "this type").replace("$VALUE", "this value")
        raise UserError(f"{origin}: {key}: {said}.") from None


def settle_paths(config: Config, experiment: Path) -> None:
    """Make local files and folders absolute (looked up from here, then from the YAML's folder)."""

    def settled(value: str) -> str:
        for base in (Path.cwd(), experiment.resolve().parent):
            if (base / value).exists():
                return str((base / value).resolve())
        return value

    config.model.name = settled(config.model.name)
    if config.data.name:
        config.data.name = settled(config.data.name)
    for split in ("train", "validation", "test"):
        value = getattr(config.data, split)
        if value and (config.data.name is None or value.endswith(DATA_SUFFIXES)):
            setattr(config.data, split, settled(value))
    if config.run_dir is None:
        parts = experiment.resolve().with_suffix("").parts
        root = next((root for root in ("experiments", "runs") if root in parts[:-1]), None)
        name = Path(*parts[parts.index(root) + 1 :]) if root else Path(parts[-1])
        config.run_dir = str(Path("runs") / name / f"seed{config.seed}")
    config.run_dir = os.path.abspath(config.run_dir)


def check(config: Config, origin: str) -> None:
    """Raise UserError with every impossible value at once."""
    wrong = [
        f"{key}={value} {rule}"
        for keys, holds, rule in RULES
        for key in keys.split()
        if not holds(value := attrgetter(key)(config))
    ]
    o, t = config.optim, config.trainer
    if o.class_weights and o.balance_classes:
        wrong.append(f"optim.balance_classes={o.balance_classes} does not go with class_weights: drop one")
    if t.strategy == "fsdp" and t.precision == "fp16":
        wrong.append(f"trainer.precision={t.precision} does not go with trainer.strategy=fsdp: use bf16 or fp32")
    if wrong:
        raise UserError(f"{origin}: " + "; ".join(wrong) + ".")


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


# keys, what their values must fulfil, and how to say it
RULES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("task", lambda v: v in task_names(), f"must be one of {', '.join(task_names())}"),
    ("seed seed_init seed_order", _or_null(lambda v: 0 <= v < 2**32), "must be a whole number from 0 below 2**32"),
    ("model.dropout", _or_null(lambda v: 0 <= v < 1), "must be null or in [0, 1)"),
    ("data.train", lambda v: v is not None, "must name a file, or a split of data.name"),
    ("data.max_length", lambda v: v >= 8, "must be at least 8 tokens"),
    ("data.stride", lambda v: v >= 0, "must be 0 or more tokens"),
    ("data.labels", _or_null(lambda v: len(set(v)) == len(v)), "has a label twice"),
    ("data.max_answer_tokens trainer.log_every_steps trainer.keep", lambda v: v >= 1, "must be at least 1"),
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


def from_dict(content: dict[str, Any]) -> Config:
    """Rebuild a config from a run folder's `config.yaml`."""
    merged = OmegaConf.merge(OmegaConf.structured(Config), content)
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


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
    kept["data"] = {k: v for k, v in config["data"].items() if k != "num_workers"}
    deciding = ("precision", "evaluate_every_steps", "monitor", "sparse_embedding")
    kept["trainer"] = {k: v for k, v in config["trainer"].items() if k in deciding}
    return kept
