"""No circle among the files that import each other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "setup.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)


def modules(folder: str) -> dict[tuple[str, ...], Path]:
    """name -> file of a package."""
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        *parents, name = path.relative_to(ROOT).with_suffix("").parts
        found[(*parents, name) if name != "__init__" else tuple(parents)] = path
    return found


def imported(name: tuple[str, ...], path: Path) -> Iterator[tuple[str, ...]]:
    """Names that a file imports from its own package, the parts of `from x import y` as x.y."""
    package = name if path.name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)


def graph(folder: str) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """file -> files of the package that it imports."""
    files = modules(folder)
    return {
        name: {
            known for target in imported(name, path) if (known := target if target in files else target[:-1]) in files
        }
        for name, path in files.items()
    }


@pytest.mark.parametrize("folder", ["bench", "triton_kernels"])
def test_no_file_imports_itself_in_a_circle(folder):
    arrows = graph(folder)
    assert any(arrows.values())
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(".".join(name) for name in error.args[1]))


def test_a_circle_would_show(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from . import b\n")
    (package / "b.py").write_text("from .a import x\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(CycleError):
        TopologicalSorter(graph("package")).prepare()
