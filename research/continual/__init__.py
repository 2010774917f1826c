"""Continual learning: tasks in order, by several strategies, and what is kept of the earlier ones."""
