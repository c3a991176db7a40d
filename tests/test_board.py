"""`sweep board`: a real TensorBoard, on this machine only, ended with us."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from imgclf_sweep.board import board, serve
from imgclf_sweep.errors import BadInput, SweepError

LINUX = pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs Linux's /proc")


def get(url: str, path: str = "data/plugins_listing") -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url + path, timeout=30) as answer:
        return json.load(answer)


def gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def descendants(pid: int) -> list[int]:
    children = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            children += map(int, (thread / "children").read_text().split())
    return [p for child in children for p in (child, *descendants(child))]


def test_it_answers_only_here_and_ends_whole(tmp_path: Path) -> None:
    with serve(tmp_path, 0) as server:
        assert get(server.url)["hparams"]
        assert server.url.startswith("http://127.0.0.1:")
        children = descendants(server.process.pid) if Path("/proc").exists() else []
    assert server.process.poll() is not None
    assert all(gone(pid) for pid in children)
    with pytest.raises(OSError):
        get(server.url)
    server.close()  # twice is allowed


@LINUX
def test_the_open_file_limit_is_raised_and_tensorflow_is_not_loaded(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        with serve(tmp_path, 0) as server:
            limits = Path(f"/proc/{server.process.pid}/limits").read_text()
            maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == str(hard if hard != resource.RLIM_INFINITY else 2**20)
    assert "tensorflow" not in maps


def test_a_taken_default_port_is_left_to_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("imgclf_sweep.board.PORT", port)
        with serve(tmp_path) as server:
            assert not server.url.endswith(f":{port}/")
            assert get(server.url)["hparams"]
        with pytest.raises(BadInput, match=f"port {port}: Address already in use"):
            serve(tmp_path, port)


@pytest.mark.parametrize(("port", "host"), [(70000, "127.0.0.1"), (0, "203.0.113.7")])
def test_an_impossible_address_is_refused(tmp_path: Path, port: int, host: str) -> None:
    with pytest.raises(BadInput):
        serve(tmp_path, port, host=host)


def test_no_logs_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no TensorBoard logs at .*nowhere") as error:
        serve(tmp_path / "nowhere\n")
    assert "\n" not in str(error.value)


def test_a_server_that_ends_by_itself_is_said(tmp_path: Path) -> None:
    said: list[str] = []

    def stop(page: str) -> None:
        (pid,) = [
            p for p in descendants(os.getpid()) if b"imgclf_sweep.board" in Path(f"/proc/{p}/cmdline").read_bytes()
        ]
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(SweepError, match="ended by itself"):
        board(tmp_path, port=0, open_page=stop, say=said.append)
    assert "#hparams" in said[0] and "127.0.0.1" in said[0]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="did not start: .*load_fast"):
        serve(tmp_path, 0, load_fast="nonsense")


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_ctrl_c_and_with_our_death(tmp_path: Path, how: signal.Signals) -> None:
    program = f"from pathlib import Path; from imgclf_sweep.board import board; board(Path({str(tmp_path)!r}), port=0)"
    ours = subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with ours:
        assert ours.stdout is not None and ours.stderr is not None
        line = ours.stdout.readline()
        assert "#hparams" in line
        children = descendants(ours.pid)
        assert children
        ours.send_signal(how)
        assert ours.wait(30) == (0 if how == signal.SIGINT else -signal.SIGKILL)
        assert ours.stderr.read() == ""
    assert all(gone(pid) for pid in children)
