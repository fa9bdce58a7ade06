"""The page in a real browser: no error, no request, no overflow on a phone. Needs chromium, driven through a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teachwhy.study.page import render_runs
from test_report import make_ambiguity, make_honeypots

BINARY = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
OVERFLOW = """(() => {
  const wide = document.documentElement.clientWidth;
  const inside = element => element.closest('.scroll') && !element.matches('.scroll');
  const drawn = element => !element.closest('.skip') && element.getClientRects().length;
  const shown = [...document.querySelectorAll('body *')].filter(element => !inside(element) && drawn(element));
  const over = shown.filter(element => element.getBoundingClientRect().right > wide + 0.5).map(element => element.outerHTML.slice(0, 80));
  return JSON.stringify({page: document.documentElement.scrollWidth, wide, over: over.slice(0, 5)});
})()"""
SMALLEST_TEXT = """Math.min(...[...document.querySelectorAll('figure svg text')].filter(text => text.getClientRects().length)
  .map(text => parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a))"""
CONTRASTS = """(() => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = name => {
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name); probe.fillRect(0, 0, 1, 1);
    const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const onPaper = ['ink', 'soft', 'link', 'main', 'control', 'bound', 'good', 'bad'].map(c => [c, 'paper']);
  const pairs = [...onPaper, ['good', 'good-wash'], ['bad', 'bad-wash'], ['soft', 'wash'], ['soft', 'note-wash']];
  return JSON.stringify(Object.fromEntries(pairs.map(([a, b]) => [a + '/' + b, ratio('--' + a, '--' + b)])));
})()"""


# Chromium reads commands from file 3 and answers on file 4.
LAUNCH = """import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4), os.execvp(sys.argv[3], sys.argv[3:])"""


class Browser:
    """Chromium's DevTools protocol over a pipe: JSON messages, each ended by a zero byte."""

    def __init__(self, binary: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._n, self._rest = 0, b""
        down, up = os.pipe(), os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
        ]
        words = [binary, *flags, "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        launch = [sys.executable, "-c", LAUNCH, str(down[0]), str(up[1]), *words]
        self._process = subprocess.Popen(launch, pass_fds=(down[0], up[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(down[0])
        os.close(up[1])
        self._to, self._from = down[1], up[0]
        os.set_blocking(self._from, False)
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session = ""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what else arrives is kept in `events`."""
        self._n += 1
        message = {"id": self._n, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._n:
                assert "error" not in got, got["error"]
                return got["result"]
            self.events.append(got)

    def _next(self, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            try:
                read = os.read(self._from, 1 << 20)
                assert read, "chromium went away"
                self._rest += read
            except BlockingIOError:
                assert time.monotonic() < end, "chromium does not answer"
                time.sleep(0.01)
        first, self._rest = self._rest.split(b"\0", 1)
        return json.loads(first)

    def open(self, path: Path, *, width_px: int, dark: bool = False) -> None:
        """Load a file at a width, and wait until it is drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width_px, height=900, deviceScaleFactor=1, mobile=width_px < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BINARY is None:
        message = "chromium is not installed: apt-get install chromium"
        if "chromium" in os.environ.get("TEACHWHY_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(f"NOT CHECKED in a browser; {message}")
    started = Browser(BINARY, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "demo.html"
    path.write_text(
        render_runs([make_ambiguity(), make_honeypots()], "Does telling a model why work better than telling it what?"), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("width_px", [360, 768, 1280])
def test_page_does_not_overflow(browser: Browser, page: Path, width_px: int) -> None:
    browser.open(page, width_px=width_px)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = json.loads(browser.evaluate(OVERFLOW))
    assert found["over"] == [] and found["page"] <= found["wide"] == width_px


def test_page_makes_no_error_and_no_request(browser: Browser, page: Path) -> None:
    browser.open(page, width_px=1280)
    time.sleep(0.3)
    browser.call("Page.bringToFront")
    sent = [event["params"]["request"]["url"] for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [page.as_uri()]
    bad = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event for event in browser.events if event.get("method") in bad] == []


@pytest.mark.parametrize("width_px", [360, 768, 1280])
def test_figure_can_be_read(browser: Browser, page: Path, width_px: int) -> None:
    browser.open(page, width_px=width_px)
    assert browser.evaluate(SMALLEST_TEXT) >= 9.5


@pytest.mark.parametrize("dark", [False, True])
def test_colours_have_contrast(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, width_px=1280, dark=dark)
    found = json.loads(browser.evaluate(CONTRASTS))
    assert found and {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}


def test_details_open_in_print(browser: Browser, page: Path) -> None:
    browser.open(page, width_px=1280)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("document.querySelector('details:not([open]) .inside').getBoundingClientRect().height") > 50
    browser.call("Emulation.setEmulatedMedia", media="screen")
