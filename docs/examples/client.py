"""Ask a service of `research serve`, with the standard library alone."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


class Client:
    """A service at an address, with a key where it asks for one."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url, self.key = url.rstrip("/"), key

    def ask(self, path: str, content: Any = None) -> Any:
        """The JSON that a GET, or a POST of `content`, is answered with. Raises urllib.error.HTTPError."""
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, {"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def predict(self, run: str, texts: list[str]) -> list[dict[str, Any]]:
        """The predictions for texts."""
        found: list[dict[str, Any]] = self.ask(f"/v1/predict/{run}", {"inputs": [{"text": text} for text in texts]})[
            "predictions"
        ]
        return found

    def drift(self, run: str) -> dict[str, float]:
        """How likely it is that labels, and confidence, are still those of the run's test data."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        values = (line.rpartition(" ") for line in lines if line.startswith("research_drift_p{") and f'"{run}"' in line)
        return {"labels" if 'of="labels"' in name else "confidence": float(value) for name, _, value in values}
