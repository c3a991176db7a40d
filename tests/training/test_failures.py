"""What an exception of a trial is called, without a tensor library."""

import pytest

from imgclf_sweep.errors import BadInput
from imgclf_sweep.training.failures import REASON_LIMIT, classify
from imgclf_sweep.trial import Kind


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ResourceExhaustedError("no room"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
        ValueError("OOM when allocating tensor with shape[4,4]"),
    ],
)
def test_want_of_memory_is_told_apart_by_class_or_text(error):
    assert classify(error, began=False)[0] is Kind.OUT_OF_MEMORY
    assert classify(error, began=True)[0] is Kind.OUT_OF_MEMORY


def test_the_first_batch_parts_the_model_s_fault_from_the_training_s():
    assert classify(ValueError("bad shape"), began=False) == (Kind.BUILD, "ValueError: bad shape")
    assert classify(ValueError("bad shape"), began=True) == (Kind.ERROR, "ValueError: bad shape")


def test_an_error_of_ours_is_its_own_message():
    assert classify(BadInput("knob 'x' is wrong"), began=False) == (Kind.BUILD, "knob 'x' is wrong")


def test_the_reason_is_one_printable_line_of_bounded_length():
    kind, reason = classify(RuntimeError("\n\n one\x1b[2J\ntwo"), began=True)
    assert reason == "RuntimeError: one\\x1b[2J"
    assert len(classify(RuntimeError("x" * 10_000), began=True)[1]) <= REASON_LIMIT + len("RuntimeError: ")
    assert classify(RuntimeError(), began=True)[1] == "RuntimeError: no message"


def test_tensorflow_s_heading_and_traceback_are_skipped():
    text = 'Graph execution error:\n\nDetected at node a defined at (most recent call last):\n  File "x", line 1\nIt broke here\n'
    assert classify(RuntimeError(text), began=True)[1] == "RuntimeError: It broke here"


def test_the_line_of_the_user_s_file_is_named(tmp_path):
    file = tmp_path / "my sweep.py"
    file.write_text("def build(hp):\n    raise KeyError('units')\n")
    space = {}
    exec(compile(file.read_text(), str(file), "exec"), space)
    with pytest.raises(KeyError) as caught:
        space["build"](None)
    assert classify(caught.value, began=False, file=str(file)) == (
        Kind.BUILD,
        "KeyError: 'units' (my sweep.py, line 2)",
    )
