"""Load an experiment: defaults, `extends`, YAML and overrides, with every mistake reported by key and file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from research.common.errors import UserError
from research.config import component
from research.config.aliases import with_augment, with_logger, with_new_names
from research.config.joint import joint_content
from research.config.parse import Text, parse_override, read_yaml, refuse_interpolations, typed, yaml_value
from research.config.schema import DATA_SUFFIXES, SCRATCH, Config
from research.config.tree import ONE_OF, SOME_OF, all_keys, check, component_names, nested, schema_of, sections, to_dict


@dataclass(frozen=True)
class Layer:
    """What one file or argument says of an experiment."""

    origin: str
    content: dict[str, Any]


def load_config(
    path: str | Path, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None, given_by: str = "values"
) -> Config:
    """Read an experiment and check all of it; `values` of dotted keys, given by what errors name, override the file.

    Raises UserError that lists every mistake found, each with the file or argument that has it.
    """
    path = Path(path)
    own = read_yaml(path)
    parent = own.pop("extends", None)
    layers = [Layer(str(path), in_long_form(own, str(path), path.parent))]
    if parent is not None:
        base = (path.parent / str(parent)).resolve()
        if base.name == "base.yaml" and not base.is_file():
            raise UserError(f"{path}: extends: {parent} names no file; the defaults need none: remove the line.")
        content = read_yaml(base, named_in=path)
        if "extends" in content:
            raise UserError(f"{base} itself extends another file; `extends` goes one level deep, so merge the two.")
        layers.insert(0, Layer(os.path.relpath(base), in_long_form(content, str(base), base.parent)))
    refuse_interpolations(dict(values or {}), given_by)
    given = [(given_by, nested(values))] if values else []
    for origin, content in [*given, *map(parse_override, overrides)]:
        layers.append(Layer(origin, in_long_form(content, origin, path.parent)))
    joint = joint_content([layer.content for layer in layers], path.parent, load_config)
    config = combined([Layer("tasks", joint), *layers] if joint else layers, str(path))
    absolute_paths(config, path)
    check(config, str(path))
    return config


def combined(layers: Sequence[Layer], what: str, stored: bool = False) -> Config:
    """The layers, later ones first, over the defaults and over the own keys of the components they choose.

    `stored`: of a run folder, where keys of earlier versions that had no effect are passed over.
    """
    schema, contents = schema_of([layer.content for layer in layers])
    merged = structured(schema)
    for layer, content in zip(layers, contents, strict=True):
        content = with_new_names(content, schema.task, layer.origin, stored)
        refuse_unknown_keys(content, layer.origin, schema)
        merged = merge(merged, typed(content, schema, layer.origin), layer.origin)
    missing = sorted(key.removesuffix(".name") if key == "task.name" else key for key in OmegaConf.missing_keys(merged))
    if missing:
        raise UserError(f"{what} does not say {' and '.join(missing)}; add {'them' if len(missing) > 1 else 'it'}.")
    config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return config


LATEST: list[tuple[Config, Any]] = []  # schemas and their trees: a command reads many configs of few components


def structured(schema: Config) -> Any:
    """The OmegaConf tree of a schema, which merging copies and never changes."""
    for known, tree in LATEST:
        if known == schema:
            return tree
    tree = OmegaConf.structured(schema)
    LATEST.insert(0, (schema, tree))
    del LATEST[8:]
    return tree


def from_dict(content: dict[str, Any], origin: str = "the stored config") -> Config:
    """Rebuild a config from a run folder's `config.yaml`."""
    refuse_interpolations(content, origin)
    content = in_long_form(content, origin, Path.cwd())
    component.refuse_unasked(component_names(content), origin)
    return combined([Layer(origin, content)], origin, stored=True)


def completed(content: dict[str, Any], origin: str) -> dict[str, Any]:
    """A stored config as plain values under today's names, with the defaults of the keys it lacks; nothing is checked.

    A user's component that is gone, or that this command does not ask for, keeps the keys that were stored.
    """
    content = in_long_form(content, origin, Path.cwd())
    try:
        component.refuse_unasked(component_names(content), origin)
        schema = schema_of([content])[0]
    except UserError:
        schema = Config()
    content = with_new_names(content, schema.task, origin, stored=True)
    return _over(to_dict(schema), content)


def _over(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    full = {**defaults, **given}
    for key, value in defaults.items():
        if isinstance(value, dict) and value and isinstance(full[key], dict):
            full[key] = _over(value, full[key])
    return full


def in_long_form(content: dict[str, Any], origin: str, folder: Path) -> dict[str, Any]:
    """The content with each component as a section: `task: ner` -> `task: {name: ner}`, `methods: {r_drop: true}` ->
    `methods: {r_drop: {}}`; false switches one off. A file is looked up from here, then from `folder`."""
    content = with_augment(with_logger(content))
    content = {key: _as_section(value, key, origin) for key, value in content.items()}
    for section, kind in ONE_OF.items():
        given = content.get(section, MISSING)
        if given == MISSING:
            content.pop(section, None)
        elif not isinstance(given, str | dict):
            raise UserError(f"{origin}: {section} must be the name of one {kind} or hold its keys, not {given!r}.")
        else:
            content[section] = _located({"name": given} if isinstance(given, str) else given, folder)
    for section, kind in SOME_OF.items():
        several = content.get(section, {})
        if not isinstance(several, dict):
            raise UserError(f"{origin}: {section} must hold names and their keys, as in {section}: {{name: {{}}}}.")
        long: dict[str, Any] = {}
        for name, own in several.items():
            own = _as_section(own, section, origin)
            if not isinstance(own, dict | bool):
                raise UserError(f"{origin}: {section}.{name} holds the keys of a {kind}; write {{}} for its defaults.")
            by_path = component.is_path(str(name))
            keys = {**({"name": name} if by_path else {}), **(own if isinstance(own, dict) else {})}
            long[Path(name).stem if by_path else str(name)] = own is not False and _located(keys, folder)
        if section in content:
            content[section] = long
    return content


def _as_section(value: Any, section: str, origin: str) -> Any:
    """The value of a section that chooses components; an argument may be a name, or YAML such as {} or false."""
    by_name = section in ONE_OF and not str(value).lstrip().startswith("{")
    is_yaml = isinstance(value, Text) and section in (*ONE_OF, *SOME_OF) and not by_name
    return yaml_value(value, origin) if is_yaml else value


def _located(own: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The keys of a component with the path of a user's file made absolute."""
    name = own.get("name")
    if not isinstance(name, str) or not component.is_path(name):
        return own
    found = next((base / name for base in (Path.cwd(), folder) if (base / name).is_file()), Path.cwd() / name)
    return {**own, "name": str(found.resolve())}


def refuse_unknown_keys(content: dict[str, Any], origin: str, schema: Any, prefix: str = "", whole: Any = None) -> None:
    """Raise UserError for the first key the schema, a part of the `whole` one, does not have, naming the nearest."""
    whole = schema if whole is None else whole
    known = schema if isinstance(schema, dict) else sections(schema)
    for key, value in content.items():
        if key not in known:
            near = [full for full in all_keys(whole) if full.split(".")[-1] == str(key)]
            near += [prefix + name for name in difflib.get_close_matches(str(key), known, 1)]
            hint = f" Did you mean {near[0]}?" if near else ""
            if (section := prefix.rstrip(".")) in ONE_OF and key in component.names(ONE_OF[section]):
                hint = f" There is one {section}: write {section}: {{name: {key}}}."
            place = f"'{prefix.rstrip('.')}'" if prefix else "the top level"
            raise UserError(f"{origin}: unknown key '{prefix}{key}'.{hint} Keys at {place}: {', '.join(known)}.")
        if known[key] is not None:
            if not isinstance(value, dict):
                inner = ", ".join(known[key] if isinstance(known[key], dict) else sections(known[key]))
                raise UserError(f"{origin}: '{prefix}{key}' holds keys ({inner}), not the value {value!r}.")
            refuse_unknown_keys(value, origin, known[key], f"{prefix}{key}.", whole)


def merge(base: Any, content: dict[str, Any], origin: str) -> Any:
    """`content` over `base`, the OmegaConf of a schema. Raises UserError for a value of the wrong type."""
    try:
        return OmegaConf.merge(base, content)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a key"
        said = str(error).splitlines()[0].replace("$VALUE_TYPE", "this type").replace("$VALUE", "this value")
        raise UserError(f"{origin}: {key}: {said}.") from None


def trained_model(name: str) -> str:
    """The model of a run folder; other names as they are. Raises UserError for a run that is not finished."""
    folder = Path(name)
    if not (folder / "config.yaml").is_file() or (folder / "config.json").is_file():
        return name
    if not (folder / "result.json").is_file():
        raise UserError(
            f"model.name={name}: the run is not finished, so it has no model; run its command again to finish it."
        )
    return str(folder / "model")


def absolute_paths(config: Config, experiment: Path) -> None:
    """Make local files and folders absolute: looked up from here, from the YAML's folder, from above `experiments/`."""
    folders = experiment.resolve().parents
    above = [folder.parent for folder in folders if folder.name == "experiments"][:1]

    def absolute(value: str) -> str:
        name, bracket, rows = value.partition("[") if not Path(value).exists() else (value, "", "")
        for base in (Path.cwd(), folders[0], *above):
            if (base / name).exists():
                return os.path.abspath(base / name) + bracket + rows  # the link, not the file a hub's cache keeps
        return value

    if config.model.name != SCRATCH:
        config.model.name = trained_model(absolute(config.model.name))
    if config.model.scratch.encoder:
        config.model.scratch.encoder = trained_model(absolute(config.model.scratch.encoder))
    if config.data.name:
        config.data.name = absolute(config.data.name)
    if config.data.ids:
        config.data.ids = absolute(config.data.ids)
    if config.data.label_descriptions:
        config.data.label_descriptions = absolute(config.data.label_descriptions)
    for own in (config.task, *config.augment.values(), *config.methods.values()):
        for f in fields(own):
            if f.metadata.get("path") and getattr(own, f.name):
                setattr(own, f.name, absolute(getattr(own, f.name)))
    for split in ("train", "validation", "test", "unlabelled"):
        value = getattr(config.data, split)
        if value and (config.data.name is None or value.partition("[")[0].endswith(DATA_SUFFIXES)):
            setattr(config.data, split, absolute(value))
    if config.run_dir is None:
        parts = experiment.resolve().with_suffix("").parts
        root = next((root for root in ("experiments", "runs") if root in parts[:-1]), None)
        name = Path(*parts[parts.index(root) + 1 :]) if root else Path(parts[-1])
        fold = [f"fold{config.data.fold}"] if config.data.fold is not None else []
        shots = [f"shots{config.data.shots}-{config.data.shots_seed}"] if config.data.shots is not None else []
        config.run_dir = str(Path("runs", name, *fold, *shots, f"seed{config.seed}"))
    config.run_dir = os.path.abspath(config.run_dir)
