"""Text that came from files, made safe and readable for a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: object) -> str:
    """`text` on one line with every control, format or unpaired character escaped, so that a name cannot move the cursor.

    >>> printable("cat\\x1b[2J")
    'cat\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text))


def listed(values: Iterable[object], limit: int = 12) -> str:
    """`values` as `a, b, c`, cut after `limit` with the number left out."""
    values = [printable(v) for v in values]
    shown = ", ".join(values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
    """The one line for a name that does not exist: what was given, what is allowed, the nearest guess."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(given), allowed, n=1)
    guess = f"; did you mean '{printable(near[0])}'?" if near else ""
    return f"unknown {what} '{printable(given)}'; allowed: {listed(allowed)}{guess}"
