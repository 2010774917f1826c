"""Render a report: LaTeX, HTML, W&B."""
