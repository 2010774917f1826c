"""Find, describe and load a component: a task, adapter, method, metric, augmentation, callback or
logger, a file each.

A component is named by its file in the package's own folder (`ner`), by a path (`./my_task.py`) or by a dotted module
(`my_package.my_task`). Its own keys are a dataclass `Keys` in that file, each field a `key(default, help, *rules)`;
they are read from the source, of which only what `Keys` refers to is executed: the file may import torch, reading its
keys does not.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import omegaconf

from research.common.errors import UserError
from research.config.key import above, at_least, inside, key

__all__ = [
    "Named", "above", "at_least", "canonical", "choose", "class_attribute", "find", "inside", "key", "keys", "load",
    "names", "summary",
]  # fmt: skip

ROOMS = {  # kind -> the package that holds ours, and the classes that make a file one
    "task": ("research.tasks", ("Data", "Module")),
    "adapter": ("research.adapters", ("Adapter",)),
    "method": ("research.methods", ("Method",)),
    "metric": ("research.metrics", ("Metric",)),
    "augmentation": ("research.data.augment", ("Augmentation",)),
    "callback": ("research.training.callbacks", ("Callback",)),
    "logger": ("research.tracking.loggers", ("Logger",)),
}
ROOT = Path(__file__).resolve().parent.parent
ASKED_FOR: set[str] = set()  # users' components that this command names, in its experiment or by --trust-remote-code


@dataclass
class Named:
    """The name of a component; its own keys are added to it in a subclass that `keys` makes."""

    name: str = omegaconf.MISSING

    if TYPE_CHECKING:

        def __getattr__(self, own_key: str) -> Any: ...


def names(kind: str) -> list[str]:
    """The components of a kind that come with the package: the files of its folder that define its classes."""
    package, classes = ROOMS[kind]
    files = sorted(_folder(package).glob("*.py"))
    return [file.stem for file in files if file.stem != "__init__" and set(classes) <= set(_definitions(file))]


def canonical(kind: str, name: str) -> str:
    """The one name of a component that has several: `sentiment` takes all it is from `classification`, and is that.

    A name that is unknown, or of a user's file or module, is returned as it is.
    """
    package, classes = ROOMS[kind]
    path = _folder(package) / f"{name}.py"
    if is_users(name) or not path.is_file():
        return name
    origins = {
        found.module if isinstance(found, ast.ImportFrom) else None for found in map(_definitions(path).get, classes)
    }
    origin = origins.pop() if len(origins) == 1 else None
    return origin.removeprefix(f"{package}.") if origin and origin.startswith(f"{package}.") else name


def find(kind: str, name: str) -> Path:
    """The file of a component. Raises UserError, with the nearest name, where there is none."""
    if not is_users(name):
        return _packaged(kind, name)
    ASKED_FOR.add(name)
    return _checked(kind, name, Path(name) if is_path(name) else _source(name))


@cache
def _packaged(kind: str, name: str) -> Path:
    """The file of a component that comes with the package; the package does not change while a process runs."""
    return _checked(kind, name, _folder(ROOMS[kind][0]) / f"{name}.py")


def _checked(kind: str, name: str, path: Path | None) -> Path:
    classes = ROOMS[kind][1]
    if path is None or not path.is_file():
        known = names(kind)
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{kind}={name} must be one of {', '.join(known)}, or a Python file such as ./my_{kind}.py.{hint}"
        )
    missing = [each for each in classes if each not in _definitions(path)]
    if missing:
        raise UserError(f"{kind}={name} is no {kind}: {path} does not define {' and '.join(missing)}.")
    return path


def is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def is_users(name: str) -> bool:
    """Whether a name is a user's file or module, not one that comes with the package."""
    return is_path(name) or "." in name


def refuse_unasked(names: Iterable[str], origin: str) -> None:
    """Raise UserError for a user's component of a stored config that this command does not name.

    Whoever hands on a run folder must not have code run by it.
    """
    if unasked := sorted(name for name in names if is_users(name) and name not in ASKED_FOR):
        raise UserError(
            f"{origin} names Python code to run ({', '.join(unasked)}), which runs only when this command asks for it: "
            "read it, then add --trust-remote-code, or in Python load the run with trust_remote_code=True."
        )


def keys(kind: str, name: str) -> type[Named]:
    """The dataclass of a component's `name` and own keys."""
    path = find(kind, name)
    return _named_keys(kind, name, path, path.stat().st_mtime_ns if is_users(name) else 0)


def choose(kind: str, name: str, **own: Any) -> Named:
    """A component's name and own keys, with their defaults."""
    return keys(kind, name)(**own)


def load(kind: str, name: str) -> ModuleType:
    """Import a component. Raises UserError with file and line for a user's file that cannot be imported."""
    path = find(kind, name)
    if not is_path(name):
        return import_module(name if "." in name else f"{ROOMS[kind][0]}.{name}")
    module_name = f"research_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # a user's file may import others beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise fault(path, error) from error
    return module


def class_attribute(kind: str, name: str, cls: str, attribute: str) -> Any:
    """The constant that a component's class gives an attribute, read from the source; None where none is seen."""
    path = find(kind, name)
    for _ in range(10):  # base classes and imports
        statement = _definitions(path).get(cls)
        if isinstance(statement, ast.ClassDef):
            for line in statement.body:
                targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
                if any(isinstance(t, ast.Name) and t.id == attribute for t in targets):
                    value = getattr(line, "value", None)
                    return value.value if isinstance(value, ast.Constant) else None
            bases = [base.id for base in statement.bases if isinstance(base, ast.Name)]
            cls = bases[0] if bases else ""
        elif isinstance(statement, ast.ImportFrom):
            cls = next(alias.name for alias in statement.names if cls in (alias.asname, alias.name))
            source = _source(statement.module or "")
            if source is None:
                return None
            path = source
        else:
            return None
    return None


def summary(kind: str, name: str) -> str:
    """The first paragraph of a component's docstring."""
    docstring = ast.get_docstring(ast.parse(find(kind, name).read_bytes())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def fault(path: Path, error: BaseException) -> UserError:
    """The error of a component's file as a sentence: file, line and what Python said."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    place = f"{path}:{line}" if line else str(path)
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return UserError(f"{place}: {type(error).__name__}: {said}.")


@lru_cache(maxsize=256)
def _named_keys(kind: str, name: str, path: Path, mtime_ns: int) -> type[Named]:
    own = _keys_class(path)
    if own is None:
        return make_dataclass("Keys", [("name", str, field(default=name))], bases=(Named,))
    if not is_dataclass(own):
        raise UserError(f"{path}: Keys must be a dataclass; write @dataclass above it.")
    for f in fields(own):
        if f.name == "name":
            raise UserError(f"{path}: Keys has a field 'name', which is the {kind}'s own name; choose another.")
        if f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{path}: Keys.{f.name} has no default; write {f.name}: ... = key(default, help).")
    return make_dataclass("Keys", [("name", str, field(default=name))], bases=(own, Named))


def _keys_class(path: Path) -> type | None:
    """`Keys` of a file, or of the file it imports `Keys` from; None where there is none."""
    statement = _definitions(path).get("Keys")
    if statement is None:
        return None
    if isinstance(statement, ast.ImportFrom):
        source = _source(statement.module or "")
        if source is None:
            raise UserError(f"{path}:{statement.lineno}: Keys is imported from {statement.module}, which is not there.")
        return _keys_class(source)
    namespace: dict[str, Any] = {"__name__": f"keys of {path}"}
    code = ast.Module(list(_needed(path, statement)), type_ignores=[])
    try:
        exec(compile(code, str(path), "exec", dont_inherit=True), namespace)
    except Exception as error:
        raise fault(path, error) from error
    found: type = namespace["Keys"]
    return found


def _needed(path: Path, statement: ast.stmt) -> Iterator[ast.stmt]:
    """The statements of a file that one of them refers to, directly or through others, then itself."""
    definitions, wanted, queue = _definitions(path), {statement.lineno: statement}, [statement]
    while queue:
        for node in ast.walk(queue.pop()):
            other = definitions.get(node.id) if isinstance(node, ast.Name) else None
            if other is not None and other.lineno not in wanted:
                wanted[other.lineno] = other
                queue.append(other)
    yield from (wanted[line] for line in sorted(wanted))


def _definitions(path: Path) -> dict[str, ast.stmt]:
    """What the top level of a file defines or imports: name -> statement."""
    return _parsed(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _parsed(path: Path, mtime_ns: int) -> dict[str, ast.stmt]:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise fault(path, error) from error
    found: dict[str, ast.stmt] = {}
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                found[(alias.asname or alias.name).split(".")[0]] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found |= {node.id: statement for t in targets for node in ast.walk(t) if isinstance(node, ast.Name)}
    return found


def _folder(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def _source(module: str) -> Path | None:
    """The file of a dotted module, found without importing any part of it."""
    parts, places = module.split("."), None
    for i in range(len(parts)):
        found = (f.find_spec(".".join(parts[: i + 1]), places) for f in sys.meta_path if hasattr(f, "find_spec"))
        spec = next((s for s in found if s is not None), None)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.origin else None
