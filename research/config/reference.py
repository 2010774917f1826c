"""Write `experiments/base.yaml` and `docs/reference.md` from the schema (`make reference`)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from research.config import component
from research.config.schema import Config
from research.config.tree import ONE_OF, SOME_OF, sections

ROOT = Path(__file__).resolve().parent.parent.parent
COMMENT_COLUMN = 32
CHOSEN = {  # the sections that choose components: what base.yaml says of them
    "task": ("???", "a task, as `ner`; with its own keys {name: ner, stride: 64}"),
    "adapter": ("full", "how weights are adapted, as `lora`; with its own keys {name: lora, rank: 8}"),
    "augment": ("{}", "how training texts are changed in each epoch, as in {delete: {rate: 0.1}}"),
    "methods": ("{}", "how training is regularised, with each one's keys, as in {r_drop: {alpha: 1.0}}"),
    "callbacks": ("{}", "your own callbacks with their keys, as in {./my_callback.py: {}}"),
    "loggers": ("{}", "trackers beside W&B with their keys, as in {mlflow: {experiment: reviews}}"),
}
PAGE = """# Keys of an experiment

Written from the schema by `make reference`. Each key may be set in the YAML file or on the command line
(`optim.lr=3e-5`). Keys marked ∘ do not change a run's numbers: a run may be resumed with other values.
"""


def base_yaml() -> str:
    """Every key that an experiment may have, with its default and help."""
    lines = [
        "# Every key an experiment may have, with its default. The others begin with `extends: ../base.yaml` and say",
        "# only what differs; `key=value` after the file on the command line overrides both. `???` must be given.",
        "# Written by `make reference`; docs/reference.md also has the keys of each task, adapter and method.",
        "",
    ]
    schema = Config()
    for f in fields(schema):
        section = sections(schema)[f.name]
        if f.name in CHOSEN:
            value, help_text = CHOSEN[f.name]
            lines.append(_line(f"{f.name}: {value}", help_text))
        elif section is None:
            lines.append(_line(f"{f.name}: {as_yaml(getattr(schema, f.name))}", f.metadata["help"]))
        else:
            lines += ["", *_section(section, f.name)]
            lines += [""] if f.name == "wandb" else []
    return "\n".join(lines) + "\n"


def _section(section: Any, name: str, indent: str = "") -> Iterator[str]:
    yield f"{indent}{name}:"
    hints = get_type_hints(type(section))
    for own in fields(section):
        value = getattr(section, own.name)
        if is_dataclass(value):
            yield from _section(value, own.name, indent + "  ")
        else:
            help_text = own.metadata["help"] + allowed(hints[own.name])
            yield _line(f"{indent}  {own.name}: {as_yaml(value)}", help_text)


def _line(text: str, help_text: str) -> str:
    return f"{text.ljust(COMMENT_COLUMN - 1)} # {help_text}"


def reference_page() -> str:
    """All keys as Markdown tables: those every experiment has, then each component's own."""
    schema = Config()
    plain = [f for f in fields(schema) if sections(schema)[f.name] is None]
    parts = [PAGE, "## Top level\n", *_table(schema, plain, "")]
    parts += ["", *(f"`{name}`: {help_text}.\n" for name, (_, help_text) in CHOSEN.items())]
    for name, section in sections(schema).items():
        if section is not None and name not in CHOSEN:
            parts += [
                f"\n## {name}\n",
                *_about(section),
                *_table(section, fields(section), f"{name}."),
            ]
            for inner, own in sections(section).items():
                if own is not None:
                    place = f"{name}.{inner}"
                    parts += [f"\n### {place}\n", *_about(own), *_table(own, fields(own), f"{place}.")]
    for place, kind in {**ONE_OF, **SOME_OF}.items():
        found = [name for name in component.names(kind) if kind != "callback"]
        parts += [f"\n## Each {kind}'s own keys\n"] if found else []
        for name in found:
            own = component.choose(kind, name)
            described = [f for f in fields(own) if f.name != "name"]
            prefix = f"{place}." if place in ONE_OF else f"{place}.{name}."
            parts += [f"\n### {name}\n", component.summary(kind, name) + "\n", *_table(own, described, prefix)]
    return "\n".join(parts).rstrip() + "\n"


def _about(section: Any) -> list[str]:
    return [inspect.cleandoc(type(section).__doc__ or "") + "\n"]


def _table(section: Any, described: Any, prefix: str) -> Iterator[str]:
    described = [f for f in described if not is_dataclass(getattr(section, f.name))]
    if not described:
        return
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    hints = get_type_hints(type(section))
    for f in described:
        value = getattr(section, f.name)
        default = json.dumps(value) if value == "" or "\n" in str(value) else as_yaml(value)
        yield f"| `{prefix}{f.name}`{_mark(f)} | `{default}` | {_meaning(f, hints[f.name])} |"


def _mark(f: Field[Any]) -> str:
    return "" if f.metadata.get("decides", True) else " ∘"


def _meaning(f: Field[Any], hint: Any) -> str:
    parts = [f.metadata.get("help", "") + allowed(hint), *(rule.text for rule in f.metadata.get("rules", ()))]
    return "; ".join(filter(None, parts)).replace("|", "\\|")


def allowed(hint: Any) -> str:
    """The values of a key that takes one of a few, as in ` (linear, cosine or constant)`; else nothing."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    named = [value for option in options if get_origin(option) is Literal for value in get_args(option)]
    if not named or int in options:
        return ""
    named += ["true", "false"] if bool in options else []
    return f" ({', '.join(named[:-1])} or {named[-1]})"


def as_yaml(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.1f}" if value == int(value) else f"{value:g}"
    return str(value) if isinstance(value, str) else json.dumps(value)


def main() -> None:
    (ROOT / "experiments" / "base.yaml").write_text(base_yaml(), encoding="utf-8")
    (ROOT / "docs" / "reference.md").write_text(reference_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
