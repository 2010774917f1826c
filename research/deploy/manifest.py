"""The sha256 of every file of an exported folder, and an optional signature over the list."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from research.common.errors import UserError
from research.common.files import write_json
from research.data.source import file_sha256

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"


def write_manifest(folder: Path) -> None:
    """List every file of the folder with its sha256."""
    write_json(folder / MANIFEST, {"sha256": {name: file_sha256(folder / name) for name in files_of(folder)}})


def files_of(folder: Path) -> list[str]:
    """The files that a manifest lists, by their path in the folder."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in (MANIFEST, SIGNATURE))


def sign(folder: Path, key: Path) -> None:
    """Sign the manifest with a private key (PEM), by openssl. Raises UserError where that fails."""
    _openssl(["-sign", str(key), "-out", str(folder / SIGNATURE), str(folder / MANIFEST)], f"sign with {key}")


def verify(folder: Path, key: Path | None = None) -> list[str]:
    """Check a folder against its manifest, and the manifest against its signature where a public key is given.

    Returns what is wrong, a sentence each. Raises UserError where there is no manifest.
    """
    try:
        recorded: dict[str, str] = json.loads((folder / MANIFEST).read_text("utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{folder} has no {MANIFEST}; make the folder with `research export`.") from None
    there = files_of(folder)
    wrong = [f"{name} is missing" for name in recorded if name not in there]
    wrong += [f"{name} is not in the manifest" for name in there if name not in recorded]
    wrong += [f"{name} was changed" for name in there if recorded.get(name) not in (None, file_sha256(folder / name))]
    if key is not None:
        try:
            arguments = ["-verify", str(key), "-signature", str(folder / SIGNATURE), str(folder / MANIFEST)]
            _openssl(arguments, f"verify with {key}")
        except UserError as error:
            wrong.append(str(error))
    return wrong


def _openssl(arguments: list[str], what: str) -> None:
    try:
        done = subprocess.run(["openssl", "dgst", "-sha256", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"openssl is not installed; it is needed to {what}.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"openssl could not {what}: {said[0] if said else 'no reason given'}.")
