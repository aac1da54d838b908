"""Lines of the product between PyTorch and the kernels that only relay operands: `python -m bench.relays [COMMIT ...]`.

A line relays where it names, declares or hands on operands and does nothing else. Not counted are blank lines,
comments, docstrings, imports, what closes a bracket, and lines that work: that compute, choose, loop, check, refuse or
allocate. Of Python every other line counts; of C++ those that name a kernel, its struct or an operand, as csrc/core has
them: what reads any tensor relays none."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# what stands between PyTorch and a kernel, by the names that it has had
PLACES = {
    "bindings": r"csrc/bindings/",
    "stubs": r"fastsnn/_\w+\.pyi$",
    "Python's calls": r"fastsnn/(ops/\w+/(kernels|interface)|(kernels|native|backends/native)/.*)\.py$",
    "Triton's launches": r"triton_kernels/\w+\.py$",
    "CUDA's launch": r"csrc/cuda/launch\.h$",
    "registered operators": r"fastsnn/ops/(\w+/graph|common/library|registered/.*)\.py$",
}
WORK = (
    *(ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp, ast.Slice, ast.comprehension, ast.JoinedStr),
    *(ast.If, ast.While, ast.For, ast.With, ast.withitem, ast.Try, ast.ExceptHandler, ast.Raise, ast.Assert),
    *(ast.Import, ast.ImportFrom, ast.ClassDef),
)
TYPES = "void|bool|int|double|float|Dtype|int64_t"  # of operands
ALLOCATION = re.compile(r"(new_)?(empty|zeros|full|ones)\w*$")
WORK_CPP = re.compile(
    r"\b(if|for|while|switch|case|default|throw|try|catch|fail|refuse\w*|require|static_assert|new|delete|using"
    r"|namespace|struct|class|enum|include|pragma|constexpr \w+ k[A-Z]\w*)\b"
    r"|[?%]|[!=<>]=|&&|\|\|| [-+*/<>] |\+\+|[-+|]="
)


def python_lines(source: str, only_launches: bool) -> tuple[set[int], set[int]]:
    """Lines that relay, and all of them; of a file of Triton's kernels those of its launches."""
    tree = ast.parse(source)
    roots = [node for node in tree.body if is_launch(node)] if only_launches else [tree]
    lines: set[int] = set()
    work: set[int] = set()
    for node in (node for root in roots for node in walk(root)):
        own = header(node)
        if isinstance(node, ast.stmt):
            lines.update(own)
        allocates = isinstance(node, ast.Call) and ALLOCATION.search(ast.unparse(node.func).rpartition(".")[2])
        if isinstance(node, WORK) or allocates or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            work.update(own)
    text = source.splitlines()
    relaying = {line for line in lines - work if re.search(r"\w", text[line - 1].partition("#")[0])}
    whole = {line for root in roots for line in spanned(root)} if only_launches else set(range(1, len(text) + 1))
    return relaying, whole


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is in it, but for types: a union there computes nothing."""
    yield node
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)


def is_launch(node: ast.stmt) -> bool:
    """What of Triton's files is neither a kernel nor called by one: what takes a call or its tensors, and the table."""
    if isinstance(node, ast.FunctionDef):
        kernel = any(re.search("kernel|jit", ast.unparse(by)) for by in node.decorator_list)
        taken = [ast.unparse(arg.annotation) for arg in node.args.args if arg.annotation]
        return not kernel and any(re.search(r"Call|Tensor|Params", given) for given in taken)
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "LAUNCHES"
    return isinstance(node, ast.ClassDef) and "Kernels" in node.name


def spanned(node: ast.AST) -> range:
    first = getattr(node, "lineno", 0)
    return range(first, (getattr(node, "end_lineno", None) or first) + 1)


def header(node: ast.AST) -> range:
    """Lines of a node without those of its body."""
    body = getattr(node, "body", None)
    if not isinstance(body, list) or not body or isinstance(node, ast.Module):
        return spanned(node)
    return range(node.lineno, max(node.lineno + 1, body[0].lineno))  # type: ignore[attr-defined]


def named(core: str) -> re.Pattern[str]:
    """The structs of kernels' arguments in csrc/core, their operands, and the kernels themselves."""
    structs = dict(re.findall(r"^struct (\w+)[^;{]*\{(.*?)^\};", re.sub(r"//.*", "", core), re.MULTILINE | re.DOTALL))
    fields = re.findall(rf"^  (?:const )?(?:{TYPES})\b([^;(]*);", "\n".join(structs.values()), re.MULTILINE)
    operands = {name for field in fields for name in re.findall(r"[*\s]([a-z]\w*)", field, re.IGNORECASE)}
    kernels = (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() + r"\w*" for name in structs)
    return re.compile(rf"\b({'|'.join([*structs, *operands, *kernels])})\b")


def cpp_lines(source: str, names: re.Pattern[str]) -> tuple[set[int], set[int]]:
    """Lines that relay, and all of them. names: of kernels and operands."""
    text = re.sub(r"//.*", "", source).splitlines()
    relaying = {line for line, code in enumerate(text, 1) if names.search(code) and not WORK_CPP.search(code)}
    return relaying, set(range(1, len(text) + 1))


def counted(commit: str) -> dict[str, tuple[int, int]]:
    """Of each place the lines that relay, and all of them."""
    counts: dict[str, tuple[int, int]] = dict.fromkeys(PLACES, (0, 0))
    paths = git("ls-tree", "-r", "--name-only", commit).splitlines()
    names = named("\n".join(git("show", f"{commit}:{path}") for path in paths if re.match(r"csrc/core/\w+\.h$", path)))
    for path in paths:
        place = next((place for place, pattern in PLACES.items() if re.match(pattern, path)), None)
        if place is None:
            continue
        source = git("show", f"{commit}:{path}")
        python = not path.endswith((".h", ".cpp"))
        relaying, every = python_lines(source, place == "Triton's launches") if python else cpp_lines(source, names)
        counts[place] = counts[place][0] + len(relaying), counts[place][1] + len(every)
    return counts


def git(*words: str) -> str:
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout


def main(commits: list[str]) -> None:
    names = [git("rev-parse", "--short", commit).strip() for commit in commits]
    tables = [counted(commit) for commit in commits]
    print("# Lines of the product that only relay operands\n")
    print(f"`python -m bench.relays {' '.join(names)}`: lines that relay, of all lines that stand in these places.\n")
    print("|", " | ".join(["", *names]), "|")
    print("|---|" + "---:|" * len(names))
    for place in PLACES:
        print("|", " | ".join([place, *("{:,} of {:,}".format(*table[place]) for table in tables)]), "|")
    sums = ["{:,} of {:,}".format(*map(sum, zip(*table.values(), strict=True))) for table in tables]
    print("|", " | ".join(["all", *sums]), "|")


if __name__ == "__main__":
    main(sys.argv[1:] or ["HEAD"])
