"""The schema of an experiment: every key with its type, default, help text, rules, and whether it decides the numbers.

`experiments/base.yaml` and the reference of keys are written from it by `make reference`. Tasks, adapters, methods and
callbacks are chosen by name and bring keys of their own (`research/config/component.py`). Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from research.common import compat
from research.config import component
from research.config.component import Named
from research.config.key import Rule, above, at_least, inside, key

CONLL_SUFFIXES = (".conll", ".conllu", ".bio", ".iob", ".iob2", ".txt")
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", *CONLL_SUFFIXES)
LONG_TEXTS = ("truncate", "head_tail", "window")  # what becomes of them: research/data/long_texts.py
SCRATCH = "scratch"  # the model.name of a model that has no weights yet
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "conll", "squad", "semeval", "text", "documents")  # of data.format


def _is_codec(name: str) -> bool:
    """Whether Python can decode text by this name."""
    try:
        return compat.is_text_encoding(name)
    except LookupError:
        return False


SEED = Rule(lambda v: 0 <= v < 2**32, "must be an integer from 0 below 2**32")
POSITIVE = above(0, ", or null")
COUNT = Rule(lambda v: v == "auto" or int(v) >= 1, "must be auto or at least 1")
FORMAT = Rule(lambda v: v in FORMATS, f"must be one of {', '.join(FORMATS)}")
LONG = Rule(lambda v: v in LONG_TEXTS, f"must be one of {', '.join(LONG_TEXTS)}")
CODEC = Rule(_is_codec, "is no text encoding Python knows; names are utf-8, cp1252, gb18030, ...")
CHARACTER = Rule(lambda v: v == "tab" or (len(v) == 1 and v not in '"\r\n'), "must be one character, or tab")
ONE_LINE = Rule(lambda v: v.isprintable() and bool(v.strip()), "must be a name on one line")
LAYERS = Rule(lambda v: bool(v) and min(v) >= 0 and sorted(set(v)) == v, "must be numbers that rise, from 0")
NO_LABEL_TWICE = Rule(lambda v: len(set(v)) == len(v), "has a label twice")
PROJECT = Rule(
    lambda v: 1 <= len(v) <= 128 and not set(v) & set("/\\#?%:"),
    "must have 1 to 128 characters, none of them / \\ # ? % or :, or W&B refuses it",
)
TAGS = Rule(lambda v: all(1 <= len(tag) <= 64 for tag in v), "must have tags of 1 to 64 characters each")
TITLE = Rule(lambda v: 1 <= len(v) <= 128, "must have 1 to 128 characters, or be null")
ACCOUNT = Rule(lambda v: bool(v) and "/" not in v, "must be the name of a user or team, or null")
WEIGHTS = Rule(lambda v: all(0 < weight < float("inf") for weight in v.values()), "must be above 0")


@dataclass
class ScratchConfig:
    """The architecture of a model whose name is `scratch`. Its tokenizer is trained on the texts of the training data.

    `bert2bert` is an encoder-decoder made of a BERT twice, with that one's sizes and tokenizer.
    """

    family: Literal["bert", "gpt2", "llama", "t5", "bart", "marian", "bert2bert"] | None = key(
        None, "what is built; must be given"
    )
    layers: int | None = key(None, "of an encoder-decoder, in each half; null: 4", at_least(1))
    width: int | None = key(None, "of the hidden states; null: 256", at_least(8))
    heads: int | None = key(None, "of attention, which share the width; null: one for each 64", at_least(1))
    vocabulary: int | None = key(None, "most tokens of the tokenizer; null: 8000", at_least(512, "tokens"))
    positions: int | None = key(None, "tokens of the longest sequence; null: 512", at_least(8, "tokens"))
    encoder: str | None = key(None, "of bert2bert: the BERT that both halves begin with; a name as model.name")


@dataclass
class ModelConfig:
    """The model that training begins with."""

    name: str = key(MISSING, "a name on the hub, a local folder, or a run folder; scratch: begin with none")
    revision: str | None = key(None, "branch, tag or commit on the hub; null: main")
    dropout: float | None = key(
        None, "a number sets every dropout of model and head; null keeps the model's own", inside("[0, 1)")
    )
    keep_layers: list[int] | None = key(
        None, "a smaller model of these layers, from 0: [0, 2, 4]; fine-tune it with methods.distil; null: all", LAYERS
    )
    head: Literal["own", "linear"] = key(
        "own", "own: the library's for the task; linear: one layer over the tokens, read at the first for a text"
    )
    frozen_dropout: bool = key(
        True, "dropout in the frozen layers at the bottom; false: none there, and what they put out is computed once"
    )
    gradient_checkpointing: bool = key(False, "recompute activations: less memory for a third more time")
    trust_remote_code: bool = key(False, "run Python code that comes with the model")
    scratch: ScratchConfig = field(default_factory=ScratchConfig)


@dataclass
class DataConfig:
    """What is trained, validated and tested on."""

    name: str | None = key(None, "a data set on the hub; null: train, validation and test are local files")
    config: str | None = key(None, "configuration of the hub data set")
    revision: str | None = key(None, "branch, tag or commit of the hub data set; null: main")
    train: str | None = key(
        None, "a file (JSONL, JSON, CSV, TSV, Parquet, CoNLL, SQuAD; train.{en,de}), or a split as train[:90%]"
    )
    validation: str | None = key(None, "chooses the best checkpoint; 0.1: this share of train")
    test: str | None = key(None, "scored once, with the best checkpoint; 0.2: this share of train")
    unlabelled: str | None = key(None, "texts without labels for methods that read them, such as uda; as train")
    unlabelled_ratio: int = key(3, "of those in a step, for each labelled example", at_least(1))
    group: str | None = key(None, "a column whose values stay in one part where train is divided")
    split_seed: int = key(0, "of how train is divided and sampled, whatever the seed of the run", at_least(0))
    folds: int | None = key(None, "divide train into as many parts for cross-validation", at_least(2))
    fold: int | None = key(None, "the part to test on, from 0", at_least(0))
    columns: dict[str, str] = key({}, "field of the task: column of the data, as in {text: sentence}")
    format: str | None = key(None, f"of a file whose name does not say it: {', '.join(FORMATS)}", FORMAT)
    encoding: str | None = key(None, "of text files; null: UTF-8, or UTF-16 with a byte order mark", CODEC)
    separator: str | None = key(None, "of CSV cells: one character, or tab; null: as the first line shows", CHARACTER)
    quoting: Literal["auto", "double", "none", "backslash"] = key(
        "auto", "how a CSV cell is quoted; auto: double in CSV, none in TSV"
    )
    header: bool = key(True, "false: CSV columns are named by their numbers, from 1")
    max_overlap: float = key(
        0.1, "largest share of validation or test whose texts may occur in train too", inside("[0, 1]"), decides=False
    )
    labels: list[str] | None = key(None, "null: collected over all splits and sorted", NO_LABEL_TWICE)
    label_descriptions: str | None = key(
        None, "file of what each label means: JSON or YAML of label: description, or lines of both (TSV, CSV)"
    )
    cluster: str | None = key(
        None, "a column that says which examples belong together: intervals resample its values", decides=False
    )
    title: str | None = key(
        None, "name of the data set in tables; null: its hub name or the folder of its file", ONE_LINE, decides=False
    )
    max_length: int = key(128, "tokens of one window", at_least(8, "tokens"))
    long: str | None = key(
        None,
        "what becomes of a longer text: truncate keeps its beginning, head_tail the first quarter and the end, window "
        "reads it in several; null: as the task does by default",
        LONG,
    )
    max_train_examples: int | None = key(None, "train on a sample of N; null: all", POSITIVE)
    sample: Literal["stratified", "first"] = key(
        "stratified", "that sample: seeded, with each label's share, part of each larger one; or the first N"
    )
    shots: int | None = key(None, "train on k examples of each class, validate on k others; null: all", POSITIVE)
    ids: str | None = key(
        None, "train on these examples alone: a file with a JSON list of their ids, or a run's splits.json; null: all"
    )
    shots_seed: int = key(0, "which sample of k examples; those of one seed are part of its larger ones", at_least(0))
    max_eval_examples: int | None = key(None, "of validation and test: use only the first N; null: all", POSITIVE)
    num_workers: int = key(
        1, "threads that prepare batches ahead; 0: each when it is needed", at_least(0), decides=False
    )


@dataclass
class OptimConfig:
    """The optimiser (AdamW), its schedule, and the loss."""

    lr: float = key(5e-5, "peak learning rate", Rule(above(0).holds, "must be a number above 0, such as 5e-5"))
    warmup_ratio: float = key(0.1, "share of all steps over which the rate rises", inside("[0, 1]"))
    warmup_steps: int | None = key(None, "overrides warmup_ratio", at_least(0))
    schedule: Literal["linear", "cosine", "constant", "wsd"] = key(
        "linear", "of the rate after the warmup; wsd: constant, then a linear decay to 0"
    )
    decay_ratio: float | None = key(
        None, "of wsd: share of all steps over which the rate falls; null: 0.1", inside("(0, 1]")
    )
    weight_decay: float = key(0.01, "not applied to biases and norms", at_least(0))
    batch_size: int = key(32, "examples in one optimiser step, over all devices", at_least(1, "example"))
    epochs: float = key(3, "passes over the training set", above(0))
    max_steps: int | None = key(None, "overrides epochs; 0 evaluates the model as it is", at_least(0))
    max_grad_norm: float | None = key(1.0, "gradients are clipped to this norm; null: no clipping", POSITIVE)
    beta1: float = key(0.9, "decay of the mean gradient", inside("[0, 1)"))
    beta2: float = key(0.999, "decay of the mean squared gradient", inside("(0, 1)"))
    eps: float = key(1e-8, "added to the denominator of the update", above(0))
    label_smoothing: float = key(0.0, "share of the target spread over all classes", inside("[0, 1)"))
    class_weights: dict[str, float] = key({}, "label: weight in the training loss; the others weigh 1", WEIGHTS)
    balance_classes: bool = key(False, "weigh each class by the inverse of its frequency")
    patience: int | None = key(None, "evaluations without a better score before stopping; null: never", POSITIVE)


@dataclass
class TrainerConfig:
    """Devices, layout, evaluation and checkpoints. Devices and layout change speed and memory, not the result."""

    accelerator: Literal["auto", "cpu", "gpu"] = key("auto", "auto: a GPU where there is one", decides=False)
    devices: int | Literal["auto"] = key(
        "auto", "of a node; auto: as many as were started, every GPU, or one CPU process", COUNT, decides=False
    )
    num_nodes: int | Literal["auto"] = key(
        "auto", "auto: as many as srun or torchrun has started it on", COUNT, decides=False
    )
    strategy: Literal["auto", "ddp", "fsdp"] = key("auto", "fsdp shares the model out over the ranks", decides=False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = key(
        "auto", "of activations; weights are kept in fp32; auto: bf16 where the device has instructions for it"
    )
    packing: bool | Literal["auto"] = key("auto", "auto: no padding where the model allows it", decides=False)
    last_layer: Literal["read", "all"] = key(
        "all",
        "in training; read: of BERT's family, packed, only the tokens the head reads; faster, other dropout masks",
    )
    reuse_features: bool | Literal["auto"] = key(
        "auto",
        "keep what frozen layers without dropout put out on disk, for all epochs, seeds and trials; true: or stop",
        decides=False,
    )
    features_gib: float = key(16.0, "most disk for it; what was not used for longest goes", above(0), decides=False)
    tokens_per_microbatch: int | None = key(None, "null: by device", POSITIVE, decides=False)
    sparse_embedding: bool | Literal["auto"] = key("auto", "update only the rows of the embedding that a step uses")
    evaluate_every_steps: int | None = key(None, "null: after each epoch", POSITIVE)
    evaluation_growth: int = key(1, "3: after 1, 3, 9, ... times as many, as asha compares trials", at_least(1))
    evaluate_examples: int | None = key(
        None, "in training evaluate a fixed sample of N of validation, at the end all; null: all each time", POSITIVE
    )
    monitor: str | None = key(None, "score that chooses the best checkpoint; null: the task's own")
    log_every_steps: int = key(25, "steps between two rows of training metrics", at_least(1), decides=False)
    checkpoint_every_steps: int | None = key(None, "null: by time alone", POSITIVE, decides=False)
    checkpoint_every_minutes: float | None = key(10.0, "null: by steps alone", POSITIVE, decides=False)
    keep: int = key(2, "newest checkpoints to keep, beside the best", at_least(1), decides=False)
    keep_checkpoints: Literal["none", "best", "all"] = key(
        "best", "what a finished run keeps of them; evaluate and predict read none", decides=False
    )
    keep_predictions: bool = key(False, "keep those of each evaluation, not of the best alone", decides=False)
    progress: bool | Literal["auto"] = key("auto", "a progress bar; auto: in a terminal", decides=False)


@dataclass
class WandbConfig:
    """Weights & Biases."""

    mode: Literal["offline", "online", "disabled"] = key("offline", "offline runs: research sync", decides=False)
    project: str = key("research", "W&B project", PROJECT, decides=False)
    entity: str | None = key(None, "W&B user or team; null: the account's own", ACCOUNT, decides=False)
    group: str | None = key(None, "W&B group", TITLE, decides=False)
    name: str | None = key(None, "name of the W&B run; null: by its folder", TITLE, decides=False)
    tags: list[str] = key([], "W&B tags", TAGS, decides=False)


@dataclass
class Config:
    """One experiment."""

    task: Named = field(default_factory=Named)
    seed: int = key(0, "of everything random", SEED)
    seed_init: int | None = key(None, "of the new head's weights; null: seed", SEED)
    seed_order: int | None = key(None, "of the order of the examples and of dropout; null: seed", SEED)
    run_dir: str | None = key(None, "the run folder; null: runs/<experiment>/seed<seed>", decides=False)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    adapter: Named = field(default_factory=lambda: component.choose("adapter", "full"))
    augment: dict[str, Named] = field(default_factory=dict)
    methods: dict[str, Named] = field(default_factory=dict)
    callbacks: dict[str, Named] = field(default_factory=dict)
    loggers: dict[str, Named] = field(default_factory=dict, metadata={"decides": False})

    @property
    def init_seed(self) -> int:
        return self.seed if self.seed_init is None else self.seed_init

    @property
    def order_seed(self) -> int:
        return self.seed if self.seed_order is None else self.seed_order
