"""Reads PTX text: the parameters, registers, shared arrays and statements of one kernel."""

import dataclasses
import functools
import re

SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


class PtxError(Exception):
    """PTX that this reader does not know, or a run that failed."""


def size_of(ptx_type):
    """Bytes of a type such as u32 or b8."""
    size = SIZES.get(re.sub(r"[a-z]+", "", ptx_type))
    if not size:
        raise PtxError(f"unknown type: {ptx_type}")
    return size


@dataclasses.dataclass
class Param:
    name: str
    type: str
    count: int | None  # elements of a struct passed by value
    offset: int  # in the block of all parameters

    @property
    def bytes(self):
        return size_of(self.type) * (self.count or 1)


@dataclasses.dataclass
class Statement:
    kind: str  # label, open, close, reg, or instruction
    text: str
    line: int


@dataclasses.dataclass
class Kernel:
    name: str
    params: list[Param]
    shared: dict[str, int | None]  # bytes of each array; None: sized by the launch
    statements: list[Statement]


ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)[^{]*\{")
SHARED = re.compile(r"\.shared\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)\s*(?:\[\s*(\d*)\s*\])?")
PARAM = re.compile(
    r"\.param\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)"
    r"(?:\s+\.ptr(?:\s+\.\w+)?(?:\s+\.align\s+\d+)?)?\s+(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?"
)
STATEMENT = re.compile(
    r"(?P<label>[\w$]+)\s*:(?!:)|(?P<open>\{)|(?P<close>\})|(?P<other>(?:\{[^{};]*\}|\"[^\"]*\"|[^;{}\"])+);", re.DOTALL
)


def _blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def _without_comments(text):
    """The same lines without comments and source locations."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", _blank, text, flags=re.DOTALL)
    return re.sub(r"^\s*\.(?:loc|file)\b[^\n]*", _blank, text, flags=re.MULTILINE)


def _body_end(text, start):
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    raise PtxError("a kernel has no end")


def _params(text):
    params, end = [], 0
    for declared in filter(None, map(str.strip, text.split(","))):
        match = PARAM.fullmatch(declared)
        if not match:
            raise PtxError(f"unknown parameter: {declared}")
        count = int(match["count"]) if match["count"] else None
        align = int(match["align"] or size_of(match["type"]))
        param = Param(match["name"], match["type"], count, -(-end // align) * align)
        params.append(param)
        end = param.offset + param.bytes
    return params


def _shared(text):
    """Arrays that `text` declares. An array without a length is the launch's."""
    return {
        name: None if length == "" else size_of(ptx_type) * int(length or 1)
        for ptx_type, name, length in ((m[1], m[2], m[3]) for m in SHARED.finditer(text))
    }


def _statements(text, start, end):
    at = counted = start
    line = text.count("\n", 0, start) + 1
    while at < end:
        if text[at].isspace():
            at += 1
            continue
        match = STATEMENT.match(text, at, end)
        if not match:
            raise PtxError(f"cannot read: {text[at : at + 60].strip()}")
        kind, body = match.lastgroup, " ".join(match[match.lastgroup].split())
        line += text.count("\n", counted, match.start(kind))
        at, counted = match.end(), match.start(kind)
        if kind == "other" and body.startswith((".shared", ".pragma")):
            continue
        if kind == "other":
            kind = "reg" if body.startswith(".reg") else "instruction"
        yield Statement(kind, body, line)


@dataclasses.dataclass
class _Module:
    text: str  # without comments
    entries: dict[str, tuple[str, int, int]]  # parameters, begin and end of the body
    shared: dict[str, int | None]


@functools.lru_cache(maxsize=4)
def _module(text):
    text = _without_comments(text)
    entries, outside, at = {}, [], 0
    for entry in ENTRY.finditer(text):
        entries[entry[1]] = entry[2], entry.end(), _body_end(text, entry.end())
        outside.append(text[at : entry.start()])
        at = entries[entry[1]][2]
    return _Module(text, entries, _shared("".join([*outside, text[at:]])))


def entry_names(text):
    """Names of the kernels in PTX text."""
    return list(_module(text).entries)


def parse(text, name):
    """The kernel `name` of PTX text. Raises PtxError where it is missing or cannot be read."""
    module = _module(text)
    if name not in module.entries:
        raise PtxError(f"no kernel {name}; there are {list(module.entries)}")
    params, start, end = module.entries[name]
    shared = module.shared | _shared(module.text[start:end])
    return Kernel(name, _params(params), shared, list(_statements(module.text, start, end)))
