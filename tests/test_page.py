"""The HTML report in a real browser, at phone and desktop width."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from record_factory import ablation, epoch_rows, population

from miles_repro import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
]
# A frame as wide as the screen reports how wide its content wants to be.
FRAME = """<!doctype html><body style="margin:0">
<iframe src="measured.html" style="border:0;width:{width}px;height:3000px"></iframe>
<pre id="out">nothing</pre>
<script>
addEventListener("message", e => document.getElementById("out").textContent = e.data)
</script>
"""
PROBE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !e.closest(".scroll");
});
const small = [...document.querySelectorAll("p,li,td,th,figcaption")].filter(
  e => e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 12);
const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth);
parent.postMessage(`width ${document.documentElement.scrollWidth} wide ${wide.length} ` +
  `small ${small.length} broken ${broken.length} images ${document.images.length}`, "*");
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser found (looked for {', '.join(BROWSERS)}): install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    records = population() + ablation("tau", [0.0, 0.1, 0.2, 0.3, 0.5])
    rows = {run["run_id"]: epoch_rows(run) for run in report.dynamics_runs(records)}
    report.write_all(records, folder, command="make tables", commit="abc1234", dynamics=rows)
    return folder / "report.html"


def look(browser: str, address: Path, *flags: str) -> str:
    done = subprocess.run(
        [browser, *FLAGS, *flags, address.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_page_fits_the_screen(browser: str, page: Path, width: int) -> None:
    text = page.read_text(encoding="utf-8")
    assert "</body>" in text
    (page.parent / "measured.html").write_text(text.replace("</body>", PROBE + "</body>"))
    frame = page.parent / f"frame{width}.html"
    frame.write_text(FRAME.format(width=width))
    out = look(browser, frame, "--dump-dom", "--allow-file-access-from-files")
    found = re.search(r"width (\d+) wide (\d+) small (\d+) broken (\d+) images (\d+)", out)
    assert found, out[-500:]
    wanted, wide, small, broken, images = map(int, found.groups())
    assert wanted <= width, f"the page is {wanted} px wide on a screen of {width}"
    assert (wide, small, broken) == (0, 0, 0)
    assert images == text.count("<img")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_screenshot_is_not_blank(browser: str, page: Path, width: int) -> None:
    shot = page.parent / f"{width}.png"
    look(browser, page, f"--screenshot={shot}", f"--window-size={width},2000")
    with Image.open(shot) as image:
        colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colors is not None
    ink = sum(count for count, color in colors if min(color) < 128)
    assert ink > 0.01 * sum(count for count, _ in colors)
