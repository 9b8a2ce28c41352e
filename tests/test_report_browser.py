"""The report in a real browser: no message of any kind, nothing wider than the window, by day and by night."""

from pathlib import Path

import pytest
from browser import NEEDS_BROWSER
from browser import browser as browser
from small_runs import TRAINING, one_thread, write_patterns

from minitorch_unet import cli

__all__ = ["one_thread"]

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run with a rather long name that does not break")
    data = write_patterns(folder / "data", [(200, 210), *TRAINING])
    settings = ["--base", 2, "--depth", 1, "--tile", 64, "--epochs", 2, "--validation", "0"]
    assert cli.main([str(a) for a in ("train", "--data", data, "--output", folder / "run", *settings)]) == 0
    return folder / "run" / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_says_nothing(browser, page, width, scheme) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    broken = browser.execute_script("return [...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0 and browser.execute_script("return document.images.length") > 8
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) > 384) == (scheme == "light")
