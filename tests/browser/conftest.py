"""A headless Chromium for pages that were written; skipped with the reason where there is none."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Browser:
    """What the tests do with a page."""

    driver: Any

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file; wait until a page of `vesuvius view` has unpacked its voxels."""
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver.get("about:blank")  # a change of the fragment alone would load nothing
        self.driver.get(path.as_uri() + fragment)
        if "id='facts'" in path.read_text():
            ready = "return document.body.dataset.ready === 'true'"
            WebDriverWait(self.driver, 20).until(lambda driver: driver.execute_script(ready))
            self.settle()

    def settle(self) -> None:
        """Wait for the next frame: drawing is done once a frame."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def script(self, text: str, *arguments: Any) -> Any:
        """Run JavaScript and return its result."""
        return self.driver.execute_script(text, *arguments)

    def complaints(self) -> list[str]:
        """Return what the console got since the last call.

        Without advice on rendering: reading pixels back slowly is what the tests do.
        """
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["source"] != "rendering"]


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests, without network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    program = next(filter(None, map(shutil.which, _NAMES)), None)
    chromedriver = shutil.which("chromedriver")
    if program is None or chromedriver is None:
        pytest.skip("no Chromium with chromedriver (Debian: apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,800",
                 "force-device-scale-factor=1", "host-resolver-rules=MAP * ~NOTFOUND"):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield Browser(driver)
    driver.quit()
