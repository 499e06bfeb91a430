"""A real Chromium, headless, that looks at a page as a user would, and notes every complaint."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)


@dataclass
class Seen:
    """A page on the screen.

    Attributes:
        page: playwright's.
        complaints: errors on the console, and scripts that failed.
        requests: what the page asked for beside itself.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def ask(self, script: str, *arguments: Any) -> Any:
        """Return what a script finds."""
        return self.page.evaluate(script, *arguments)

    def until(self, script: str, timeout_s: float = 60) -> Any:
        """Wait until a script finds something. Playwright's own way needs eval, which a page's policy may refuse."""
        end = time.monotonic() + timeout_s
        while not (found := self.ask(script)):
            assert time.monotonic() < end, f"not within {timeout_s} s: {script}"
            self.page.wait_for_timeout(100)
        return found


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: on Debian, apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(SWITCHES), timeout=300_000)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: tuple[int, int]) -> Iterator[Seen]:
    """Open a file in a window of a size in px."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(120_000)
    seen = Seen(page)
    page.on("console", lambda line: seen.complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri(), wait_until="load", timeout=300_000)
    seen.requests = [url for url in seen.requests if not url.startswith(("data:", "blob:", path.as_uri()))]
    yield seen
    page.close()
