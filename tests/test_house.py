"""The house: imports run downward, libraries stay where they belong, files stay small, and light verbs stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "imgclf_sweep"

FLOORS = [  # lowest first
    {"errors", "text", "child", "quiet", "cores"},
    {"parameters", "space", "sweep", "trial", "sweepfile", "data", "models"},
    {"record", "backends", "executors", "tracking", "training"},
    {
        "run",
        "keep",
        "ending",
        "clock",
        "cost",
        "pacing",
        "policy",
        "retrain",
        "finishing",
        "score",
        "export",
        "predict",
        "check",
        "declare",
        "board",
        "figures",
        "pictures",
        "compare",
    },
    {"cli"},
]
WINGS = {  # room -> rooms of its own floor or the one below that it may know
    "backends": {"space", "sweep", "trial"},
    "tracking": {"space", "sweep", "trial"},
    "record": {"space", "sweep", "trial"},
    "training": {"parameters", "space", "sweep", "trial", "sweepfile", "data", "models"},
    "executors": {"space", "sweep", "trial", "training"},
}
HOMES = {  # library -> the files that may import it, as prefixes of their path in the package
    "optuna": ("backends/optuna_",),
    "keras_tuner": ("backends/keras_tuner_", "models/hypermodel"),
    "tensorboard": ("tracking/tensorboard", "tracking/events"),
    "keras": ("models/", "training/", "predict", "export", "data/download"),
    "tensorflow": ("training/",),
    "cv2": ("data/", "predict"),
    "sklearn": ("data/", "score"),
    "matplotlib": ("figures",),
}


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path):
    """(module, is_ours) of every import in a file, function-level ones included; ours as dotted path in the package."""
    package = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, False
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            dotted = [*base, *(node.module.split(".") if node.module else [])]
            if dotted and node.module:
                yield ".".join(dotted), True
            else:
                yield from ((".".join([*dotted, alias.name]), True) for alias in node.names)


def floor_of(room):
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


def room_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    floor = floor_of(room)
    assert floor is not None, f"{room} has no floor: give it one in FLOORS"
    for module, ours in imports_of(path):
        if not ours:
            assert not module.startswith("imgclf_sweep"), f"{path}: imports its own package by name"
            continue
        other = module.split(".")[0]
        if other in (room, "__version__"):
            continue
        assert floor_of(other) is not None, f"{path}: {module}"
        assert floor_of(other) <= floor, f"{path.name} (floor {floor + 1}) imports {module} from above"
        if room in WINGS and floor_of(other) >= 1:
            assert other in WINGS[room], f"{room} must not know {other}: {path.name} imports {module}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_at_home(path):
    relative = path.relative_to(PACKAGE).as_posix()
    for module, ours in imports_of(path):
        library = module.split(".")[0]
        if not ours and library in HOMES:
            assert relative.startswith(HOMES[library]), f"{relative} imports {module}"
        assert library not in ("multiprocessing", "pickle", "cloudpickle"), f"{relative} imports {module}"


def test_no_cycles():
    graph = {}
    for path in sources():
        relative = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(relative[:-1] if relative[-1] == "__init__" else relative)
        top = ast.parse(path.read_text())
        graph[name] = set()
        guarded = {
            id(inner)
            for node in ast.walk(top)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            for inner in ast.walk(node)
        }
        for node in ast.walk(top):
            if isinstance(node, ast.ImportFrom) and node.level and id(node) not in guarded:
                package = path.relative_to(PACKAGE).parent.parts
                base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
                graph[name] |= {".".join([*base, alias.name]) for alias in node.names} | {".".join(base)}
    graph = {name: {other for other in others if other in graph and other != name} for name, others in graph.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"import cycle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for other in graph[name]:
            if not name.startswith(other + ".") and other:  # a package's __init__ is loaded before its modules
                visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_files_hold_one_idea():
    long = {str(p.relative_to(PACKAGE)): n for p in sources() if (n := len(p.read_text().splitlines())) > 340}
    assert not long, f"longer than a file should be: {long}"


LIGHT = """
import sys
from imgclf_sweep.cli import main
sys.argv = ["sweep", *{arguments!r}]
try:
    main()
except SystemExit as end:
    code = end.code
names = ("tensorflow", "keras", "jax", "torch", "keras_tuner", "optuna", "tensorboard", "matplotlib")
heavy = [m for m in names if m in sys.modules]
print("HEAVY", heavy, code)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["status", "x"], ["trials", "x"], ["best", "x"], ["compare", "x"]]
)
def test_light_verbs_load_no_heavy_library(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(arguments=arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert "HEAVY [] " in done.stdout, done.stdout + done.stderr


def test_importing_the_package_loads_no_tensor_library():
    code = (
        "import sys; from imgclf_sweep import *; Sweep, Choice\n"
        "print([m for m in ('tensorflow', 'keras', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
