"""Another name for `task: multiple_choice`."""

from research.tasks.multiple_choice import Data, Module

__all__ = ["Data", "Module"]
