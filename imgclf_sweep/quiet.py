"""Keeping what tensor libraries' native code prints away from the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_native_chatter() -> Iterator[None]:
    """Inside, what Keras's tensor library's native code writes to stderr goes nowhere.

    TensorFlow says four lines about processor features whatever TF_CPP_MIN_LOG_LEVEL is; errors come as exceptions.
    """
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
