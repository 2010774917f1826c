"""API keys: random tokens of which a file keeps the sha256 alone, each with a name and a rate of its own.

A token has 32 random bytes, so a plain hash keeps it: only passwords, which can be guessed, need a slow one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from research.common.errors import UserError
from research.common.files import write_atomically


@dataclass
class Key:
    """A client that may ask; `per_second` requests at most on the average, `null` for any number."""

    name: str
    sha256: str
    per_second: float | None = None

    @property
    def id(self) -> str:
        """What a log may say of it."""
        return self.sha256[:8]


class Keys:
    """The keys of a file, and how often each may ask now."""

    def __init__(self, keys: list[Key]) -> None:
        self.keys = keys
        self._allowed = {key.sha256: _burst(key) for key in keys}  # requests that are left, refilled over time
        self._at = dict.fromkeys(self._allowed, time.monotonic())

    def find(self, token: str) -> Key | None:
        """The key of a token; each is compared, so that the time tells nothing."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def take(self, key: Key) -> float:
        """Count a request of a key: 0 where it may be answered, else the seconds until it may."""
        if key.per_second is None:
            return 0.0
        now = time.monotonic()
        left = min(_burst(key), self._allowed[key.sha256] + (now - self._at[key.sha256]) * key.per_second)
        self._at[key.sha256] = now
        self._allowed[key.sha256] = left - 1 if left >= 1 else left
        return 0.0 if left >= 1 else (1 - left) / key.per_second


def _burst(key: Key) -> float:
    return max(1.0, key.per_second or 0.0)


def default_path() -> Path:
    """Where keys are kept unless another file is named."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "research" / "serve-keys.json"


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; none where there is no file. Raises UserError for one that is damaged."""
    try:
        return [Key(**entry) for entry in json.loads(path.read_text("utf-8"))["keys"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: holds no keys ({error}); restore it, or name another file by --keys.") from None


def add_key(path: Path, name: str, per_second: float | None = None) -> str:
    """Make a key, keep its hash in the file, which only its owner may read, and return the token: it is shown once."""
    keys = read_keys(path)
    if any(key.name == name for key in keys):
        raise UserError(f"{path}: there is a key named '{name}'; take another name, or remove its entry.")
    token = secrets.token_urlsafe(32)
    keys.append(Key(name, hashlib.sha256(token.encode()).hexdigest(), per_second))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, secret=True) as temporary:
        temporary.write_text(json.dumps({"keys": [asdict(key) for key in keys]}, indent=1) + "\n", "utf-8")
    return token
