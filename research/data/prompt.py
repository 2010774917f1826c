"""Templates of what a model reads: literal text with the names of fields and columns in braces."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from string import Formatter

from research.common.errors import UserError


class Template:
    """`summarize: {document}`; a brace of the text itself is doubled. `key` names it in errors."""

    def __init__(self, text: str, key: str = "task.template") -> None:
        self.key, self.text = key, text
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise UserError(f"{key}={text!r}: {error}; write a brace of the text itself twice, as in {{{{.") from None
        if any(spec or conversion or (name is not None and not name) for _, name, spec, conversion in parts):
            raise UserError(f"{key}={text!r}: braces hold the name of a field or column and nothing else.")
        self.parts = [(literal, name) for literal, name, _, _ in parts]
        self.names = list(dict.fromkeys(name for _, name in self.parts if name is not None))

    def refuse_missing(self, columns: Collection[str], origin: str) -> None:
        """Raise UserError where a name is no column."""
        for name in self.names:
            if name not in columns:
                near = difflib.get_close_matches(name, columns, 1)
                hint = f" Did you mean {{{near[0]}}}?" if near else ""
                held = ", ".join(sorted(columns))
                raise UserError(f"{self.key} names {{{name}}}, but the columns of {origin} are {held}.{hint}")

    def render(self, values: Mapping[str, str]) -> str:
        """The text with the values in it."""
        return "".join(literal + (values[name] if name is not None else "") for literal, name in self.parts)

    def fitted(
        self, values: Mapping[str, str], limit: int, length: Callable[[str], int], shorten: Callable[[str, int], str]
    ) -> str:
        """The text with the values in it, of at most `limit` tokens: the longest value is shortened.

        `length` counts the tokens of a text, `shorten` takes so many from one. Raises UserError where the template is
        longer by itself.
        """
        values = dict(values)
        text = self.render(values)
        while (excess := length(text) - limit) > 0:
            name = max(values, key=lambda name: len(values[name]), default=None)
            if name is None or not values[name]:
                raise UserError(f"the template alone has {length(text)} tokens, more than data.max_length={limit}.")
            values[name] = shorten(values[name], excess)
            text = self.render(values)
        return text
