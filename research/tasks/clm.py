"""Causal language modelling: the task `lm` under its other name."""

from research.tasks.lm import Data, Keys, Module

__all__ = ["Data", "Keys", "Module"]
