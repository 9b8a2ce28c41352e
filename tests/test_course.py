"""The course: every lesson runs, its right answers are accepted and its wrong ones refused, in one friendly line."""

import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minitorch_unet as mt
from minitorch_unet import course
from minitorch_unet.course import Exercise, Lesson, WrongAnswer, expect, lesson, marking, numbers
from minitorch_unet.course.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples" / "course").glob("*.py"))
ANSWERS = [(number, exercise) for number in numbers() for exercise in lesson(number).exercises]
ADDITION = Exercise(
    name="add",
    question="add(a, b): the sum.",
    start="def add(a, b):\n    ...\n",
    solution="def add(a, b):\n    return a + b\n",
    check=lambda answer: expect(answer(2, 3), 5, "add(2, 3)", "Add them."),
)
SMALL = Lesson(1, "Sums", [ADDITION])
# What the texts of the lessons say of their output, where an engine that changes could make them wrong.
PROMISED = {
    1: ["engine:   gw = 24  gx = 16  gb = 8", "gu = 3 (2 by the product, 1 by the sum)", "off by 0.000900"],
    2: ["eager    dc/da = 36", "once     dc/da = 12", "engine   dc/da = 24", "65535 visits"],
    3: ["engine 1, central difference 0.65", "[1. 0. 0. 0.]", "[0.5 0.5 0.  0. ]", "kinks: 7", "passed: False"],
    4: ["[[ 37.  20.  17.   0.]", "743 MB", "T x equals y: True", "T^T True  engine True", "gk: engine True"],
    5: ["[[[[37.0, 28.0], [18.0, 38.0]]]]", "[(0, 0), (0, 8), (8, 0), (8, 8)]", "6.2% of the windows"],
    6: ["-50.29413 = -50.29413, equals the gradient: True", "8 -> 3; back with output_padding 0 or 1: 7 or 8"],
    7: ["merge 0 388", "steps of {16}", "off altogether: {184}", "sees rows 0 to 187: 188", "rows 0 to 203: 204"],
}


@pytest.fixture
def pyplot() -> Iterator[ModuleType]:
    """Matplotlib without a screen; lessons find its settings as they were."""
    matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib, which .[course] installs")
    with matplotlib.rc_context():
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        yield plt
        plt.close("all")


def answer(source: str, name: str) -> Any:
    return marking.run(f"{marking.HEADER}\n{source}", "answers.py")[1][name]


def verdict(source: str, exercise: Exercise = ADDITION) -> str:
    (mark,) = marking.check(Lesson(1, "Sums", [exercise]), source, "answers.py")
    return str(mark)


# ---------------------------------------------------------------------------------------------- all lessons


def test_lessons_scripts_and_page_agree() -> None:
    """The same numbers and titles in the package, in examples/course and in docs/course.md."""
    titles = {number: lesson(number).title for number in numbers()}
    headings = {int(path.name[:2]): path.read_text("utf-8").splitlines()[1] for path in SCRIPTS}
    assert headings == {number: f"# # {number}. {title}" for number, title in titles.items()}
    page = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| \[(.+?)\]\(\.\./examples/course/(.+?)\) \| \S.+ \|$", page, re.MULTILINE)
    assert [(int(n), title, file) for n, title, file in rows] == [
        (number, titles[number], path.name) for number, path in zip(titles, SCRIPTS, strict=True)
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs_and_shows_something(
    script: Path, pyplot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MINITORCH_UNET_FIGURES", str(tmp_path / "figures"))
    monkeypatch.chdir(tmp_path)
    threads = mt.get_num_threads()
    runpy.run_path(str(script), run_name="__main__")
    mt.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert not [text for text in PROMISED.get(int(script.name[:2]), []) if text not in printed]
    figures = sorted(tmp_path.glob("figures/*.png"))
    assert all(figure.name.startswith(script.name[:2]) for figure in figures)
    assert figures or len(printed.splitlines()) > 10
    assert not pyplot.get_fignums(), "figures are handed to show(), which closes them"
    assert [path.name for path in tmp_path.iterdir()] in ([], ["figures"]), "a lesson leaves figures only"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_short_and_a_notebook(script: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason="needs jupytext, which .[course] installs")
    text = script.read_text(encoding="utf-8")
    assert 50 <= len(text.splitlines()) <= 150
    kinds = [cell["cell_type"] for cell in jupytext.reads(text, fmt="py:percent")["cells"]]
    assert kinds[0] == kinds[-1] == "markdown"
    assert kinds.count("code") >= 3
    questions = re.findall(r"^# (\d)\. `(\w+)`", text, re.MULTILINE)
    number = int(script.name[:2])
    assert [name for _, name in questions] == [exercise.name for exercise in lesson(number).exercises]
    assert f"course start {number}`" in text and f"course check {number}`" in text


@pytest.mark.parametrize("number", numbers())
def test_template_is_not_an_answer(number: int) -> None:
    found = lesson(number)
    assert 2 <= len(found.exercises) <= 4
    marks = marking.check(found, marking.template(found), "answers.py")
    assert [mark.verdict for mark in marks] == ["not answered yet"] * len(found.exercises)


@pytest.mark.parametrize(("number", "exercise"), ANSWERS, ids=[f"{n}-{e.name}" for n, e in ANSWERS])
def test_right_and_wrong_answers(number: int, exercise: Exercise) -> None:
    exercise.check(answer(exercise.solution, exercise.name))
    assert verdict(f"{marking.HEADER}\n{exercise.solution}", exercise) == "right"
    assert exercise.wrong
    for source in exercise.wrong:
        with pytest.raises(WrongAnswer) as caught:
            exercise.check(answer(source, exercise.name))
        assert len(str(caught.value)) > 20


# ---------------------------------------------------------------------------------------------- the marking


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def add(a, b):\n    return a + b\n", "right"),
        ("def add(a, b):\n    return [a + b, ...][0]\n", "not answered yet: replace the `...` in line 2"),
        ("x = 1\n", "not answered yet: answers.py defines no `add`"),
        ("def add(a, b):\n    return a - b\n", "wrong: add(2, 3) is -1; it must be 5. Add them."),
        ("def add(a, b):\n    a + b\n", "wrong: add(2, 3) is None; is a `return` missing? Add them."),
        ("def add(a, b):\n    return {a, b}\n", "wrong: add(2, 3) is a set; it must be numbers. Add them."),
        ("def add(a, b):\n    return [a, b]\n", "wrong: add(2, 3) has shape (2,); it must have shape (). Add them."),
        ("def add(a, b):\n    return float('nan')\n", "wrong: add(2, 3) is nan; it must be 5. Add them."),
        ("\ndef add(a, b):\n    return a.sum + b\n",
         "wrong: answers.py, line 3: AttributeError: 'int' object has no attribute 'sum'"),
        ("def add(a, b):\n    return add(a, b)\n",
         "wrong: answers.py, line 2: a function calls itself without end, or too deeply"),
        ("def add(a, b):\n    raise SystemExit\n", "wrong: answers.py, line 2: SystemExit"),
        ("def add(a):\n    return a\n",
         "wrong: it does not fit the question: TypeError: add() takes 1 positional argument but 2 were given"),
        ("def add(a, b):\n    ...\ndef add(a, b):\n    return a + b\n", "right"),
        ("def add(a, b):\n    return a + b\nadd = ...\n", "not answered yet: replace the `...` in line 3"),
        ("add = 5\n", "wrong: `add` is a int; it must be a function"),
        ("def add(a, b):\n    import numpy as np\n    return np.array([a, b])[..., :].sum()\n", "right"),
    ],
)  # fmt: skip
def test_marks(source: str, text: str) -> None:
    assert verdict(source) == text


def test_endless_loops_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "SECONDS", 0.05)
    found = verdict("def add(a, b):\n    while True:\n        pass\n")
    assert re.fullmatch(r"wrong: answers.py, line [23]: still running after 0.05 seconds; does a loop .*\?", found)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def add(a, b)\n    return a\n", "answers.py, line 1: expected ':' in `def add(a, b)`"),
        ("def add(a, b):\nreturn a\n", "answers.py, line 2: expected an indented block"),
        ("x = 1\ny = 1 / 0\n", "answers.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "answers.py, line 2: SystemExit: 3"),
        ("x = '\0'\n", "answers.py: source code string cannot contain null bytes"),
    ],
)
def test_files_that_do_not_run(source: str, text: str) -> None:
    with pytest.raises(marking.CannotRun) as caught:
        marking.check(SMALL, source, "answers.py")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_expect_compares_all_kinds_of_numbers() -> None:
    expect((mt.Tensor(1.0, requires_grad=True), 2), [1, 2], "a pair")
    expect(mt.Tensor([[1.0, 2.0]]), np.array([[1, 2]]), "a Tensor")
    expect(np.float32(1e6 + 0.5), 1e6, "a large number")
    expect("same", "same", "a word")
    for found, wanted, text in (
        ([1, [2, 3]], [1, 2], "is a list; it must be numbers"),
        ("other", "same", "is 'other', which is not right"),
        (np.zeros((2, 2)), np.eye(2), r"at \[0, 0\] is 0; it must be 1 \(2 of 4 values differ\)"),
        (1.1e6, 1e6, r"is 1.1e\+06; it must be 1e\+06"),
        (1.01e-8, 1e-8, "is 1.01e-08; it must be 1e-08"),
        (5161985, 5161984, "is 5161985; it must be 5161984"),
        ([0.5, 0.0], [0.5, -1], r"at \[1\] is 0; it must be -1"),
    ):
        with pytest.raises(WrongAnswer, match=text):
            expect(found, wanted, "the answer", tolerance=1e-7)
    with pytest.raises(WrongAnswer, match=r"^the answer is 3, which is not right\. Add\.$"):
        expect(3, 5, "the answer", "Add.", tell=False)


# ---------------------------------------------------------------------------------------------- the commands


def test_start_fill_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert "  1  Gradients by hand (4 questions)" in capsys.readouterr().out
    assert main(["start", "1"]) == 0
    assert main(["check", "1"]) == 1
    assert capsys.readouterr().out.endswith("0 of 4 right\n")
    assert main(["start", "1"]) == 2
    assert capsys.readouterr().err.startswith("course: answers_01.py exists already and stays as it is")
    assert main(["solution", "1"]) == 0
    Path("mine.py").write_text(capsys.readouterr().out, encoding="utf-8-sig")  # as Windows' editor does
    assert main(["check", "1", "mine.py"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 of 4 right"
    assert main(["show", "1"]) == 0
    assert "2. sigmoid_backward(y, gy): y = 1 / (1 + e^-z)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "99"], "there is no lesson 99; there are 1"),
        (["check", "1", "absent.py"], "absent.py does not exist; python -m minitorch_unet.course start 1 writes"),
        (["start", "1", "-o", "absent/a.py"], "[Errno 2] No such file or directory"),
        (["check", "1", "broken.py"], "broken.py, line 1: "),
        (["check", "1", "bytes.py"], "bytes.py is not a text file in UTF-8"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def (:\n")
    Path("bytes.py").write_bytes(b"\xff\xfe\xff")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"course: {text}")
    assert error.count("\n") == 1


def test_figures_are_shown_in_a_notebook(
    pyplot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINITORCH_UNET_FIGURES", raising=False)
    course.show(pyplot.figure(), "00_script")
    assert capsys.readouterr().out == f"figure: {Path('figures', '00_script.png')}\n"
    shown: list[Any] = []
    shell = SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shown.append))
    figure = pyplot.figure()
    course.show(figure, "00_notebook")
    assert shown == [figure]
    assert os.listdir("figures") == ["00_script.png"]
