"""Fine-tune transformers, with publication-ready numbers.

From Python: `train`, `load`, `compare`, `write_report` and `search` (research/api.py), imported when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.api import FinishedRun, compare, load, search, train, write_report

__version__ = "0.1.0"
__all__ = ["FinishedRun", "compare", "load", "search", "train", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'research' has no attribute '{name}'")
    from research import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
