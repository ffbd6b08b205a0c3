"""The tree is what pyproject.toml says, and the floors import only what lies below them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import sparsefx

ROOT = Path(__file__).parents[2]
FLOORS = ("passes", "runtime", "training", "compiler")  # each may import those before it


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package with its dotted name."""
    for part in (*FLOORS, "sparsefx"):
        for path in sorted((ROOT / part).rglob("*.py")):
            inside = path.relative_to(ROOT).with_suffix("").parts
            if part == "sparsefx" and len(inside) > 1 and inside[1] in FLOORS:
                continue  # reached through a link
            names = inside if part == "sparsefx" else ("sparsefx", *inside)
            yield ".".join(names[:-1] if names[-1] == "__init__" else names), path


def _imports(module: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports, relative ones resolved."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def test_packages_are_those_of_the_tree() -> None:
    folders = {
        ".".join((() if part == "sparsefx" else ("sparsefx",)) + path.parent.relative_to(ROOT).parts)
        for part in (*FLOORS, "sparsefx")
        for path in (ROOT / part).rglob("*.py")
        if not (part == "sparsefx" and path.relative_to(ROOT).parts[1] in FLOORS)
    }
    declared = _project()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    assert sorted(declared) == sorted(folders)


def test_version_is_that_of_the_project() -> None:
    assert sparsefx.__version__ == _project()["project"]["version"]  # type: ignore[index]


def test_floors_import_only_what_lies_below() -> None:
    wrong = []
    for module, path in _modules():
        floor = module.split(".")[1] if module.count(".") else ""
        for name in _imports(module, path):
            parts = name.split(".")
            target = parts[1] if parts[0] == "sparsefx" and len(parts) > 1 else ""
            if floor in FLOORS and target in FLOORS and FLOORS.index(target) > FLOORS.index(floor):
                wrong.append(f"{module} imports {name}")
            if floor in FLOORS and parts[0] == "sparsefx" and target not in FLOORS:
                wrong.append(f"{module} imports the face: {name}")
    assert not wrong


def test_no_module_is_part_of_a_circle() -> None:
    known = dict(_modules())
    graph = {
        module: {
            t for name in _imports(module, path) for t in (name, name.rpartition(".")[0]) if t in known and t != module
        }
        for module, path in known.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for target in graph[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_imports_inside_a_part_are_relative_and_those_of_tests_absolute() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} line {node.lineno}"
        for module, path in _modules()
        if module.split(".")[1:2] and module.split(".")[1] in FLOORS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("sparsefx")
    ]
    wrong += [
        f"{path.relative_to(ROOT)} line {node.lineno}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level and "sparsefx" in (node.module or "")
    ]
    assert not wrong
