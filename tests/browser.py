"""Pages in a real browser, without a window: what it complains of, asks the network for, and how wide it gets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Shown:
    """An open page. `complaints` are of the console, `requests` all but the page itself."""

    page: Any
    complaints: list[str]
    requests: list[str]

    @property
    def overflow(self) -> int:
        """Pixels that have to be scrolled to the side."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped, and says why, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are looked at with playwright: not installed")
    found = os.environ.get("CHROMIUM") or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium to look at pages with; install one, or say where it is with CHROMIUM")
    with playwright.sync_playwright() as drivers:
        chromium = drivers.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def shown(chromium: Any, file: Path, *, width: int = 1400, scheme: str = "light") -> Iterator[Shown]:
    """A page in a window of this width, for readers who like it light or dark."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        shown = Shown(page, [], [])
        page.on("console", lambda message: shown.complaints.append(message.text))
        page.on("pageerror", lambda error: shown.complaints.append(str(error)))
        page.on("request", lambda request: shown.requests.append(request.url))
        page.goto(file.as_uri(), wait_until="load")
        shown.requests.remove(file.as_uri())
        yield shown
    finally:
        context.close()
