"""Read YAML files and `key=value` arguments as plain values; what YAML would misread is refused."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf

from research.common.errors import UserError
from research.config.tree import nested, sections

LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
DECIMAL = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.I)


class Text(str):
    """A value of the command line, before the type of its key is known."""


def read_yaml(path: Path, named_in: Path | None = None, what: str = "experiment") -> dict[str, Any]:
    """A YAML file as plain dicts."""
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 3)
        hint = f" Did you mean {', '.join(str(path.parent / n) for n in near)}?" if near else ""
        where = f" (named by `extends` in {named_in})" if named_in else ""
        raise UserError(f"There is no {what} file {path}{where}.{hint}")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        tree = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except Exception as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold `key: value` lines at its top level.")
    refuse_odd_numbers(tree, str(path))
    refuse_interpolations(content, str(path))
    return content  # type: ignore[return-value]


def parse_override(argument: str) -> tuple[str, dict[str, Any]]:
    """`optim.lr=3e-5` -> its origin, and {"optim": {"lr": Text("3e-5")}}; the value may contain `=`."""
    key, equals, value = argument.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"'{argument}' is not of the form key=value, as in optim.lr=3e-5.")
    origin = f"argument '{key}'"  # without the value, which may be a secret
    content = nested({key: Text(value)})
    refuse_interpolations(content, origin)
    return origin, content


def typed(content: dict[str, Any], schema: Any, origin: str) -> dict[str, Any]:
    """The content with each `Text` as a value of its key's type: literally where the key takes text, else as YAML."""
    inner = schema if isinstance(schema, dict) else sections(schema)
    hints = {} if isinstance(schema, dict) else get_type_hints(type(schema))
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and inner.get(key) is not None:
            found[key] = typed(value, inner[key], origin)
        else:
            found[key] = _typed(value, hints.get(key, Any), origin)
    return found


def _typed(value: Any, hint: Any, origin: str) -> Any:
    if isinstance(value, dict):
        inner = get_args(hint)[1] if get_origin(hint) is dict else Any
        return {key: _typed(own, inner, origin) for key, own in value.items()}
    if not isinstance(value, Text):
        return value
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if str not in options:
        return yaml_value(value, origin)
    return None if type(None) in options and value in ("null", "") else str(value)


def yaml_value(text: str, origin: str) -> Any:
    """A value of the command line as YAML."""
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        tree = yaml.compose(text, yaml.SafeLoader)
    except Exception as error:
        raise UserError(f"{origin}: the value is not valid YAML: {' '.join(str(error).split())}") from None
    refuse_odd_numbers(tree, origin)
    return value["value"]  # type: ignore[index,call-overload]


def refuse_odd_numbers(node: yaml.Node | None, origin: str, seen: set[int] | None = None) -> None:
    """Raise UserError for a number that YAML reads otherwise than people do: octal 010, sexagesimal 1:30."""
    seen = set() if seen is None else seen
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode) and node.style is None:
        is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if LEADING_ZERO.fullmatch(node.value) or (is_number and not DECIMAL.fullmatch(node.value)):
            line = f" (line {node.start_mark.line + 1})" if not origin.startswith("argument") else ""
            raise UserError(
                f"{origin}{line}: {node.value} is no plain decimal number: write it without leading zeros, colons or a "
                "base, or in quotes where text is meant."
            )
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            refuse_odd_numbers(key, origin, seen)
            refuse_odd_numbers(value, origin, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_odd_numbers(item, origin, seen)


def refuse_interpolations(content: Any, origin: str, key: str = "") -> None:
    """Raise UserError for a `${...}`: resolved, an environment variable would be written to the run and to W&B."""
    if isinstance(content, dict | list):
        inner = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in inner:
            refuse_interpolations(value, origin, f"{key}.{name}".lstrip("."))
    elif isinstance(content, str) and "${" in content:
        raise UserError(f"{origin}: {key} is '{content}', but ${{...}} is not filled in here; write the value itself.")
