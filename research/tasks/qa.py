"""Another name for `task: extractive_qa`."""

from research.tasks.extractive_qa import Data, Module

__all__ = ["Data", "Module"]
