"""Full fine-tuning: all weights are trained."""

from __future__ import annotations

from research.adapters.hooks import AdapterHooks


class Adapter(AdapterHooks):
    """Changes nothing."""
