"""Sweep files are executed in a child; whatever is wrong with one is one line."""

import re

import pytest

from imgclf_sweep import declare
from imgclf_sweep.errors import BadInput

GOOD = """
from imgclf_sweep import *
print("a file may print")
sweep = Sweep(dataset=datasets.image_folder("photos", size=(8, 8)), space=SearchSpace(filters=Choice([4, 8])))
"""


def write(tmp_path, text):
    path = tmp_path / "space.py"
    path.write_text(text)
    return path


def test_a_file_is_handed_over_with_its_paths_made_absolute(tmp_path):
    sweep = declare.read(write(tmp_path, GOOD))
    assert sweep.dataset.path == str(tmp_path / "photos")
    assert list(sweep.space) == ["filters"]


def test_a_file_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("FILTERS = [4, 8]")
    path = write(
        tmp_path,
        GOOD.replace("Choice([4, 8])", "Choice(beside.FILTERS)").replace("import *", "import *; import beside"),
    )
    assert declare.read(path).space["filters"].choices == (4, 8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = (\n", "line 1: syntax error"),
        ("x = 1\0\n", "null bytes"),
        (GOOD.replace('"photos"', '"~nobody-of-that-name/photos"'), "image folder '~nobody-of-that-name/photos'"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
        ("\n\nraise ValueError('no')", "line 3: ValueError: no"),
        ("import sys; sys.exit(3)", "the file exits (3)"),
        ("import os; print('last words'); os._exit(5)", "exited with status 5; it printed last: last words"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("x = 1", "no `sweep = Sweep(...)`"),
        (GOOD.replace("sweep = Sweep", "mine = Sweep"), "name it sweep"),
        (GOOD.replace("filters", "filter"), "line 4: unknown knob of model cnn 'filter'"),
        ("raise ValueError('\\x1b[2J')", "ValueError: \\x1b[2J"),
    ],
)
def test_whatever_is_wrong_is_one_line_with_the_file(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        declare.read(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and says in line and "\n" not in line


def test_a_file_that_never_ends_is_ended(tmp_path):
    with pytest.raises(BadInput, match="did not end within 2 s"):
        declare.read(write(tmp_path, "while True: pass"), file_seconds=2)


def test_a_syntax_error_is_placed_in_the_file_that_has_it(tmp_path):
    (tmp_path / "beside.py").write_text("a = 1\nx = (\n")
    with pytest.raises(BadInput, match=r"beside\.py, line 2: syntax error"):
        declare.read(write(tmp_path, "import beside"))


@pytest.mark.parametrize("name", ["missing.py", "."])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match="no such sweep file|not a file"):
        declare.read(tmp_path / name)


BUILD = """
import keras
from imgclf_sweep import *

def build(hp):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    for i in range(hp.Int("layers", 1, 2)):
        model.add(keras.layers.Dense(hp.Choice(f"units_{i}", [4, 8])))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

sweep = Sweep(dataset=datasets.digits(), model=build)
"""


def test_the_space_of_a_build_function_is_discovered_and_its_source_is_digested(tmp_path):
    sweep = declare.read(write(tmp_path, BUILD))
    assert list(sweep.space) == ["layers", "units_0", "units_1"]
    assert sweep.model.name == "build" and re.fullmatch("[0-9a-f]{64}", sweep.model.digest)

    other_values = declare.read(write(tmp_path, BUILD.replace("model=build", "model=build, trials=3") + "# a remark\n"))
    assert other_values.model.digest == sweep.model.digest and other_values.trials == 3
    other_model = declare.read(write(tmp_path, BUILD.replace("softmax", "sigmoid")))
    assert other_model.model.digest != sweep.model.digest


def test_the_source_of_a_build_function_is_also_what_it_imports_from_beside_and_what_is_written_as_model(tmp_path):
    helper = tmp_path / "tops_of_mine.py"
    helper.write_text("TOP = 'softmax'")
    text = BUILD.replace("import keras", "import functools, keras, tops_of_mine").replace(
        "'softmax'", "tops_of_mine.TOP"
    )
    text = text.replace("def build(hp)", "def build(units, hp)").replace("[4, 8]", "[4, units]")
    text = text.replace("model=build", "model=functools.partial(build, 8)")
    first = declare.read(write(tmp_path, text)).model.digest
    assert declare.read(write(tmp_path, text.replace("partial(build, 8)", "partial(build, 9)"))).model.digest != first
    helper.write_text("TOP = 'sigmoid'")
    assert declare.read(write(tmp_path, text)).model.digest != first


def test_an_object_with_a_build_method_is_refused_with_what_to_write(tmp_path):
    text = "from imgclf_sweep import *\nclass Mine:\n    def build(self, hp): pass\n"
    with pytest.raises(BadInput, match=r"or a function build\(hp\).*give its method: model=....build"):
        declare.read(write(tmp_path, text + "sweep = Sweep(dataset=datasets.digits(), model=Mine())"))


def test_a_build_function_is_asked_for_what_it_measures(tmp_path):
    with pytest.raises(BadInput, match="unknown metric 'val_auc'; allowed: .*val_accuracy"):
        declare.read(write(tmp_path, BUILD.replace("model=build", "model=build, objective='val_auc'")))
