"""How many frames a second the explorer draws while the slider of one parameter moves, in Chromium without a screen.

Each frame moves the slider of alpha one step; the run, its three views, the text and the theory are made anew in each.
The diagram computes in its own threads and begins again with every move, as it does under a hand.
Run: python benchmarks/explorer.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from toymodel.explore import page

FRAMES = 300
MOVED = """frames => new Promise(done => {
  const slider = document.getElementById("v-alpha-slider"), low = Number(slider.min), high = Number(slider.max);
  const at = [], work = [], drawn = renderNow;
  renderNow = () => { const begun = performance.now(); drawn(); work.push(performance.now() - begun); };
  let n = 0;
  function frame(now) {
    at.push(now);
    slider.value = low + (high - low) * (0.5 + 0.4 * Math.sin(n / 20));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    if (n++ < frames) requestAnimationFrame(frame); else done({ at, work });
  }
  requestAnimationFrame(frame);
})"""


def main() -> None:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        sys.exit("no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        path = Path(folder) / "explorer.html"
        path.write_text(page.html())
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1300, "height": 900})
        shown.goto(path.as_uri())
        shown.wait_for_function("RUN !== null")
        seen = shown.evaluate(MOVED, FRAMES)
        browser.close()
    gaps, work = np.diff(seen["at"]), np.array(seen["work"])
    print(f"{1000 / np.median(gaps):.0f} frames a second (median), {1000 / np.quantile(gaps, 0.95):.0f} in the slowest")
    print(f"a frame's work: median {np.median(work):.1f} ms, 95 % within {np.quantile(work, 0.95):.1f} ms")


if __name__ == "__main__":
    main()
