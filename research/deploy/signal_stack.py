"""The alternate stack on which a thread's signals are handled, kept from a library that replaces it.

OpenVINO's plugin for processors sets a stack of its own when a model is compiled and frees it with the model. Of two
models, the one that was compiled first and is dropped first leaves a freed stack in use, and the next signal, such as
the SIGTERM that ends a service, is a segmentation fault. With the thread's own stack back in its place nothing is left
of the plugin's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

STACK_BYTES = 24  # of C's stack_t on 64 bits


def signal_stack() -> bytes:
    """The calling thread's alternate stack, as C's `stack_t`."""
    stack = ctypes.create_string_buffer(STACK_BYTES)
    ctypes.CDLL(None).sigaltstack(None, stack)
    return stack.raw


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Afterwards the calling thread has the alternate stack it had before."""
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(before, None)
