"""`sweep board`: TensorBoard on a sweep's logs, on this machine only, ended with us.

Run as `python -m imgclf_sweep.board ARGUMENT...` this module is the server process: TensorBoard with the open-file limit raised
(its loader keeps every trial's file open and silently drops those beyond the limit), with its own small stand-in for TensorFlow
(it reads our logs just the same and starts in a tenth of the time), ending when the pipe to its parent closes.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from .child import environment
from .errors import BadInput, SweepError
from .text import printable

PORT = 6006  # TensorBoard's own default
START_LIMIT = 120.0  # seconds that a loaded machine may take to start it
SPARE_FILES = 100  # open files that TensorBoard needs besides the logs


class Server:
    """A running TensorBoard: `process`, `url` (ends in `/`); `close` or leaving a `with` block ends it and all it started."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def close(self) -> None:
        """End the server. Calling it twice is allowed."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    logdir: Path,
    port: int | None = None,
    *,
    host: str = "127.0.0.1",
    load_fast: str = "auto",
    reload_interval: float = 5,
) -> Server:
    """Start TensorBoard on `logdir` and return when it answers.

    port: None takes 6006, or the next free one where that is taken; 0 any free one.
    load_fast: "true" for TensorBoard's own data server, "false" for its Python loader, "auto" for the first where it runs.

    Raises: BadInput for a directory that is not there or a port that is taken; SweepError where it does not start.
    """
    if not logdir.is_dir():
        raise BadInput(f"no TensorBoard logs at {printable(logdir)}")
    port = _port(host, port)
    arguments = {"logdir": str(logdir), "host": host, "port": port}
    arguments |= {"reload_interval": f"{reload_interval:g}", "load_fast": load_fast}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, *(f"--{name}={value}" for name, value in arguments.items())],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to handle
            env=environment(),
        )
        server = Server(process, f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        try:
            if not _answers(server):
                output.seek(0)
                said = output.read().decode(errors="replace").strip().splitlines()
                raise SweepError(f"TensorBoard did not start: {printable(said[-1] if said else 'it said nothing')}")
        except BaseException:
            server.close()
            raise
    return server


def board(
    logdir: Path,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    open_page: Callable[[str], object] | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Serve `logdir` until Ctrl-C, saying where; `open_page` is given the page's address once it answers.

    Raises: as `serve`; SweepError where the server ends by itself.
    """
    with contextlib.suppress(KeyboardInterrupt), serve(logdir, port, host=host) as server:
        page = f"{server.url}#hparams"
        say(f"TensorBoard on {printable(logdir)}: {page}  (Ctrl-C ends it)")
        if (short := _too_many(logdir)) is not None:
            say(short)
        if open_page is not None:
            open_page(page)
        status = server.process.wait()
        raise SweepError(f"TensorBoard ended by itself (exit status {status})")


def _port(host: str, port: int | None) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (*range(PORT, PORT + 10), 0) if port is None else (port,):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that just ended holds nothing
            try:
                probe.bind((host, candidate))
            except OverflowError:
                raise BadInput(f"a port is a number from 0 to 65535, got {port}") from None
            except OSError as error:
                if port is None and candidate:
                    continue
                raise BadInput(f"cannot listen on {printable(host)} port {candidate}: {error.strerror}") from None
            return int(probe.getsockname()[1])
    raise AssertionError


def _answers(server: Server) -> bool:
    """Wait until the server answers; False when it ended or took too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    deadline = time.monotonic() + START_LIMIT
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(server.url + "data/plugins_listing", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def _too_many(logdir: Path) -> str | None:
    """What to say where there are more runs than files that may be open at once."""
    hard = _raise_limit(dry=True)
    runs = sum(1 for entry in os.scandir(logdir) if entry.is_dir())
    if hard is None or runs + SPARE_FILES <= hard:
        return None
    return (
        f"{runs} runs, but this system lets a process open only {hard} files: the rest will be missing (see ulimit -Hn)"
    )


def _raise_limit(dry: bool = False) -> int | None:
    """Raise the soft limit of open files to the hard one, which is returned; None where there is none."""
    try:
        import resource
    except ImportError:  # no such limit on this system
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 2**20 if soft == resource.RLIM_INFINITY else max(soft, 2**20)
    if not dry:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return hard


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would break the interpreter's shutdown
        pass
    os._exit(0)  # the parent closed the pipe or is gone; TensorBoard's data server watches a pipe of ours in turn


def _main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _raise_limit()
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")  # TensorBoard's own switch
    sys.argv[0] = "tensorboard"
    runpy.run_module("tensorboard.main", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    _main()
