"""Child processes that cannot outlive us and cannot confuse us.

Everything that runs a user's code or a tensor library runs in a child made here: its own process group, killed as a whole; JSON
lines both ways on pipes of their own, so that whatever the child prints to stdout harms nothing; dead within a moment of its
parent's death, however that died (the end of the command pipe, and on Linux the parent-death signal).

What a child starts dies with it even where it leaves the group (`setsid`, a daemon): each child's environment has a mark of its
own, which all that it starts inherits, and Linux shows the environment of every process in /proc. Jenkins finds left-over
processes of a build in this way. Only a process that also erases its environment is not found.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

LINE_LIMIT = 64 * 2**20  # bytes; many lanes tell their whole past in one message, but a longer one is not one of ours
PR_SET_PDEATHSIG = 1  # prctl(2)
MARK = "IMGCLF_SWEEP_CHILD_{}"  # the name tells the child, so that one within another has both
SEARCHES = 10  # at most, for what a child started; each finds only what was started during the one before


class ProtocolError(Exception):
    """The child wrote something on the message channel that is no message."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment for a child: byte code may be written (TensorFlow imports in 5 s with it, 14 s without), quiet logs."""
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    env.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    env.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    env["PYTHONUNBUFFERED"] = "1"
    package_parent = str(Path(__file__).resolve().parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(p for p in (package_parent, env.get("PYTHONPATH")) if p)
    env.update(extra or {})
    return env


class Child:
    """A running `python -m module`, seen from its parent.

    `output` receives what the child prints (default: nothing is kept). `env` is added to `environment()`.
    """

    def __init__(
        self,
        module: str,
        *,
        output: IO[bytes] | int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._in, child_out = os.pipe()
        self._mark = MARK.format(uuid.uuid4().hex)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(child_out), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(child_out,),
                start_new_session=True,
                env=environment({**(env or {}), self._mark: "1"}),
                cwd=cwd,
            )
        except OSError:
            os.close(self._in)
            raise
        finally:
            os.close(child_out)
        self._guard = _guard(self.process.pid, self._mark)
        os.set_blocking(self._in, False)
        self._buffer = b""
        self._ended = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def fileno(self) -> int:
        """The message pipe, for a selector."""
        return self._in

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message. A child that is gone is not an error here: its end is seen by `receive`."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have arrived; `ended` turns true when there can be no more.

        Raises: ProtocolError for a line that is not a JSON object with a "type", or is too long.
        """
        while not self._ended:
            try:
                data = os.read(self._in, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                self._ended = True
            self._buffer += data
            if len(self._buffer) > LINE_LIMIT:
                raise ProtocolError(f"a message of more than {LINE_LIMIT} bytes")
        *lines, self._buffer = self._buffer.split(b"\n")
        return [_message(line) for line in lines if line.strip()]

    @property
    def ended(self) -> bool:
        return self._ended

    def messages(self, timeout: float) -> Iterator[dict[str, Any]]:
        """Messages as they come, until the child closes its channel.

        Raises: TimeoutError after `timeout` seconds in all; ProtocolError.
        """
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_READ)
            while not self._ended:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError
                yield from self.receive()

    def terminate(self) -> None:
        """SIGTERM to the child alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()

    def close(self, grace: float = 0.0) -> int:
        """End the child and every process it started; wait for it. Returns its exit status as `subprocess` gives it.

        grace: seconds it is given to end by itself first, after its command pipe was closed.
        """
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        if grace:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        _kill_marked(self._mark)
        if self._guard is not None:  # before its number can be another's
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        status = self.process.wait()
        if self._in >= 0:
            os.close(self._in)
            self._in = -1
        return status

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


GUARD = """
read -r _
kill -KILL "-$1"
for _ in 1 2 3; do
    for found in $(grep -lF "$2" /proc/[0-9]*/environ); do
        found=${found%/environ}
        kill -KILL "${found#/proc/}"
    done
done
"""


def _guard(group: int, mark: str) -> subprocess.Popen[bytes] | None:
    """A shell that waits for our end and then kills a child's whole group and all that has its mark: the child itself dies by the
    parent-death signal, too suddenly to take along what it started. None where there is no room for it."""
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(group), mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return None


def _kill_marked(mark: str) -> None:
    """Kill every process that inherited the mark, until there is none. Where there is no /proc, nothing is found."""
    for _ in range(SEARCHES):
        found = _marked(mark.encode())
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _marked(mark: bytes) -> list[int]:
    """The living processes that have it; of one that is dead but not collected, Linux shows no environment."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read():
                        found.append(int(name))
    return found


class Channel:
    """The child's end: `send` messages to the parent, `receive` the next of its own. Made by `connect`."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._commands = os.fdopen(os.dup(0), "rb", buffering=0)
        self._queue: list[bytes] = []
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True, name="commands").start()

    def _read(self) -> None:
        buffer = b""
        while True:
            data = self._commands.read(1 << 16)
            if not data:  # the parent closed the pipe or is gone
                os._exit(0)
            *lines, buffer = (buffer + data).split(b"\n")
            with self._arrived:
                self._queue += [line for line in lines if line.strip()]
                self._arrived.notify_all()

    def send(self, **message: Any) -> None:
        """Send one message; every message has a `type`. NaN is not JSON and is refused with ValueError."""
        data = json.dumps(message, allow_nan=False).encode() + b"\n"
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next command. Raises: TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._queue, timeout):
                raise TimeoutError
            return _message(self._queue.pop(0))


def connect() -> Channel:
    """Called first thing by a child module: bind it to its parent's life and open the channel named in its arguments."""
    out, parent = int(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping is the parent's decision
    os.set_inheritable(out, False)
    channel = Channel(out)
    null = os.open(os.devnull, os.O_RDONLY)  # user code that reads stdin must not eat our commands
    os.dup2(null, 0)
    os.close(null)
    return channel


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        raise ProtocolError("a line that is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("a message without a type")
    return message
