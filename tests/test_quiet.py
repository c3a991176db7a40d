"""What native code prints is kept away; what comes before and after is not."""

import os

import pytest

from imgclf_sweep.quiet import without_native_chatter


def test_only_what_is_written_inside_is_lost(capfd):
    os.write(2, b"before ")
    with pytest.raises(ValueError), without_native_chatter():
        os.write(2, b"inside ")
        raise ValueError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"
