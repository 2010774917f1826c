"""Load an experiment: defaults, `extends`, YAML and overrides, with every mistake reported by key and file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from research.common.errors import UserError
from research.config.schema import (
    DATA_SUFFIXES,
    Config,
    all_keys,
    check,
)


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
        name, bracket, rows = value.partition("[") if not Path(value).exists() else (value, "", "")
        for base in (Path.cwd(), experiment.resolve().parent):
            if (base / name).exists():
                return os.path.abspath(base / name) + bracket + rows  # the link, not the file a hub's cache keeps
        return value

    config.model.name = settled(config.model.name)
    if config.data.name:
        config.data.name = settled(config.data.name)
    for split in ("train", "validation", "test"):
        value = getattr(config.data, split)
        if value and (config.data.name is None or value.partition("[")[0].endswith(DATA_SUFFIXES)):
            setattr(config.data, split, settled(value))
    if config.run_dir is None:
        parts = experiment.resolve().with_suffix("").parts
        root = next((root for root in ("experiments", "runs") if root in parts[:-1]), None)
        name = Path(*parts[parts.index(root) + 1 :]) if root else Path(parts[-1])
        config.run_dir = str(Path("runs") / name / f"seed{config.seed}")
    config.run_dir = os.path.abspath(config.run_dir)
