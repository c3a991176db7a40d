"""Every error a user can meet, named by what happens next.

A verb catches `SweepError` at one place, prints its one line and exits with its code; anything else that reaches a user is a
bug of ours. Messages say what was given and what is allowed, without a trailing full stop.

| class          | exit | what happened, and what happens next                                            |
|----------------|------|---------------------------------------------------------------------------------|
| `BadInput`     | 2    | the command, sweep file or data is wrong; nothing was created or changed        |
| `Broken`       | 3    | the sweep stopped itself: every trial fails in the same way                     |
| `StoreError`   | 4    | the record or the disk cannot be used; what was committed is safe               |
| `Held`         | 75   | another process holds this sweep; nothing was touched                           |
| `Interrupted`  | 130  | stopped by a signal (128 + its number); the same command continues              |
"""

from __future__ import annotations


class SweepError(Exception):
    """Base of everything a verb turns into one line and an exit code."""

    exit_code = 1


class BadInput(SweepError):
    """Something the user gave is not allowed. Raised before anything is created."""

    exit_code = 2


class Broken(SweepError):
    """The first trials all fail in the same way: there is nothing to search."""

    exit_code = 3


class StoreError(SweepError):
    """The record, a checkpoint or the disk under them cannot be read or written."""

    exit_code = 4


class Held(SweepError):
    """Another process holds the sweep's lock."""

    exit_code = 75


class Interrupted(SweepError):
    """A signal asked the run to end; everything told is in the record."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
