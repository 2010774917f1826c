"""A text that one thread generates and the event loop hands on, part by part."""

from __future__ import annotations

import asyncio
import time

from research.deploy.engine import Late
from research.models.generate import Output


class GrowingText:
    """Made on the event loop; `watch` is called by the thread that generates."""

    def __init__(self, timeout_seconds: float, most_tokens: int | None) -> None:
        self.parts: asyncio.Queue[str | None] = asyncio.Queue()  # None: there is no more
        self.tokens = 0  # generated so far
        self.is_over = self.is_late = False  # nobody listens any more; the time is over
        self._loop = asyncio.get_running_loop()
        self._sent = ""
        self._deadline, self._most_tokens = time.monotonic() + timeout_seconds, most_tokens

    def watch(self, output: Output) -> bool:
        """Hand on what is new; whether that is enough."""
        self.tokens = len(output.tokens)
        if new := self._new_of(output.text):
            self._loop.call_soon_threadsafe(self.parts.put_nowait, new)
        self.is_late = time.monotonic() > self._deadline
        return self.is_over or self.is_late or self.tokens == self._most_tokens

    async def next_part(self) -> str | None:
        """The next part, or None at the end. Raises Late."""
        try:
            return await asyncio.wait_for(self.parts.get(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise Late from None

    def rest_of(self, text: str) -> str:
        """What has not been handed on of the whole text."""
        return self._new_of(text)

    def _new_of(self, text: str) -> str:
        if not text.startswith(self._sent):  # the tokenizer joins words in another way than before
            return ""
        new, self._sent = text[len(self._sent) :], text
        return new
