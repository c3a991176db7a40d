"""Reading a sweep file: executed in a child with a time limit, handed over as JSON, made a checked `Sweep` here.

As a module (`python -m`) this is that child.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from .child import Child, ProtocolError, connect
from .errors import BadInput
from .sweep import Sweep
from .text import printable

FILE_SECONDS = 60.0  # for the file itself, its imports included: importing TensorFlow takes 5 to 15 s
DISCOVERY_SECONDS = 600.0  # for building a user's build(hp) until its space is known


def read(
    path: Path,
    *,
    note: Callable[[str], None] = lambda line: None,
    file_seconds: float = FILE_SECONDS,
    discovery_seconds: float = DISCOVERY_SECONDS,
) -> Sweep:
    """The sweep that `path` declares, with paths made absolute and the space of a `build(hp)` discovered.

    note: told in a line what a user should know about that.
    Raises: BadInput, one line with the file's name and line, for anything wrong with it: missing, a syntax error, an exception,
    an exit, a crash, no end within the limit, no `Sweep` in it, or a `Sweep` that cannot be run.
    """
    if not path.exists():
        raise BadInput(f"no such sweep file: {printable(path)}")
    if not path.is_file():
        raise BadInput(f"not a file: {printable(path)}")
    with tempfile.TemporaryFile() as output, Child("imgclf_sweep.declare", output=output) as child:
        child.send({"type": "read", "path": str(path.resolve())})
        message = _next(child, path, file_seconds, output, "executing the file")
        if message["type"] == "discovering":
            message = _next(child, path, discovery_seconds, output, "building its model")
    if message["type"] == "refused":
        raise BadInput(message["reason"])
    if message["incomplete"]:
        note(
            f"{printable(path)}: its build(hp) asks for something new at every turn; names not met so far take their defaults"
        )
    return Sweep.from_json(message["sweep"])


def _next(child: Child, path: Path, seconds: float, output: IO[bytes], doing: str) -> dict[str, Any]:
    try:
        for message in child.messages(seconds):
            return message
    except TimeoutError:
        raise BadInput(f"{printable(path)}: {doing} did not end within {seconds:g} s") from None
    except ProtocolError as error:
        raise BadInput(f"{printable(path)}: {doing} wrote to a channel that is not its own ({error})") from None
    status = child.close(grace=2)
    how = f"exited with status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = f"crashed ({signal.Signals(-status).name})"
    raise BadInput(f"{printable(path)}: {doing} {how}{_last_line(output)}")


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read()[-4096:].decode(errors="replace").strip().splitlines()
    return f"; it printed last: {printable(lines[-1][:200])}" if lines else ""


def resolve(sweep: Sweep, path: Path, discovering: Callable[[], None] = lambda: None) -> tuple[Sweep, bool]:
    """`sweep` with nothing left that only this process or this directory could understand, and whether its space is whole."""
    sweep = replace(sweep, dataset=sweep.dataset.resolved(path.parent))
    if not callable(sweep.model):
        return sweep, True
    from .models.hypermodel import discover
    from .sweep import BuildFunction
    from .sweepfile import digest
    from .text import unknown

    discovering()
    build = sweep.model
    source = digest(path, build)  # before it is called
    found = discover(build, sweep.dataset.shape)
    if sweep.objective.metric not in found.metrics:
        raise BadInput(unknown("metric", sweep.objective.metric, found.metrics))
    name = getattr(build, "__name__", type(build).__name__)
    model = BuildFunction(str(path), name, source)
    return replace(sweep, model=model, space=found.space), found.complete


def main() -> None:
    channel = connect()
    path = Path(channel.receive()["path"])
    from .sweepfile import execute

    try:
        sweep, complete = resolve(execute(path), path, discovering=lambda: channel.send(type="discovering"))
        channel.send(type="declared", sweep=sweep.to_json(), incomplete=not complete)
    except BadInput as error:
        where = "" if str(error).startswith(printable(path)) else f"{printable(path)}: "
        channel.send(type="refused", reason=f"{where}{error}")


if __name__ == "__main__":
    main()
