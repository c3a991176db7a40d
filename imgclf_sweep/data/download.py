"""Downloading a published data set through `keras.datasets`, in a child process: it imports a tensor library.

python -m imgclf_sweep.data.download      started by `fetch` only
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..child import Child, ProtocolError, connect
from ..errors import BadInput, StoreError
from ..text import printable
from .files import locked, missing_parents, remove_empty

TIMEOUT = 1800.0  # seconds for a whole data set
STALLED = 30.0  # seconds without an answer from the server


def fetch(kind: str, downloads: Path, note: Callable[[str], None]) -> Path:
    """`downloads`/KIND.npz in the Keras layout, downloaded once however many processes ask.

    Raises: BadInput, saying which file to supply, when it cannot be had; StoreError when it cannot be written.
    """
    made = missing_parents(downloads)
    target = downloads / f"{kind}.npz"
    try:
        with locked(downloads / f".{kind}.lock", lambda: note(f"waiting for another process that downloads {kind}")):
            if not target.exists():
                note(f"downloading {kind} through keras.datasets (once)")
                _download(kind, target)
    except OSError as error:
        remove_empty(made)
        raise StoreError(
            f"cannot write '{printable(error.filename or downloads)}': {error.strerror or error}"
        ) from None
    except BadInput:
        remove_empty(made)
        raise
    return target.resolve()


def _download(kind: str, target: Path) -> None:
    reason = "the download ended without a word"
    partial = target.with_name(f".{kind}.part.npz")
    try:
        with Child(__name__) as child:
            child.send({"type": "fetch", "kind": kind, "file": str(partial.resolve())})
            for message in child.messages(TIMEOUT):
                if message["type"] == "done":
                    os.replace(partial, target)
                    return
                reason = str(message.get("reason", message["type"]))
    except TimeoutError:
        reason = f"not finished after {TIMEOUT / 60:.0f} minutes"
    except ProtocolError as error:
        reason = str(error)
    finally:
        partial.unlink(missing_ok=True)
    raise BadInput(
        f"data set '{kind}' could not be downloaded ({printable(reason)}); supply it as {kind}.npz in the Keras layout "
        f"(arrays x_train, y_train, x_test, y_test) in the folder named by --data-dir or IMGCLF_SWEEP_DATA"
    )


def main() -> None:
    """The child: receive what to fetch, write it, say so."""
    channel = connect()
    command = channel.receive(timeout=60)
    socket.setdefaulttimeout(STALLED)
    try:
        import keras

        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, command["kind"]).load_data()
        with open(command["file"], "wb") as file:
            np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
            file.flush()
            os.fsync(file.fileno())
    except Exception as error:  # whatever the network or the library does, the parent reports it
        line = str(error).strip().splitlines()
        channel.send(type="failed", reason=line[0] if line else type(error).__name__)
    else:
        channel.send(type="done")


if __name__ == "__main__":
    main()
