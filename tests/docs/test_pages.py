"""Every block of code in README and in docs/, executed as it stands: a page has one namespace and one folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.docs.given import GIVEN
from tests.docs.pages import PAGES, Block, blocks_of, name_of
from tests.docs.shell import Shell

_SLOW = ("budgets", "command-line", "condensed", "import", "profile", "report", "transformers")  # by what they build
_LANGUAGES = {"python", "bash", "text", "json", "toml", "bibtex"}


def _with_mark(page: Path) -> Any:
    return pytest.param(page, marks=[pytest.mark.ci] if page.stem in _SLOW else [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    yield tmp_path
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, in torch.compile
@pytest.mark.parametrize("page", [_with_mark(page) for page in PAGES if blocks_of(page)], ids=name_of)
def test_blocks_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    GIVEN.get(name_of(page), lambda monkeypatch: None)(monkeypatch)
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = vars(module)
    with ExitStack() as stack:
        shell = Shell(stack)
        for block in blocks_of(page):
            missing = block.missing
            if missing is not None:
                with subtests.test(msg=str(block)):
                    pytest.skip(f"needs {missing}")
                continue
            _take(block, names, shell)


def _take(block: Block, names: dict[str, Any], shell: Shell) -> None:
    """Run or check one block; an error has the page's own line numbers."""
    assert block.language in _LANGUAGES, f"{block}: a block in {block.language}, which nothing checks"
    if block.language == "bash":
        try:
            shell.take(block)
        except AssertionError as error:
            raise AssertionError(f"{block}: {error}") from error
    elif block.language == "python":
        text = "\n" * block.line + block.text
        if shell.server is not None:
            text = text.replace("localhost:8000", shell.server)
        exec(compile(text, str(block.page), "exec"), names)
    elif block.language == "json":
        json.loads(block.text)
