"""What an exception raised by one trial means. Pure: nothing of a tensor library is imported to tell its errors apart."""

from __future__ import annotations

import errno
import os
import traceback

from ..errors import SweepError
from ..text import printable
from ..trial import Kind, Outcome, State

MEMORY_CLASSES = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
"""Python and NumPy; TensorFlow; PyTorch. JAX raises JaxRuntimeError with a text."""

MEMORY_TEXTS = ("RESOURCE_EXHAUSTED", "OutOfMemory", "OOM when allocating", "out of memory")

ENVIRONMENT = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EMFILE", "ENFILE", "EIO", "ESTALE")
"""What the operating system refuses whatever the trial is. h5py and TensorFlow pass it on as a text only."""

ENVIRONMENT_ERRNOS = {getattr(errno, name) for name in ENVIRONMENT}
ENVIRONMENT_TEXTS = tuple(os.strerror(number) for number in sorted(ENVIRONMENT_ERRNOS))

FRAMES_LIMIT = 10
REASON_LIMIT = 500  # characters; TensorFlow's messages can hold a whole graph


def classify(error: BaseException, began: bool, file: str | None = None) -> tuple[Kind, str]:
    """The kind and the one-line reason of `error`.

    began: whether a first batch had been trained; before that the model itself is to blame.   file: the sweep file whose
    `build(hp)` ran, if one did: the innermost line of it in the traceback is named.
    """
    reason = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, SweepError):
        reason = printable(error)
    where = _line_in(error, file) if file else None
    if where:
        reason += f" ({where})"
    origin = _origin(error)
    if any(c.__name__ in MEMORY_CLASSES for c in type(origin).__mro__) or any(t in str(origin) for t in MEMORY_TEXTS):
        return Kind.OUT_OF_MEMORY, reason
    surrounding = environment_reason(origin)
    if surrounding is not None:
        return Kind.ENVIRONMENT, surrounding
    return (Kind.ERROR if began else Kind.BUILD), reason


def _origin(error: BaseException) -> BaseException:
    """The exception that ours was made of: a failure of the user's `build(hp)` reaches us wrapped in one line."""
    while isinstance(error, SweepError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def environment_reason(error: BaseException) -> str | None:
    """In a line what the machine refused, if that is what `error` says: a full disk, say; None if not."""
    if not isinstance(error, OSError) and not type(error).__module__.startswith(("tensorflow", "h5py")):
        return None
    number = getattr(error, "errno", None)
    texts = [text for text in ENVIRONMENT_TEXTS if text in str(error)]
    if number not in ENVIRONMENT_ERRNOS and not texts:
        return None
    what = os.strerror(number) if number in ENVIRONMENT_ERRNOS else texts[0]
    where = f" at {printable(error.filename)}" if isinstance(getattr(error, "filename", None), str) else ""
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or os.strerror(errno.ENOSPC) in texts
    return f"{'disk full' if full else what}{where}" + (f" ({what})" if full else "")


def surroundings(error: SweepError | OSError) -> Outcome:
    """How a job ends whose trainer raised `error`, which is then not the job's fault: the prepared data are gone, or the disk.

    Raises: `error` itself, where it tells of a fault in the trainer.
    """
    reason = str(error) if isinstance(error, SweepError) else environment_reason(error)
    if reason is None:
        raise error
    return Outcome(State.FAILED, kind=Kind.ENVIRONMENT, reason=reason)


def user_frames(error: BaseException, file: str) -> str | None:
    """The traceback of `error` through the user's own code, as Python prints it but for its heading: frames in the sweep file
    and what lies beside it, then the exception. None where it never went through that."""
    error = _origin(error)
    home = os.path.dirname(os.path.abspath(file)) + os.sep
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(home) and "site-packages" not in frame.filename
    ]
    if not any(frame.filename == file for frame in frames):
        return None
    text = "".join(traceback.format_list(frames[-FRAMES_LIMIT:])) + f"{type(error).__name__}: {first_line(error)}"
    return "\n".join(map(printable, text.splitlines()))


def first_line(error: BaseException) -> str:
    """The first line of the message that says something; TensorFlow puts a heading and a traceback before its own."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Graph execution error"):
        rest = [line for line in lines[1:] if not line.startswith((" ", "\t", "Detected at", "<stack traces"))]
        lines = rest or lines
    line = printable(lines[0].strip()) if lines else "no message"
    return line if len(line) <= REASON_LIMIT else line[: REASON_LIMIT - 3] + "..."


def _line_in(error: BaseException, file: str) -> str | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{printable(os.path.basename(file))}, line {lines[-1]}" if lines else None
