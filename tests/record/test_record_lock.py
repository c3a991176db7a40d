"""One writer a sweep, named to whoever comes second, and gone the moment its process is."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from imgclf_sweep.errors import Held
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.lock import Lock, holder
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.write import Record

OWN = 'record = opened(); say("open"); time.sleep(600)'


def test_a_second_owner_is_told_who_holds_it_and_changes_nothing(directory: SweepDir, opened, process) -> None:
    first = process(OWN)
    assert first.stdout.readline() == "open\n"
    before = directory.declaration.read_bytes(), directory.lock.read_bytes()
    with pytest.raises(
        Held, match=rf"^sweep 's' is being run by process {first.pid} on host {socket.gethostname()} since 20"
    ):
        opened()
    with pytest.raises(Held):
        Record.reopen(directory)
    assert Held.exit_code == 75
    assert before == (directory.declaration.read_bytes(), directory.lock.read_bytes())
    assert Reader(directory).holder().pid == first.pid


def test_the_lock_is_free_when_its_owner_was_killed_even_if_what_it_started_lives_on(
    directory, opened, process
) -> None:
    first = process(
        "import subprocess\n"
        "record = opened()\n"
        'sleeper = "import time; print(1, flush=True); time.sleep(600)"\n'
        'child = subprocess.Popen([sys.executable, "-c", sleeper], close_fds=False)\n'
        "say(child.pid); time.sleep(600)"
    )
    worker = int(first.stdout.readline())
    assert first.stdout.readline() == "1\n"
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        os.kill(worker, 0)  # it is alive
        assert Reader(directory).holder() is None
        opened()
        assert Reader(directory).holder().pid == os.getpid()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_of_processes_that_begin_a_sweep_at_once_exactly_one_does(directory: SweepDir, process) -> None:
    lines = (
        "say('ready'); sys.stdin.readline()\n"
        "try: record = opened(); say('won', record.info.id); sys.stdin.readline()\n"
        "except SweepError as error: say('lost', error.exit_code)"
    )
    children = [process(lines) for _ in range(6)]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 6
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    said = [child.stdout.readline().split() for child in children]
    won = [words[1] for words in said if words[0] == "won"]
    assert len(won) == 1 and said.count(["lost", "75"]) == 5
    assert Reader(directory).info.id == won[0]


def test_looking_never_refuses_a_run_that_starts(directory: SweepDir, opened) -> None:
    opened().close()
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            holder(directory.lock)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            lock = Lock(directory.lock, "s")
            lock.acquire()
            lock.release()
    finally:
        looking.set()
        for thread in threads:
            thread.join()


def test_a_lock_whose_file_was_removed_guards_nothing(directory: SweepDir) -> None:
    first, second, third = (Lock(directory.lock, "s") for _ in range(3))
    first.acquire()
    first.release(remove=True)
    assert not directory.lock.exists()
    second.acquire()
    with pytest.raises(Held):
        third.acquire()
    second.release()
    second.release()
    third.acquire()
    third.release()


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"[]", b'{"pid": "x"}', b'{"pid": 1, "host": "\\u001b[2J", "since": "x"}']
)
def test_a_strange_lock_file_still_makes_one_plain_line(directory: SweepDir, content: bytes) -> None:
    lock = Lock(directory.lock, "s")
    lock.acquire()
    directory.lock.write_bytes(content)
    with pytest.raises(Held) as error:
        Lock(directory.lock, "s").acquire()
    assert str(error.value).startswith("sweep 's' is being run by ") and str(error.value).isprintable()
    lock.release()
