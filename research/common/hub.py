"""Whether the hub can be asked for models and data."""

from __future__ import annotations

import functools

import huggingface_hub


@functools.cache
def hub_answers() -> bool:
    """Whether the hub can be reached: asked once, with a short limit: `datasets` retries for minutes."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
    except Exception:  # the errors of whichever HTTP library the hub's client is built on
        return False
    return True
