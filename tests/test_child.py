"""Children that cannot outlive us and cannot confuse us."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from imgclf_sweep.child import Child, ProtocolError


def module(tmp_path, body):
    (tmp_path / "achild.py").write_text(
        "from imgclf_sweep.child import connect\nchannel = connect()\n" + textwrap.dedent(body)
    )
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def test_messages_go_both_ways_whatever_is_printed(tmp_path):
    env = module(
        tmp_path,
        """
        print("noise on stdout")
        message = channel.receive()
        channel.send(type="answer", text=message["text"] * 2)
        """,
    )
    with Child("achild", env=env) as child:
        child.send({"type": "question", "text": "a\nb"})
        assert list(child.messages(20)) == [{"type": "answer", "text": "a\nba\nb"}]
        assert child.close(grace=5) == 0


@pytest.mark.parametrize("rubbish", ["not json", '{"no": "type"}', "[1]", '{"type": 3}'])
def test_rubbish_is_a_protocol_error(tmp_path, rubbish):
    env = module(tmp_path, f"import os, sys\nos.write(int(sys.argv[1]), {rubbish!r}.encode() + b'\\n')\n")
    with Child("achild", env=env) as child, pytest.raises(ProtocolError):
        list(child.messages(20))


def test_a_line_without_end_is_a_protocol_error(tmp_path):
    env = module(tmp_path, "import os, sys\nwhile True: os.write(int(sys.argv[1]), b'x' * 65536)\n")
    with Child("achild", env=env) as child, pytest.raises(ProtocolError, match="more than"):
        list(child.messages(20))


def alive(pid):
    """Whether a process lives; one that is dead and not yet collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def dead_within(pid, seconds=5):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_silence_is_a_timeout_and_closing_kills_grandchildren(tmp_path):
    env = module(
        tmp_path,
        """
        import subprocess, time
        other = subprocess.Popen(["sleep", "600"])
        channel.send(type="pid", pid=other.pid)
        time.sleep(600)
        """,
    )
    with Child("achild", env=env) as child:
        stream = child.messages(2)
        pid = next(stream)["pid"]
        with pytest.raises(TimeoutError):
            next(stream)
    assert dead_within(pid)


LEAVING = """
import subprocess, sys, time
told = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=-3, start_new_session=True).pid)"
own = subprocess.Popen(["sleep", "600"], start_new_session=True).pid
orphan = int(subprocess.run([sys.executable, "-c", told], stdout=subprocess.PIPE, check=True).stdout)
channel.send(type="pids", pids=[own, orphan])
"""


@pytest.mark.parametrize("then", ["time.sleep(600)", "raise SystemExit"], ids=["hangs", "has ended"])
def test_closing_kills_what_has_left_the_group_and_its_parent(tmp_path, then):
    env = module(tmp_path, LEAVING + then)
    with Child("achild", env=env) as child, Child("achild", env=env) as other:
        pids, others = next(child.messages(20))["pids"], next(other.messages(20))["pids"]
        child.close(grace=0 if "sleep" in then else 5)
        assert all(dead_within(pid) for pid in pids) and all(map(alive, others))
    assert all(dead_within(pid) for pid in others)


def test_a_child_dies_with_its_parent(tmp_path):
    env = module(tmp_path, "import time\nchannel.send(type='ready')\ntime.sleep(600)\n")
    parent = """
import os, sys
from imgclf_sweep.child import Child
child = Child("achild")
next(child.messages(20))
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", parent], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert dead_within(int(done.stdout))
