"""No circle among the files that import each other, and in fastsnn none against the order of its packages."""

import ast
import importlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# packages and files of fastsnn: each imports only those before it
ORDER = (
    *("_cpu", "_cuda", "errors", "files", "rules", "names", "threads", "allocator", "graphs", "_version"),
    *("surrogate", "types", "stats", "reference"),
    *("backends", "ops", "functional"),
    *("nn", "optim", "online", "models", "data", "deploy", "figures", "recorder", "summaries", "fastsnn"),
    *("recipes", "train", "experiment", "plots", "potentials", "commands", "cli", "__main__"),
)
ROOT = Path(__file__).parents[1]
if not (ROOT / "setup.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)


def modules(folder: str) -> dict[tuple[str, ...], Path]:
    """name -> file of a package; a core is its stub."""
    found = {}
    for path in [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.pyi")]:
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


def package_of(name: tuple[str, ...]) -> str:
    """fastsnn's package or file that holds a file."""
    return name[1] if len(name) > 1 else "fastsnn"


def test_every_package_imports_only_those_before_it():
    arrows = graph("fastsnn")
    assert {package_of(name) for name in arrows} == {*ORDER}
    against = [
        f"{'.'.join(name)} imports {'.'.join(target)}"
        for name, targets in arrows.items()
        for target in targets
        if ORDER.index(package_of(target)) > ORDER.index(package_of(name))
    ]
    assert not against


@pytest.mark.parametrize("folder", ["fastsnn", "bench", "triton_kernels"])
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


@pytest.mark.parametrize("name", ["experiment", "plots", "potentials"])
def test_modules_of_0_1_have_their_names(name):
    assert importlib.import_module(f"fastsnn.{name}") is importlib.import_module(f"fastsnn.train.{name}")
