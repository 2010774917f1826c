"""Another name for `task: classification`."""

from research.tasks.classification import Data, Module

__all__ = ["Data", "Module"]
