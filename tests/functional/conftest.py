"""A real browser, driven without a package: Chromium speaks a W3C protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request

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
START_S = 60


class Browser:
    """Chromium, driven by the WebDriver protocol (W3C, 2018)."""

    def __init__(self, port, profile):
        self._url = f"http://127.0.0.1:{port}/session"
        chrome = {
            "binary": shutil.which("chromium"),
            "args": [*OPTIONS, f"--user-data-dir={profile}"],
        }
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._ask("", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/{session['sessionId']}"

    def _ask(self, path, body=None, method="POST"):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._url + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=START_S) as response:
            return json.load(response)["value"]

    def open(self, path):
        self._ask("/url", {"url": path.as_uri()})

    def run(self, script, *args):
        return self._ask("/execute/sync", {"script": script, "args": args})

    def click(self, selector):
        found = self._ask("/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self._ask(f"/element/{element}/click")

    def wait_for(self, script, timeout_s=30.0):
        deadline = time.monotonic() + timeout_s
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.1)
        return found

    def tool(self, command, **params):
        """Send a command of the developer tools."""
        return self._ask("/goog/cdp/execute", {"cmd": command, "params": params})

    def look(self, *, width, height=900, dark=False):
        """Show pages as on a screen of this size and theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.tool("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tool("Emulation.setEmulatedMedia", features=[theme])

    def screenshot(self):
        return base64.b64decode(self._ask("/screenshot", method="GET"))

    def problems(self):
        lines = self._ask("/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] != "INFO"]

    def close(self):
        self._ask("", method="DELETE")


@pytest.fixture
def browser(tmp_path):
    """Return a browser that reaches no network."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    driver = subprocess.Popen(
        [shutil.which("chromedriver"), "--port=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        port = next(
            line.rpartition(" ")[2].strip(" .\n")
            for line in driver.stdout
            if "on port" in line and "successfully" in line
        )
        with contextlib.closing(Browser(port, tmp_path / "profile")) as opened:
            yield opened
    finally:
        driver.terminate()
        driver.communicate(timeout=START_S)
