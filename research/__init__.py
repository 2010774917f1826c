"""Fine-tune transformers, with publication-ready numbers.

From Python: the names of `__all__` (research/api.py), each imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.api import FinishedRun, build, compare, load, open_data, search, train, write_report

__version__ = "0.1.0"
__all__ = ["FinishedRun", "build", "compare", "load", "open_data", "search", "train", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'research' has no attribute '{name}'")
    from research import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
