"""Measured times, kept between processes: a file per processor, versions and settings, in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..kernels.build import cache_folder


def processor() -> str:
    """The processor's name, as far as the operating system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class TimeCache:
    """Figures by key, for one setting: whatever decides a time beside the key (processor, versions, threads).

    A file that is damaged, or a folder that cannot be written, is as good as none: what is missing is measured again.
    """

    def __init__(self, setting: Mapping[str, Any]) -> None:
        self._setting = dict(setting)
        digest = hashlib.sha256(json.dumps(self._setting, sort_keys=True).encode()).hexdigest()[:16]
        self._file = cache_folder() / f"times-{digest}.json"

    def read(self) -> dict[str, list[float]]:
        """All figures of this setting."""
        try:
            found = json.loads(self._file.read_text())
            return {str(key): [float(f) for f in figures] for key, figures in found["times"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def add(self, times: Mapping[str, list[float]]) -> None:
        """Keep these figures beside those that are there."""
        text = json.dumps({"setting": self._setting, "times": self.read() | dict(times)}, indent=1)
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False) as temporary:
                temporary.write(text)
            os.replace(temporary.name, self._file)
