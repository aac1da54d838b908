"""What compiled kernels hold, read off their machine code: registers, memory accesses, instructions, occupancy."""

import functools
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ARCHS = (75, 80, 86, 89, 90, 100, 120)
THREADS_PER_SM = {75: 1024, 80: 2048, 86: 1536, 89: 1536, 90: 2048, 100: 2048, 120: 1536}
SHARED_PER_SM = {75: 64, 80: 164, 86: 100, 89: 100, 90: 228, 100: 228, 120: 100}  # KiB
REGISTERS_PER_SM = 65536
RESERVED_SHARED = 1024  # bytes a block, from sm_80 on

GLOBAL = re.compile(r"^(LDG|STG|LD|ST|RED|ATOMG|ATOM|LDGSTS)\b")
LOCAL = re.compile(r"^(LDL|STL)\b")
ATOMIC = re.compile(r"^(RED|REDG|ATOMG|ATOM|ATOMS)\b")
FUSED = re.compile(r"^(FFMA|DFMA|FFMA2|HFMA2\.BF16|FFMA32I)\b")
DIVISION = re.compile(r"^(MUFU|FCHK)\b")
TENSOR = re.compile(r"^HMMA\b")
JUMP = re.compile(r"^(BRA|BRX|BRXU|JMP|JMX|BSSY|BREAK)\b")
END = re.compile(r"^(EXIT|RET|BRX|BRXU|JMP)\b")


@functools.cache
def tool(name):
    """Path of cuobjdump or nvdisasm: on PATH, or as Triton's wheel brings it; None without."""
    found = shutil.which(name)
    if found:
        return found
    try:
        import triton
    except ImportError:
        return None
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return str(bundled) if bundled.exists() else None


def lacks_tools():
    """Why machine code cannot be read; empty where it can."""
    missing = [name for name in ("cuobjdump", "nvdisasm") if tool(name) is None]
    return f"needs {' and '.join(missing)} (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)" if missing else ""


def _output(*command, cwd=None):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


@dataclass
class Block:
    """Instructions that run one after another; `next` are the labels or numbers of those that may follow."""

    code: list[str] = field(default_factory=list)
    next: set = field(default_factory=set)

    def accesses(self):
        return [instruction for instruction in self.code if GLOBAL.match(instruction)]


def width(instruction):
    """Bytes of one global access."""
    bits = re.search(r"\.(128|64|U16|S16|U8|S8|16|8)\b", instruction.split()[0])
    return int(re.sub(r"\D", "", bits[1])) // 8 if bits else 4


@dataclass
class Kernel:
    """One kernel's machine code as a graph of blocks."""

    name: str
    blocks: list[Block]
    registers: int = 0
    stack: int = 0
    shared: int = 0

    def code(self):
        return [instruction for block in self.blocks for instruction in block.code if not instruction.startswith("NOP")]

    def count(self, pattern):
        return sum(bool(pattern.match(instruction)) for instruction in self.code())

    def reachable(self, start):
        """Numbers of the blocks that can run after block `start`."""
        seen, todo = set(), list(self.blocks[start].next)
        while todo:
            block = todo.pop()
            if block not in seen:
                seen.add(block)
                todo += self.blocks[block].next
        return seen

    @functools.cached_property
    def after(self):
        """For each block, the numbers of those that can run after it."""
        return [self.reachable(number) for number in range(len(self.blocks))]

    @functools.cached_property
    def body(self):
        """Numbers of the blocks that share a path with a 16-byte access: the vector body, without the tail."""
        wide = {n for n, block in enumerate(self.blocks) if any(width(i) == 16 for i in block.accesses())}
        behind = set().union(*(self.after[n] for n in wide))
        return {n for n in range(len(self.blocks)) if n in wide | behind or self.after[n] & wide}

    @functools.cached_property
    def loops(self):
        """The loops of the vector body, each the set of its blocks' numbers."""
        found = {frozenset(m for m in self.after[n] if n in self.after[m]) for n in self.body}
        return [loop for loop in found if loop]

    @functools.cached_property
    def widest_loop(self):
        """The loop with the most 16-byte accesses: one step of a sequence with every optional operand."""
        return max(self.loops, key=lambda loop: len(self.accesses(loop)), default=frozenset())

    @property
    def loop_bytes(self):
        """Bytes that one thread (reads, writes) in its widest loop."""
        accesses = self.accesses(self.widest_loop)
        written = sum(width(instruction) for instruction in accesses if instruction.startswith("ST"))
        return sum(map(width, accesses)) - written, written

    @property
    def loop_instructions(self):
        """Instructions in the widest loop, each branch of it counted."""
        return sum(len(self.blocks[number].code) for number in self.widest_loop)

    @functools.cached_property
    def longest_path(self):
        """Most instructions that one thread can execute if every loop turns once; slow paths of divisions left out."""
        open_blocks = set()

        def visit(number):
            open_blocks.add(number)
            for target in self.blocks[number].next:
                if target not in lengths and target not in open_blocks:
                    visit(target)
            onward = (lengths.get(target, 0) for target in self.blocks[number].next)
            lengths[number] = len(self.blocks[number].code) + max(onward, default=0)

        lengths = {}
        visit(0)
        return lengths[0]

    def accesses(self, blocks):
        return [instruction for number in sorted(blocks) for instruction in self.blocks[number].accesses()]

    def narrow(self, blocks, least=16):
        """Accesses below `least` bytes."""
        return [instruction for instruction in self.accesses(blocks) if width(instruction) < least]

    def occupancy(self, arch, threads):
        """Share of an SM's threads that can be resident."""
        warps = threads // 32
        granule = -(-self.registers * 32 // 256) * 256
        by_registers = REGISTERS_PER_SM // granule // warps
        shared = self.shared + (RESERVED_SHARED if arch >= 80 and self.shared < RESERVED_SHARED else 0)
        by_shared = SHARED_PER_SM[arch] * 1024 // shared if shared else by_registers
        by_threads = THREADS_PER_SM[arch] // threads
        return min(by_registers, by_shared, by_threads) * threads / THREADS_PER_SM[arch]


def _instruction(line):
    """(predicated, text) of one line of disassembly, or None."""
    found = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?(.*?)\s*;", line)
    return (bool(found[1]), found[2] + line[found.end() :]) if found else None


def _graph(lines):
    """Blocks of a function: cut at labels and behind jumps, joined by number."""
    blocks, labels = [Block()], {}
    for line in lines:
        label = re.match(r"^(\.L_x_\d+|\$\S+):", line)
        if label:
            if blocks[-1].code:
                blocks[-1].next.add(len(blocks))
                blocks.append(Block())
            labels[label[1]] = len(blocks) - 1
            continue
        parsed = _instruction(line)
        if not parsed:
            continue
        predicated, text = parsed
        block = blocks[-1]
        block.code.append(text)
        if JUMP.match(text):
            block.next |= set(re.findall(r"\.L_x_\d+", text))
        conditional = predicated or re.match(r"^BRA\S*\s+!?U?P", text)
        if END.match(text) or text.startswith("BRA"):
            if conditional or not (END.match(text) or text.startswith("BRA")):
                block.next.add(len(blocks))
            blocks.append(Block())
    known = range(len(blocks))
    for block in blocks:
        block.next = {labels.get(target, target) for target in block.next}
        block.next = {target for target in block.next if target in known}
    return blocks


def _demangled(names):
    return dict(zip(names, _output("c++filt", *names).splitlines(), strict=True)) if names else {}


def resources(cubin):
    """Registers, bytes of stack and of shared memory of every kernel of a cubin file, by name."""
    usage = _output(tool("cuobjdump"), "--dump-resource-usage", str(cubin))
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)"
    return {name: tuple(map(int, numbers)) for name, *numbers in re.findall(pattern, usage)}


def resources_of(cubin):
    """Those of the one kernel in the bytes of a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        ((_, taken),) = resources(file.name).items()
    return taken


def kernels(cubin):
    """Every kernel of a cubin file."""
    taken = resources(cubin)
    sections = re.split(r"^\t\.section\t\.text\.", _output(tool("nvdisasm"), "-c", str(cubin)), flags=re.MULTILINE)
    readable = _demangled(list(taken))
    found = []
    for section in sections[1:]:
        name = section.split(",", 1)[0].strip('"')
        if name in taken:
            found.append(Kernel(readable[name], _graph(section.splitlines()), *taken[name]))
    return found


def extension_kernels(library, archs=ARCHS):
    """(arch, kernel) of all machine code inside a compiled extension."""
    with tempfile.TemporaryDirectory() as folder:
        _output(tool("cuobjdump"), "-xelf", "all", str(library), cwd=folder)
        for cubin in sorted(Path(folder).glob("*.cubin")):
            arch = int(re.search(r"\.sm_(\d+)\w?\.cubin$", cubin.name)[1])
            if arch in archs:
                yield from ((arch, kernel) for kernel in kernels(cubin))


def extension_ptx(library):
    """The PTX texts inside a compiled extension."""
    with tempfile.TemporaryDirectory() as folder:
        _output(tool("cuobjdump"), "-xptx", "all", str(library), cwd=folder)
        return [path.read_text() for path in sorted(Path(folder).glob("*.ptx"))]
