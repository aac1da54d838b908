"""Every block of the README and of the pages behind it runs as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastsnn import cli, recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
if not PAGES[0].exists():
    pytest.skip("needs the source tree", allow_module_level=True)
for package in ("spikingjelly", "sklearn", "matplotlib", "rich", "safetensors"):
    pytest.importorskip(package, reason="the README's blocks need the extra `test`")

TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PROGRAMS = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    command.strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    for command in line.partition(" #")[0].split("&&")
]
NEED_DATA = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
SHORT = {"fastsnn train": ["--epochs", "1"], "fastsnn bench": ["--quick", "--only", "counts"]}


def test_blocks_are_of_a_language_that_is_run():
    assert {language for language, _ in BLOCKS} == {"python", "bash", "sh"}
    assert len(PROGRAMS) == 3
    assert {command.split()[0] for command in COMMANDS} == {"pip", "pytest", "fastsnn"}


@pytest.mark.parametrize("text", PROGRAMS, ids=[text.splitlines()[-1] for text in PROGRAMS])
def test_a_program_runs_and_shows_something(text, tmp_path):
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "False" not in done.stdout


def timed(command):
    """A training is left to the whole suite."""
    slow = command.startswith("fastsnn train") and "--help" not in command
    return pytest.param(command, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("command", [timed(command) for command in COMMANDS if command.startswith("fastsnn")])
def test_a_command_runs(command, tmp_path):
    """With one epoch in place of all, and without the times of `fastsnn bench`."""
    shorter = next((options for start, options in SHORT.items() if command.startswith(start)), [])
    words = [sys.executable, "-m", *shlex.split(command), *(shorter if "--help" not in command else [])]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [line.partition(" #")[0] for line in NEED_DATA])
def test_a_command_that_needs_data_is_understood(command):
    program, *words = shlex.split(command)
    arguments = cli.parser().parse_args(words)
    assert program == "fastsnn"
    if arguments.command == "train" and not arguments.recipe.endswith(".yaml"):
        assert recipes.read(arguments.recipe).with_settings(arguments.settings or ())


def test_the_page_of_the_papers_has_every_recipe_with_its_figure():
    page = (ROOT / "docs" / "papers.md").read_text()
    for recipe in recipes.list_recipes():
        row = next(line for line in page.splitlines() if f"| `{recipe.name}` |" in line)
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[2] == f"{recipe.accuracy:.2f}"
        assert (cells[3], cells[4], cells[5]) == (recipe.model, recipe.data, str(recipe.steps))


@pytest.mark.parametrize(
    ("name", "script"),
    [(name, name) for name in ("drift", "drift_speed", "memory", "spikformer_digits", "vgg_speed")]
    + [(name, "vgg_speed") for name in ("vgg_speed_xeon", "vgg_small", "vgg_alone")],
)
def test_the_page_of_results_has_the_tables_of_the_scripts(name, script):
    page, results = (ROOT / "docs" / "results.md").read_text(), ROOT / "bench" / "results"
    assert (results / f"{name}.md").read_text() in page
    assert f"bench/results/{name}.csv" in page
    assert f"python -m bench.{script}`" in page


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("pip")])
def test_an_installation_asks_for_extras_that_exist(command):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pip, install, target = shlex.split(command)
    assert (pip, install) == ("pip", "install")
    assert re.fullmatch(r"\.\[(\w+)\]", target)[1] in extras


def test_the_readme_is_a_screen_or_two():
    assert len(PAGES[0].read_text().split()) <= 900


def test_links_lead_to_files():
    pages = [*PAGES, *sorted((ROOT / "fastsnn" / "equations").glob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())]
    assert len(links) > 20
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
