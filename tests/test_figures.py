"""The pictures: what is in them, that nothing is cut off, and that no name breaks them. Warnings are errors here too."""

import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from imgclf_sweep import figures, pictures
from imgclf_sweep.child import environment
from imgclf_sweep.figures import BLUE, ORANGE, Group, Predictions

ODD = ["a$x_1$ $\\frac{1}", "naïve Größe", "中文类别", "tab\tesc\x1b[2J\u202e", "a very long name that never " * 5]
ODD += ["emoji \U0001f431", "", "_^{}", "Привет", "\ud800"]


def decoded(png):
    """RGB (H, W, 3), after checking that the border is white: nothing drawn is cut off."""
    image = cv2.imdecode(np.frombuffer(png, "uint8"), cv2.IMREAD_COLOR_RGB)
    edge = np.concatenate([image[:4].reshape(-1, 3), image[-4:].reshape(-1, 3), image[:, :4].reshape(-1, 3)])
    assert (edge == 255).all() and (image[:, -4:] == 255).all()
    assert min(image.shape[:2]) > 30 and max(image.shape[:2]) < 3000
    return image


def has(image, color):
    """How many pixels have this colour, `#RRGGBB`."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image.astype(int) - rgb).max(axis=2) <= 2).sum())


def epochs(n, *names):
    return [{"epoch": e, **dict.fromkeys(names, 1 / e)} for e in range(1, n + 1)]


def test_samples_are_a_row_a_class_in_order():
    x = np.zeros((40, 8, 6, 3), "uint8")
    y = np.arange(40) % 2
    x[y == 0, ..., 0] = x[y == 1, ..., 2] = 255
    image = decoded(figures.samples(x, y, ["reds", "blues"], "two classes"))
    red, blue = (np.argwhere((image == color).all(axis=2)) for color in ((255, 0, 0), (0, 0, 255)))
    assert len(red) > 1000 and len(blue) == pytest.approx(len(red), rel=0.02)
    assert red[:, 0].max() < blue[:, 0].min()


def test_samples_of_few_gray_or_many_large_images():
    few = np.full((3, 5, 20, 1), 100, "uint8")
    image = decoded(figures.samples(few, np.array([0, 1, 1]), ["a", "b"], "wide"))
    assert has(image, "#646464") > 500
    many = figures.samples(np.full((60, 300, 400, 3), 90, "uint8"), np.arange(60) % 30, list(map(str, range(30))), "m")
    assert decoded(many).shape[0] > 500


@pytest.mark.parametrize(("names", "validation"), [(("loss", "accuracy"), False), (("loss", "val_loss", "f1"), True)])
def test_curves_tell_train_from_validation(names, validation):
    image = decoded(figures.curves([Group("", [epochs(9, *names), epochs(7, *names)])], "a trial", (3, "best (3)")))
    assert has(image, BLUE) > 100 and (has(image, ORANGE) > 50) is validation


def test_curves_of_one_epoch_show_points_and_a_panel_for_each_metric():
    one = decoded(figures.curves([Group("", [epochs(1, "loss", "val_loss")])], "short"))
    assert has(one, BLUE) > 10 and has(one, ORANGE) > 10
    four = decoded(figures.curves([Group("$g$", [epochs(5, "loss", "accuracy", "auc", "$y$", "z", "val_z")])], "many"))
    assert four.shape[0] > 1.5 * one.shape[0] and four.shape[1] > 1.5 * one.shape[1]


def test_a_confusion_matrix_is_darkest_where_most_of_a_class_went():
    matrix = np.array([[90, 10, 0], [0, 50, 50], [0, 0, 0]])
    darkness = {}
    for name, m in (("mixed", matrix), ("diagonal", np.diag([9, 9, 9])), ("empty", np.zeros((3, 3), int))):
        image = decoded(figures.confusion(m, ["a", "b", "c"], name))
        square = image[image.shape[0] // 4 : image.shape[0] * 3 // 4, image.shape[1] // 4 : image.shape[1] // 2]
        darkness[name] = 255 - square.mean()
    assert darkness["diagonal"] > darkness["mixed"] > darkness["empty"]


@pytest.mark.parametrize("classes", [2, 10, 25, 130])
def test_a_confusion_matrix_fits_any_number_of_classes(classes):
    names = [f"class number {i}" for i in range(classes)]
    decoded(figures.confusion(np.eye(classes, dtype=int) * 100_000, names, "a long title " * 12))


def predicted(true, said, size=(8, 8, 1)):
    true, said = np.array(true), np.array(said)
    return Predictions("some", np.zeros((len(true), *size), "uint8"), true, said, np.full(len(true), 0.5))


def test_wrong_predictions_are_marked():
    right = decoded(figures.predictions([predicted([0, 1], [0, 1])], ["a", "b"], "t"))
    wrong = decoded(figures.predictions([predicted([0, 1], [0, 0])], ["a", "b"], "t"))
    assert has(right, ORANGE) == 0 and has(wrong, ORANGE) > 200 and has(right, BLUE) > has(wrong, BLUE) > 50
    none = figures.predictions([predicted([0, 1], [0, 1]), predicted([], [])], ["a", "b"], "t")
    assert none == figures.predictions([predicted([0, 1], [0, 1])], ["a", "b"], "t")


def test_no_name_breaks_a_picture():
    images = np.zeros((20, 9, 12, 3), "uint8")
    numbers = np.arange(20) % 10
    for png in (
        figures.samples(images, numbers, ODD, ODD[3]),
        figures.curves([Group(ODD[0], [epochs(3, "loss", *ODD)])], ODD[4], (1, ODD[2])),
        figures.confusion(np.ones((10, 10), int), ODD, ODD[0]),
        figures.predictions([predicted(numbers, 9 - numbers, (9, 12, 3))], ODD, ODD[9]),
        figures.page(ODD, ODD[0]),
    ):
        decoded(png)


def test_a_page_shows_every_line_up_to_a_limit():
    five, ten = (decoded(figures.page(["┃ a line │"] * n, "x.txt")) for n in (5, 10))
    assert 1.5 < ten.shape[0] / five.shape[0] < 2.2 and (ten < 128).sum() == pytest.approx(
        2 * (five < 128).sum(), rel=0.05
    )
    endless = decoded(figures.page([f"line {i}" for i in range(5000)], "x.txt"))
    assert endless.shape == decoded(figures.page([f"line {i}" for i in range(6000)], "x.txt")).shape


def test_labels_are_cut_in_their_middle_and_escape_what_cannot_be_drawn():
    assert figures.label("cat", 8) == "cat" and figures.label("$x$", 8) == "$x$"
    assert figures.label("abcdefghij", 7) == "abc…hij"
    assert figures.label("a\x1b[2J\n", 20) == "a\\x1b[2J\\n"
    assert figures.label("\U00013000", 20) in ("\U00013000", "\\U00013000")  # a hieroglyph: no face, or one that has it
    assert figures.label("\u4e2d" * 9, 8).count("…") == 1


def test_large_images_are_made_smaller_by_means():
    x = np.zeros((1, 400, 640, 1), "uint8")
    x[:, ::2] = 200
    small = figures._shrunk(x)
    assert small.shape == (1, 100, 160, 1) and (small == 100).all()
    assert figures._shrunk(x[:, :20, :20]).shape == (1, 20, 20, 1)


def test_drawing_changes_no_setting_and_repeats_to_the_byte():
    import matplotlib

    with matplotlib.rc_context({"font.size": 33, "lines.linewidth": 9}):
        first = figures.curves([Group("", [epochs(3, "loss")])], "t")
        assert matplotlib.rcParams["font.size"] == 33
    assert first == figures.curves([Group("", [epochs(3, "loss")])], "t")


def test_shown_are_images_at_random_and_the_surest_mistakes():
    labels = np.arange(100) % 4
    said = labels.copy()
    said[[3, 50, 97]] = (labels[[3, 50, 97]] + 1) % 4
    sure = np.linspace(0.3, 0.9, 100)
    shown = pictures.choose(labels, said, sure, 7)
    assert shown.mistakes.tolist() == [97, 50, 3]
    assert len(set(shown.random)) == pictures.RANDOM and shown.all == [*shown.random, 97, 50, 3]
    assert shown.all == pictures.choose(labels, said, sure, 7).all != pictures.choose(labels, said, sure, 8).all
    assert len(pictures.choose(labels[:5], 3 - labels[:5], sure[:5], 0).random) == 5


def story(**changes):
    labels = np.arange(30) % 2
    shown = pictures.choose(labels, labels, np.ones(30), 0)
    told = {
        "title": "t",
        "trainings": [epochs(2, "loss")],
        "search": [],
        "best": None,
        "objective": "val_loss",
        "names": ["a", "b", "(output 2)"],
    }
    told |= {"classes": 2, "labels": labels, "predicted": labels, "sure": np.ones(30), "shown": shown}
    told |= {"summary": ["s"], "report": ["r"]}
    return pictures.Story(**told | {"images": np.zeros((len(shown.all), 8, 8, 1), "uint8")} | changes)


def test_a_picture_that_cannot_be_drawn_is_said_and_costs_no_other():
    notes = []
    names = {"curves", "confusion_matrix", "predictions", "summary", "classification_report"}
    assert set(story().draw(notes.append)) == names and notes == []
    drawn = story(trainings=[[{"loss": 1.0}]], images=np.zeros(3)).draw(notes.append)
    assert set(drawn) == names - {"curves", "predictions"}
    assert [note.split(":")[0] for note in notes] == ["no curves.png", "no predictions.png"]


def test_outputs_that_are_no_class_are_drawn_only_where_predicted(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "confusion", lambda matrix, names, title: drawn.append((matrix, names, title)))
    story()._confusion()
    story(predicted=np.full(30, 2))._confusion()
    assert drawn[0][1] == ["a", "b"] and drawn[0][0].tolist() == [[15, 0], [0, 15]] and "accuracy 1.0000" in drawn[0][2]
    assert drawn[1][1] == ["a", "b", "(output 2)"] and drawn[1][0][:, 2].tolist() == [15, 15, 0]


def test_samples_are_saved_whole(tmp_path):
    x = np.zeros((10, 4, 4, 1), "uint8")
    prepared = SimpleNamespace(
        train=lambda: (x, np.arange(10) % 2), shape=(4, 4, 1), classes=["a", "b"], train_images=10
    )
    pictures.save_samples(prepared, "digits", tmp_path / "samples" / "f.png")
    assert [p.name for p in tmp_path.rglob("*.*")] == ["f.png"]
    decoded((tmp_path / "samples" / "f.png").read_bytes())


def test_a_log_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "logs").write_text("a file in the way")
    notes = []
    pictures.log(tmp_path / "logs" / "_best", {"curves": figures.page(["x"], "")}, 1, notes.append)
    assert len(notes) == 1 and "TensorBoard" in notes[0]


def test_matplotlib_is_loaded_when_something_is_drawn():
    code = "import sys, imgclf_sweep.pictures, imgclf_sweep.retrain\nprint('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "False"
