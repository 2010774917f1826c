"""Another name for `task: extractive_qa`."""

from research.tasks.extractive_qa import Data, Keys, Module

__all__ = ["Data", "Keys", "Module"]
