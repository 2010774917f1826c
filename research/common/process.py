"""Settings of this process that libraries read when they are imported, and how its memory is kept."""

import ctypes
import os
import sys

trains_here = True  # False in a process that answers alone, where tasks are made without Lightning


def prepare_process(trains: bool = True) -> None:
    """Set them; to be called before those libraries are imported."""
    global trains_here
    trains_here = trains
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():  # a log file
        for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
            os.environ.setdefault(name, "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a rank that ends says so itself, once
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let each step reuse what the one before freed: handed back to the kernel, every page is faulted in again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, bytes
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the most that every glibc takes
