"""The HParams dashboard in a headless Chromium: what a user would see, read out of its web components."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--window-size=1700,1000"),
)

FIND = """
function find(root, selector) {
  const here = root.querySelector(selector);
  if (here) return here;
  for (const e of root.querySelectorAll('*'))
    if (e.shadowRoot) { const below = find(e.shadowRoot, selector); if (below) return below; }
  return null;
}
"""


def available() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def chromium() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
        try:
            yield driver
        finally:
            driver.quit()


class Page:
    """The HParams tab. Every question waits until it has an answer."""

    def __init__(self, driver: Any, url: str) -> None:
        self._driver = driver
        driver.get(f"{url}#hparams")

    def ask(self, script: str, *arguments: object) -> Any:
        return self._driver.execute_script(FIND + script, *arguments)

    def until(self, script: str, seconds: float = 60, good: Callable[[Any], bool] = bool) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            answer = self.ask(script)
            if good(answer) or time.monotonic() > deadline:
                return answer
            time.sleep(0.2)

    def table(self) -> dict[str, Any]:
        """The rows' names and the shown columns' names."""
        script = """
          const view = find(document, 'tf-hparams-table-view');
          if (!view || !view.sessionGroups || !view.sessionGroups.length) return null;
          return JSON.stringify({
            rows: view.sessionGroups.map(group => group.name),
            hparams: view.visibleSchema.hparamInfos.map(info => info.displayName || info.name),
            metrics: view.visibleSchema.metricInfos.map(info => info.displayName || info.name.tag)});
        """
        return json.loads(self.until(script) or "{}")

    def parallel(self) -> dict[str, Any]:
        """The trials that the parallel coordinates view accepts, and the paths it draws."""
        self.until(
            "const tab = find(document, 'paper-tab[view-id=parallel-coords-view]'); if (tab) tab.click(); return !!tab;"
        )
        script = """
          const plot = find(document, 'tf-hparams-parallel-coords-plot');
          if (!plot || !plot.redrawCount) return null;
          return JSON.stringify({
            rows: plot._validSessionGroups.map(group => group.name),
            paths: [...plot.shadowRoot.querySelectorAll('.foreground path')].map(path => path.getAttribute('d'))});
        """
        return json.loads(self.until(script) or "{}")

    def severe(self) -> list[str]:
        """What the page complained of: failed requests, impossible geometry."""
        return [entry["message"] for entry in self._driver.get_log("browser") if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        self._driver.save_screenshot(str(path))
