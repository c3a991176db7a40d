"""Small image folders and a watch on which files are opened."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

_watching: list[list[str]] = []


def _hook(event: str, arguments: tuple) -> None:
    if event == "open":
        for opened in _watching:
            opened.append(str(arguments[0]))


sys.addaudithook(_hook)  # cannot be taken away again; does nothing while nobody watches


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Paths opened while the test runs, as the interpreter itself reports them."""
    names: list[str] = []
    _watching.append(names)
    yield names
    _watching.remove(names)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of distinct small PNG images: `pictures({"cat": 5, "dog": 4}, under="train")`."""

    def make(counts: dict[str, int], under: str = "", size: tuple[int, int] = (12, 10)) -> Path:
        rng = np.random.default_rng(len(under))
        for name, count in counts.items():
            folder = tmp_path / "pictures" / under / name
            folder.mkdir(parents=True)
            for index in range(count):
                assert cv2.imwrite(str(folder / f"{index:03}.png"), rng.integers(0, 256, (*size, 3), np.uint8))
        return tmp_path / "pictures"

    return make
