"""Executing a sweep file. Only child processes call this: a sweep file is code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import BadInput, SweepError
from .sweep import Sweep
from .text import printable


def execute(path: Path) -> Sweep:
    """Run the file and return its `sweep`.

    Raises: BadInput with the file's line where it has a syntax error, raises, exits, or has no `Sweep` named `sweep`.
    """
    sys.path.insert(0, str(path.parent))  # so that it can import what lies beside it, as `python FILE` would
    try:
        variables = runpy.run_path(str(path), run_name="__sweep__")
    except SyntaxError as error:
        raise BadInput(f"{printable(path)}, line {error.lineno}: syntax error: {printable(error.msg)}") from None
    except SweepError as error:
        raise BadInput(f"{_where(path, error)}: {error}") from None
    except SystemExit as error:
        raise BadInput(f"{_where(path, error)}: the file exits ({printable(repr(error.code))})") from None
    except Exception as error:
        raise BadInput(f"{_where(path, error)}: {type(error).__name__}: {printable(error)}") from None
    found = variables.get("sweep")
    if not isinstance(found, Sweep):
        other = [name for name, value in variables.items() if isinstance(value, Sweep)]
        hint = f" (it has one named '{printable(other[0])}': name it sweep)" if other else ""
        raise BadInput(f"{printable(path)}: no `sweep = Sweep(...)` in this file{hint}")
    return found


def _where(path: Path, error: BaseException) -> str:
    """`file, line N` of the innermost line of the file itself in the error's traceback."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{printable(path)}, line {lines[-1]}" if lines else printable(path)


def digest(path: Path, build: Callable[..., Any]) -> str:
    """A digest of the source that decides what `build` does: the sweep file but for its `sweep = ...` statement, whose values
    are compared one by one, and the file that defines `build` if that is another. Comments and layout do not count."""
    files = {path.resolve()}
    defined = inspect.getsourcefile(inspect.unwrap(build))
    if defined:
        files.add(Path(defined).resolve())
    digest = hashlib.sha256()
    for file in sorted(files):
        tree = ast.parse(file.read_bytes())
        tree.body = [node for node in tree.body if not _assigns_sweep(node)]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _assigns_sweep(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "sweep" for t in node.targets)
