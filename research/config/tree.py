"""Walk an experiment's schema, an instance of `Config` with its components' keys in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from research.common.errors import UserError
from research.config import component
from research.config.key import broken_rules
from research.config.schema import SCRATCH, Config, ModelConfig

ONE_OF = {"task": "task", "adapter": "adapter"}  # section that names one component -> its kind
SOME_OF = {  # section that names any number of components -> their kind
    "augment": "augmentation", "methods": "method", "callbacks": "callback", "loggers": "logger",
}  # fmt: skip


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


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"optim.lr": 1} -> {"optim": {"lr": 1}}."""
    content: dict[str, Any] = {}
    for key, value in flat.items():
        *path, name = key.split(".")
        place = content
        for section in path:
            inner = place.get(section, {})
            place[section] = place = inner if isinstance(inner, dict) else {"name": inner}  # task=ner, task.stride=64
        place[name] = value
    return content


def check(config: Config, origin: str) -> None:
    """Raise UserError with every impossible value at once."""
    wrong = broken_keys(config)
    o, t = config.optim, config.trainer
    if config.data.train is None:
        wrong.append("data.train=None must name a file, or a split of data.name")
    if o.class_weights and o.balance_classes:
        wrong.append(f"optim.balance_classes={o.balance_classes} does not go with class_weights: drop one")
    if o.decay_ratio is not None and o.schedule != "wsd":
        wrong.append(f"optim.decay_ratio={o.decay_ratio} acts where optim.schedule is wsd, not {o.schedule}")
    if t.strategy == "fsdp" and t.precision == "fp16":
        wrong.append(f"trainer.precision={t.precision} does not go with trainer.strategy=fsdp: use bf16 or fp32")
    wrong += wrong_of_scratch(config.model)
    if wrong:
        raise UserError(f"{origin}: " + "; ".join(wrong) + ".")


def wrong_of_scratch(model: ModelConfig) -> list[str]:
    """What is wrong with `model.scratch`: keys that cannot act, and sizes that do not go together."""
    own = model.scratch
    given = [name for name, value in asdict(own).items() if value is not None]
    if model.name != SCRATCH:
        return [f"model.scratch.{given[0]} acts where model.name is scratch, not {model.name}"] if given else []
    wrong = [
        f"model.{key} is for pretrained models: remove it"
        for key in ("revision", "trust_remote_code")
        if getattr(model, key)
    ]
    if own.family is None:
        wrong.append("model.scratch.family must be given: bert, gpt2, llama, t5, bart, marian or bert2bert")
    elif own.family == "bert2bert":
        wrong += [
            f"model.scratch.{name} is that of the encoder: remove it"
            for name in given
            if name not in ("family", "encoder")
        ]
        wrong += [] if own.encoder else ["model.scratch.encoder must name the BERT that bert2bert is made of"]
    elif own.encoder is not None:
        wrong.append(f"model.scratch.encoder is for bert2bert, not {own.family}")
    elif own.width and own.width % (own.heads or max(1, own.width // 64)):
        wrong.append(f"model.scratch.width={own.width} must be a multiple of its heads, {own.heads or own.width // 64}")
    return wrong


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
    """The part of a config that decides the numbers; the rest is place, layout and logging.

    Components have their canonical names. Of a user's component that is gone, or that this command does not ask for,
    all keys count.
    """
    config = with_canonical_names(config)
    try:
        component.refuse_unasked(component_names(config), "the stored config")
        schema = schema_of([config])[0]
    except UserError:
        schema = Config()
    return _deciding(config, schema)


def with_canonical_names(content: dict[str, Any]) -> dict[str, Any]:
    """A config in its long form, in which `task.name: sentiment` is `task.name: classification`."""
    renamed = {
        section: {**content[section], "name": component.canonical(kind, str(content[section]["name"]))}
        for section, kind in ONE_OF.items()
        if isinstance(content.get(section), dict) and "name" in content[section]
    }
    return {**content, **renamed}


def component_names(content: dict[str, Any]) -> list[str]:
    """The names of all components that a config in its long form chooses."""
    one = [content.get(section) for section in ONE_OF]
    some = [(name, own) for section in SOME_OF for name, own in (content.get(section) or {}).items()]
    chosen = [own.get("name", name) if isinstance(own, dict) else name for name, own in some]
    joint = [each.get("task", {}).get("name") for each in ((content.get("task") or {}).get("tasks") or {}).values()]
    named = [own["name"] for own in one if isinstance(own, dict) and "name" in own]
    return [str(name) for name in (*named, *joint, *chosen) if name is not None]


def _deciding(content: dict[str, Any], schema: Any) -> dict[str, Any]:
    inner = schema if isinstance(schema, dict) else sections(schema)
    described = () if isinstance(schema, dict) else fields(schema)
    idle = {f.name for f in described if not f.metadata.get("decides", True)}
    kept: dict[str, Any] = {}
    for key, value in content.items():
        if key in idle:
            continue
        if inner.get(key) is not None and isinstance(value, dict):
            below = _deciding(value, inner[key])
            if below or not value:
                kept[key] = below
        else:
            kept[key] = value
    return kept
