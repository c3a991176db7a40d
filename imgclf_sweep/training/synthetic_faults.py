"""What can go wrong in a trial, done for real to the process that trains it. Only the synthetic trainer uses this."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from ..child import Channel
from ..trial import Kind

Failure = tuple[Kind, str]


def _channel() -> int:
    return int(sys.argv[1])


def _hang(epoch: int) -> None:
    while True:
        time.sleep(60)


DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(999)"
DAEMON = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], start_new_session=True)"


def _children(epoch: int) -> None:
    """Hang, deaf to SIGTERM, with three processes that are no better: a child, one with a session of its own, and one that was
    started by a process that is gone. Each says in its command line who started it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    name = f"started-by-{os.getpid()}"
    subprocess.Popen([sys.executable, "-c", DEAF, name])
    subprocess.Popen([sys.executable, "-c", DEAF, name], start_new_session=True)
    subprocess.run([sys.executable, "-c", DAEMON, DEAF, name], check=True)  # it ends at once, and leaves its own behind
    _hang(epoch)


def _print(epoch: int) -> None:
    """100 MB that are no text and no lines."""
    block = b"\xff\xfe\x80" * (2**20 // 3)
    for _ in range(100):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


def _write(data: bytes) -> None:
    """Write on the message channel what is no message, then hang."""
    view = memoryview(data)
    while view:
        view = view[os.write(_channel(), view) :]
    _hang(0)


def _stale(epoch: int) -> None:
    """A result of an attempt that is long over, from a worker that is not it any more."""
    outcome = {
        "state": "COMPLETE",
        "value": 0.999,
        "epoch": 1,
        "epochs": 1,
        "seconds": 1.0,
        "kind": None,
        "reason": None,
    }
    message = {"type": "ended", "token": "0123456789abcdef", "outcome": {**outcome, "found": {}}}
    os.write(_channel(), json.dumps(message).encode() + b"\n")


def _deaf(epoch: int) -> None:
    """The next sign of life cannot be sent."""
    send = Channel.send

    def fail_once(self: Channel, **message: object) -> None:
        if message["type"] == "beat":
            Channel.send = send  # type: ignore[method-assign]
            print("a sign of life failed", flush=True)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        send(self, **message)

    Channel.send = fail_once  # type: ignore[method-assign]


def _memory(epoch: int) -> None:
    """Take 300 MB, then die as by the kernel's hand. It sends SIGKILL without a word."""
    taken = bytearray(os.urandom(2**20)) * 300
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
    del taken


def _full(epoch: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/sweeps/checkpoint")


FAULTS: dict[str, Callable[[int], Failure | None]] = {
    "raise": lambda epoch: (Kind.ERROR, "RuntimeError: asked to fail"),
    "build": lambda epoch: (Kind.BUILD, "ValueError: asked not to build"),
    "diverge": lambda epoch: (Kind.DIVERGED, f"val_loss is nan in epoch {epoch}"),
    "oom": lambda epoch: (Kind.OUT_OF_MEMORY, "ResourceExhaustedError: OOM when allocating tensor with shape[9,9]"),
    "exit": lambda epoch: os._exit(7),
    "kill": lambda epoch: os.kill(os.getpid(), signal.SIGKILL),
    "segv": lambda epoch: os.kill(os.getpid(), signal.SIGSEGV),
    "stop": lambda epoch: os.kill(os.getpid(), signal.SIGSTOP),
    "rubbish": lambda epoch: _write(b"this is not a message\n"),
    "half_json": lambda epoch: _write(b'{"type": "measu'),
    "long_line": lambda epoch: _write(b"x" * 50 * 2**20),
    "hang": _hang,
    "children": _children,
    "print": _print,
    "stale": _stale,
    "deaf": _deaf,
    "memory": _memory,
    "full": _full,
}
