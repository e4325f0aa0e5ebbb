"""A headless Chromium for tests, and what can be asked of a page in it."""

from __future__ import annotations

import base64
import io
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium():
    """A browser with a profile of its own; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("no chromium with its chromedriver: apt-get install chromium chromium-driver")
    with TemporaryDirectory(prefix="psfmatch-chromium-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = programs[0]
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(programs[1])
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


def open_page(driver, path: Path, *, width: int = 1280, dark: bool = False) -> None:
    """Show a file in a window of this width, in light or dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme, "media": "screen"})
    driver.get(path.as_uri())


def screenshot(driver):
    """The whole page, once it stands still: array (rows, columns, 3)."""
    from PIL import Image

    height, width = driver.execute_async_script(
        "const [done] = arguments, e = document.documentElement;"
        "const shown = [...document.images].map(i => {"
        " i.loading = 'eager'; i.decoding = 'sync'; return i.decode(); });"  # painted with the page, not after it
        "Promise.all(shown).then(() => requestAnimationFrame(() => requestAnimationFrame("
        " () => done([e.scrollHeight, e.scrollWidth]))));"
    )
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    before = None
    for _ in range(6):
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})["data"]
        if shot == before:
            break
        before = shot
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"), float)


def luminance(rgb) -> float:
    """Relative luminance (WCAG 2)."""
    c = np.asarray(rgb, float) / 255.0
    return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one, other) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    a, b = sorted((luminance(one), luminance(other)))
    return (b + 0.05) / (a + 0.05)


# Every element that has text of its own, with its colour and that of what lies behind it.
TEXTS = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const out = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const box = e.getBoundingClientRect();
  if (!own || !box.width || !box.height || ['SCRIPT', 'STYLE', 'TITLE', 'title'].includes(e.tagName)) continue;
  let back = e, colour = [0, 0, 0, 0];
  for (; back; back = back.parentElement) {
    colour = rgb(getComputedStyle(back).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) break;
  }
  const style = getComputedStyle(e);
  const ink = e instanceof SVGElement ? style.fill : style.color;
  out.push([e.textContent.trim().slice(0, 40), rgb(ink).slice(0, 3), back ? colour.slice(0, 3) : [255, 255, 255]]);
}
return out;
"""
