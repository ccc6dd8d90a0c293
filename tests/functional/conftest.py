"""A real browser for the pages that drytrack writes: Chromium, driven by selenium."""

from __future__ import annotations

import shutil

import pytest

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1600",
    # A page that asks for anything from the network gets an error, and says so.
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
WAIT_S = 30.0


class Browser:
    """What tests ask of a page; ``driver`` is selenium's, for all else."""

    def __init__(self, driver):
        self.driver = driver
        self.run = driver.execute_script

    def open(self, path):
        self.driver.get(path.as_uri())

    def click(self, selector):
        self.driver.find_element("css selector", selector).click()

    def wait_for(self, script):
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(self.driver, WAIT_S, poll_frequency=0.1)
        return waiting.until(lambda _: self.run(script), f"never true: {script}")

    def look(self, *, width, height=900, dark=False):
        """Show pages as on a screen of this size and theme."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1}
        screen["mobile"] = width < 600
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})

    def problems(self):
        lines = self.driver.get_log("browser")
        return [line["message"] for line in lines if line["level"] != "INFO"]


@pytest.fixture
def browser(tmp_path):
    """Return a browser that reaches no network."""
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")  # no packages of Python
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Without a path, selenium would look for a driver to download.
    service = webdriver.ChromeService(paths["chromedriver"])
    with webdriver.Chrome(options, service) as driver:
        yield Browser(driver)
