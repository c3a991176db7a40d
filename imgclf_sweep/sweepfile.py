"""Executing a sweep file. Only child processes call this: a sweep file is code."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import runpy
import sys
import sysconfig
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
        where = printable(error.filename or path) + (f", line {error.lineno}" if error.lineno else "")
        raise BadInput(f"{where}: syntax error: {printable(error.msg)}") from None
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
    """A digest of the source that decides what `build` does: the sweep file, the file that defines `build`, and what has been
    imported from beside the sweep file. Of the `sweep = ...` statement only `model=` counts, for its other values are compared
    one by one. Comments and layout do not count. To be taken before `build` is first called: it may import more."""
    files = {path.resolve(), *_beside(path)}
    if defined := _defined_in(build):
        files.add(defined)
    digest = hashlib.sha256()
    for file in sorted(files):
        for node in ast.parse(file.read_bytes()).body:
            digest.update("".join(map(ast.dump, _models(node) if _assigns_sweep(node) else [node])).encode())
    return digest.hexdigest()


def _defined_in(build: Any) -> Path | None:
    """The file of a function, of what a `functools.partial` calls, or of an object's class."""
    while isinstance(build, functools.partial):
        build = build.func
    build = inspect.unwrap(build)
    source = inspect.getsourcefile(build if inspect.isroutine(build) or inspect.isclass(build) else type(build))
    return Path(source).resolve() if source else None


def _beside(path: Path) -> set[Path]:
    """The files below the sweep file's folder that modules were imported from, but for installed libraries and our own."""
    folder, paths = path.resolve().parent, sysconfig.get_paths()
    apart = [Path(p).resolve() for p in (paths["purelib"], paths["platlib"], paths["stdlib"], Path(__file__).parent)]
    files = {Path(m.__file__).resolve() for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    return {
        file
        for file in files
        if file.suffix == ".py" and file.is_relative_to(folder) and not any(map(file.is_relative_to, apart))
    }


def _assigns_sweep(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "sweep" for t in node.targets)


def _models(node: ast.stmt) -> list[ast.AST]:
    """What is given as `model=` in a statement: a lambda, or a call that makes the function, is source as well."""
    return [part.value for part in ast.walk(node) if isinstance(part, ast.keyword) and part.arg == "model"]
