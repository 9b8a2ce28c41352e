"""The microscope's page in a browser: no errors, no sideways scrolling, mouse and keyboard, the engine's numbers."""

import math
from pathlib import Path
from typing import Any

import microscope_pages as pages
import numpy as np
import pytest
from browser import NEEDS_BROWSER
from browser import browser as browser
from small_runs import one_thread as one_thread

from minitorch_unet import Tensor, UNet, no_grad
from minitorch_unet import functional as F
from minitorch_unet.data import IGNORE, read_image
from minitorch_unet.microscope import examine
from minitorch_unet.microscope.window import cut, place, read_inputs

pytestmark = NEEDS_BROWSER
WIDTHS = (1280, 390)
THREE_FRAMES = """
const done = arguments[0];
let frames = 3;
(function step() { if (frames--) requestAnimationFrame(step); else done(); })();
"""


class Case:
    """A page, and what the engine says about the same image."""

    def __init__(self, folder: Path, variant: str, label: bool) -> None:
        self.network: UNet = pages.network_of(variant, base=8)
        checkpoint, image, label_file = pages.write_case(folder, self.network, 61, 66)
        given = label_file if label else None
        self.path = folder / "page.html"
        self.text = examine(checkpoint, image, given, pixel=(30, 33))
        self.path.write_text(self.text, encoding="utf-8")
        self.data = pages.data_of(self.text)
        pixels, classes = read_inputs(image, given, self.network, {"labels": "indices"})
        self.window = place(self.network.sizes, read_image(image).shape[:2], pixel=(30, 33))
        part, target = cut(pixels, classes, self.window)
        with no_grad():
            self.scores = self.network(Tensor(part[None])).numpy()[0]
        self.target = self.scores.argmax(0) if target is None else target


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("labelled"), "paper", label=True)


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("normed"), "batch", label=False)


def open_page(browser: Any, case: Case, width: int) -> None:
    """At this width, with an empty log."""
    emulated = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
    browser.get(case.path.as_uri())


def run(browser: Any, script: str, *arguments: Any) -> Any:
    return browser.execute_script(script, *arguments)


def number(browser: Any, selector: str) -> float:
    return float(run(browser, "return document.querySelector(arguments[0]).dataset.value", selector))


def press(browser: Any, *keys: str) -> None:
    """Keys for whatever has the focus."""
    from selenium.webdriver import ActionChains

    ActionChains(browser, duration=0).send_keys(*keys).perform()


def click(browser: Any, selector: str) -> None:
    """A real click into the middle of an element."""
    from selenium.webdriver.common.by import By

    found = browser.find_element(By.CSS_SELECTOR, selector)
    run(browser, "arguments[0].scrollIntoView({ block: 'center', inline: 'center' })", found)
    found.click()


def overflow(browser: Any) -> float:
    """Pixels by which the page is wider than the window."""
    return run(browser, "return document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", ["labelled", "normed"])
def test_every_stage_opens_by_click(browser: Any, case: str, width: int, request: pytest.FixtureRequest) -> None:
    shown: Case = request.getfixturevalue(case)
    open_page(browser, shown, width)
    assert overflow(browser) == 0
    for i, stage in enumerate(shown.data["stages"]):
        click(browser, f'#u .stage[data-stage="{i}"] .reach')
        assert run(browser, "return document.getElementById('stage').dataset.open") == stage["name"]
        tiles = run(browser, "return document.querySelectorAll('#stage .tile').length")
        shown_maps = [len(stage[kind]["channels"]) for kind in ("maps", "gradients") if stage[kind]]
        assert tiles == sum(shown_maps)
        assert overflow(browser) == 0, stage["name"]
        if stage["maps"]:
            cells = run(browser, "return [...document.querySelectorAll('#statistics tr:first-child td.number')]"
                        ".map((cell) => Number(cell.dataset.value))")  # fmt: skip
            assert cells == [stage["maps"]["statistics"][key] for key in ("mean", "sd", "min", "max", "zeros")]
    faults = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not faults


def test_no_error_reaches_the_window_while_its_width_changes(browser: Any, labelled: Case) -> None:
    """Also those that a browser's log of errors leaves out, as of an observer whose answer resizes what it observes."""
    noting = "window.faults = []; addEventListener('error', (event) => window.faults.push(event.message));"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": noting})
    try:
        open_page(browser, labelled, 390)
        for width in (1280, 700, 390, 1280):
            emulated = {"width": width, "height": 3000, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
            browser.execute_async_script(THREE_FRAMES)
        widths = run(browser, "const c = document.getElementById('tape-curve'); return [c.clientWidth, curve.width]")
        assert widths[0] == widths[1] > 390
        assert run(browser, "return window.faults") == []
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_stage_opens_by_keyboard(browser: Any, labelled: Case, width: int) -> None:
    """Tab reaches the drawing once, arrows move within, Enter and the space bar open."""
    open_page(browser, labelled, width)
    tab, enter, right, home, end = "\ue004", "\ue007", "\ue014", "\ue011", "\ue010"
    for _ in range(40):
        press(browser, tab)
        if run(browser, "return document.activeElement.classList.contains('stage')"):
            break
    press(browser, home)
    names = []
    for i in range(len(labelled.data["stages"])):
        press(browser, enter if i % 2 else " ")
        names.append(run(browser, "return document.getElementById('stage').dataset.open"))
        press(browser, right)
    assert names == [stage["name"] for stage in labelled.data["stages"]]
    assert run(browser, "return document.querySelectorAll('#u [tabindex=\"0\"]').length") == 1
    press(browser, home, right, end, enter)
    assert run(browser, "return document.getElementById('stage').dataset.open") == "scores"
    press(browser, tab)
    assert not run(browser, "return document.activeElement.classList.contains('stage')")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_walks_the_tape(browser: Any, labelled: Case, width: int) -> None:
    open_page(browser, labelled, width)
    moments = labelled.data["tape"]["moments"]
    run(browser, "document.getElementById('tape').focus()")
    press(browser, "\ue011")
    looks = """
        const numbers = (name) => [...document.querySelectorAll('#u .stage.' + name)].map((box) => +box.dataset.stage);
        return { alive: numbers('alive'), graded: numbers('graded'), running: numbers('running'),
                 text: document.getElementById('tape-now').textContent, at: +document.getElementById('tape').value,
                 cursor: document.querySelector('#tape-curve .cursor').getAttribute('x1') };"""
    seen = []
    for i, moment in enumerate(moments):
        found = run(browser, looks)
        assert found["at"] == i
        assert (found["alive"], found["graded"]) == (sorted(moment["maps"]), sorted(moment["gradients"]))
        assert found["running"] == ([moment["stage"]] if moment["stage"] >= 0 else [])
        assert f"{i + 1} of {len(moments)}, {moment['phase']}: {moment['name']}, {moment['op']}" in found["text"]
        seen.append((found["text"], found["cursor"]))
        press(browser, "\ue014")
    assert len({text for text, _ in seen}) == len({x for _, x in seen}) == len(moments)
    for selector, expected in (("#tape-back", -2), ("#tape-on", -1)):
        click(browser, selector)
        assert run(browser, looks)["text"] == seen[expected][0]
    run(browser, """
        const curve = document.querySelector('#tape-curve svg');
        const clientX = curve.getBoundingClientRect().left + curveX(3.5);
        curve.dispatchEvent(new MouseEvent('click', { clientX }));""")
    assert run(browser, looks)["at"] == 3


@pytest.mark.parametrize("case", ["labelled", "normed"])
def test_a_pixels_numbers_are_the_engines(browser: Any, case: str, request: pytest.FixtureRequest) -> None:
    shown: Case = request.getfixturevalue(case)
    open_page(browser, shown, 1280)
    start = [a + shown.window.halo for a in shown.window.start]
    places = [(0, 0), (shown.window.out[0] - 1, 3), (30 - start[0], 33 - start[1])]
    for row, column in places:
        for name, value in (("row", row + start[0]), ("column", column + start[1])):
            run(browser, "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
                "input.dispatchEvent(new Event('change'))", name, value)  # fmt: skip
        cells = run(browser, "return [...document.querySelectorAll('#scores td.number')].map((c) => +c.dataset.value)")
        logits = shown.scores[:, row, column]
        np.testing.assert_allclose(cells[::2], logits, rtol=1e-4, atol=1e-5)
        with no_grad():
            expected = F.softmax(Tensor(logits[None].astype(np.float64)), 1).numpy()[0]
        np.testing.assert_allclose(cells[1::2], expected, rtol=1e-4)
        label = int(shown.target[row, column])
        if label == IGNORE:
            assert "ignored" in run(browser, "return document.getElementById('pixel-scores').textContent")
        else:
            assert number(browser, "#pixel-loss") == pytest.approx(-math.log(expected[label]), rel=1e-4)
        sizes = shown.network.sizes
        rows, columns = (sizes.receptive_field(n, i) for n, i in zip(shown.window.shape, (row, column), strict=True))
        theory = run(browser, "return document.getElementById('theory').textContent")
        assert theory == f"{rows[1] - rows[0] + 1} × {columns[1] - columns[0] + 1}"
    assert run(browser, "return document.getElementById('measured').textContent") == theory


@pytest.mark.parametrize("case", ["labelled", "normed"])
def test_convolutions_are_worked_out(browser: Any, case: str, request: pytest.FixtureRequest) -> None:
    """What the page adds up is what the engine computed: last but one and last number of the table."""
    shown: Case = request.getfixturevalue(case)
    open_page(browser, shown, 1280)
    for i in (0, 4):
        run(browser, "choosePixel(data.pixels[arguments[0]].pixel, true)", i)
        for name in shown.data["windows"]:
            run(browser, "const select = document.getElementById('convolution-select'); select.value = arguments[0];"
                "select.dispatchEvent(new Event('change'))", name)  # fmt: skip
            sums = run(browser, "return [...document.querySelectorAll('#convolution-body .sum td.number')]"
                       ".map((cell) => +cell.dataset.value)")  # fmt: skip
            assert sums[-1] == pytest.approx(sums[-2], rel=1e-3, abs=1e-4), name
            assert sums[-1] == shown.data["windows"][name][i]["result"]
    scores = shown.data["windows"]["scores"][4]
    row, column = shown.data["pixels"][4]["pixel"]
    assert scores["result"] == pytest.approx(float(shown.scores[:, row, column].max()), rel=1e-4)


def test_the_pixel_is_chosen_by_mouse_and_by_keyboard(browser: Any, labelled: Case) -> None:
    open_page(browser, labelled, 390)
    click(browser, "#pick")
    out = labelled.window.out
    row, column = run(browser, "return pixel")
    assert abs(row - out[0] // 2) <= 1 and abs(column - out[1] // 2) <= 1
    run(browser, "document.getElementById('pick').focus()")
    press(browser, "\ue014", "\ue014", "\ue015", "\ue013", "\ue013")
    assert run(browser, "return pixel") == [row - 1, column + 2]
    assert run(browser, "return document.activeElement.id") == "pick"


def test_the_example_on_paper(browser: Any, labelled: Case) -> None:
    open_page(browser, labelled, 390)
    results = "[...document.querySelectorAll('#example-body button')]"
    assert run(browser, f"return {results}.map((button) => +button.dataset.value)") == [
        37, 20, 17, 0, 19, 34, 13, 28, 15, 18, 35, 38, -10, 11, -4, 17,
    ]  # fmt: skip
    for i in range(16):
        run(browser, f"{results}[arguments[0]].click()", i)
        sums = run(browser, "return [...document.querySelectorAll('#example-body .sum td.number')]"
                   ".map((cell) => +cell.dataset.value)")  # fmt: skip
        assert sums[0] == sums[-1] == run(browser, f"return +{results}[arguments[0]].dataset.value", i)
    assert overflow(browser) == 0


def test_everything_with_a_role_has_a_name(browser: Any, labelled: Case) -> None:
    """Buttons, inputs and pictures say what they are; in dark as in light the page has no faults."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    open_page(browser, labelled, 1280)
    ground = run(browser, "return getComputedStyle(document.body).backgroundColor")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    nameless = run(browser, """
        const kinds = 'button, input, select, [role=button], [role=img], img, [role=application]';
        return [...document.querySelectorAll(kinds)]
            .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.alt || e.labels?.length
                             || e.getAttribute('aria-labelledby')))
            .map((e) => e.outerHTML.slice(0, 120))""")  # fmt: skip
    assert nameless == []
    assert sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) < 150
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
