"""PTX to C++, one statement an instruction. What is unknown raises an error that names it."""

import re

from .instructions import C_TYPES, COMPARISONS, MEMORY, ORDERED_NE, SETP, SHUFFLES, SPECIAL, VALUES
from .parse import PtxError, parse, size_of

WINDOW_BITS = 24  # of ptx_runtime.h: a shared address holds the array's number above them


def _split(text):
    """Operands, which commas part outside of braces and brackets."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+", text)]


def _list(operand):
    return _split(operand.strip("{} ")) if operand.startswith("{") else [operand]


class _Translator:
    def __init__(self, kernel):
        self.kernel = kernel
        self.params = {p.name: p.offset for p in kernel.params}
        self.arrays = {name: i for i, name in enumerate(kernel.shared)}
        self.registers = set()

    # operands

    def variable(self, name):
        if name not in self.registers:
            raise PtxError(f"unknown operand: {name}")
        return "v_" + name.lstrip("%").replace("$", "_S")

    def read(self, operand, ptx_type):
        """C++ for the operand as a value of the type."""
        c_type = C_TYPES[ptx_type]
        if operand.startswith("!"):
            return f"!{self.read(operand[1:], ptx_type)}"
        if operand in SPECIAL:
            return f"{c_type}({SPECIAL[operand]})"
        if match := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", operand):
            return f"get<{c_type}>({f'0x{match[1]}u' if match[1] else f'uint64_t(0x{match[2]}u)'})"
        if re.fullmatch(r"-?(?:0[xX][0-9a-fA-F]+|\d+)U?", operand):
            return f"{c_type}({int(operand.rstrip('U'), 0) % 2**64}u)"
        if (match := re.fullmatch(r"([\w$]+)(?:\s*\+\s*(\d+))?", operand)) and match[1] in self.arrays:
            return f"{c_type}({self.array_address(match[1]) + int(match[2] or 0)}u)"
        if operand in self.params:
            return f"{c_type}({self.params[operand]}u)"  # the address of a parameter is its place in their block
        return f"get<{c_type}>({self.variable(operand)})"

    def array_address(self, name):
        return (self.arrays[name] + 1) << WINDOW_BITS

    def address(self, operand, space):
        """C++ for [register + offset] or [symbol + offset]."""
        match = re.fullmatch(r"\[\s*([^\s+\]]+)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
        if not match:
            raise PtxError(f"unknown address: {operand}")
        base, offset = match[1], int(match[2] or 0)
        if space == "param":
            if base in self.params:
                return str(self.params[base] + offset)
            return f"add_int({self.read(base, 'u64')}, {C_TYPES['u64']}({offset}))"
        ptx_type = "u64" if space == "global" else "u32"
        return f"add_int({self.read(base, ptx_type)}, {C_TYPES[ptx_type]}({offset}))"

    def write(self, operand, value):
        return "" if operand == "_" else f"put({self.variable(operand)}, {value});"

    # instructions

    def instruction(self, text):
        if match := re.match(r"@(!?)(%?[\w$]+)\s+", text):
            return f"if ({match[1]}{self.variable(match[2])}) {{ {self.instruction(text[match.end() :])} }}"
        opcode, _, operands = text.partition(" ")
        operands = _split(operands)
        for translate in (self.control, self.memory, self.packed_move, self.comparison, self.warp, self.value):
            try:
                statement = translate(opcode, operands)
            except (IndexError, ValueError) as error:
                raise PtxError(f"cannot read the operands of: {text}") from error
            if statement is not None:
                return statement
        raise PtxError(f"unknown instruction: {text}")

    def control(self, opcode, operands):
        if opcode in ("bra", "bra.uni"):
            return f"goto {self.label(operands[0])};"
        if opcode in ("ret", "ret.uni", "exit"):
            return "return;"
        if opcode == "trap":
            return 'gpuless::fail("trap");'
        if opcode in ("bar.sync", "barrier.sync", "barrier.sync.aligned") and operands[0] == "0":
            return "barrier();" if len(operands) == 1 else f"barrier_of({self.read(operands[1], 'u32')});"
        if opcode == "bar.warp.sync":
            return f"gpuless::warp_sync({self.read(operands[0], 'u32')});"
        return None

    def label(self, name):
        return "l_" + name.replace("$", "S")

    def memory(self, opcode, operands):
        match = MEMORY.fullmatch(opcode)
        if not match:
            return None
        if len(operands) != 2 + bool(match["policy"]):
            raise ValueError
        load, ptx_type, space = match["op"] == "ld", match["t"], match["space"]
        registers, address = operands[:2] if load else operands[1::-1]
        registers, address = _list(registers), self.address(address, space)
        if len(registers) != int(match["n"] or 1) or (space == "param" and not load):
            raise ValueError
        c_type = C_TYPES[ptx_type]
        if space == "param":
            reads = (f"param<{c_type}>(params, {address} + {i * size_of(ptx_type)})" for i in range(len(registers)))
            return " ".join(map(self.write, registers, reads))
        access = "shared_access" if space == "shared" else "global_load" if load else "global_store"
        elements = [f"at[{i}]" for i in range(len(registers))]
        if load:
            moves = map(self.write, registers, elements)
        else:
            store = "shared_store({}, {});" if space == "shared" else "{} = {};"
            moves = (store.format(e, self.read(r, ptx_type)) for e, r in zip(elements, registers, strict=True))
        return f"{{ auto* at = {access}<{c_type}, {len(registers)}>({address}); {' '.join(moves)} }}"

    def packed_move(self, opcode, operands):
        """mov between a register and the registers that hold its parts."""
        match = re.fullmatch(r"mov\.(b32|b64)", opcode)
        if not match or not any(o.startswith("{") for o in operands):
            return None
        whole = match[1]
        packing = operands[1].startswith("{")
        parts = _list(operands[1 if packing else 0])
        bits = 8 * size_of(whole) // len(parts)
        if packing:
            shifted = (f"{C_TYPES[whole]}({self.read(p, f'b{bits}')}) << {i * bits}" for i, p in enumerate(parts))
            return self.write(operands[0], f"{C_TYPES[whole]}({' | '.join(shifted)})")
        source = f"const auto whole = {self.read(operands[1], whole)};"
        pieces = (self.write(p, f"{C_TYPES[f'b{bits}']}(whole >> {i * bits})") for i, p in enumerate(parts))
        return f"{{ {source} {' '.join(pieces)} }}"

    def comparison(self, opcode, operands):
        match = SETP.fullmatch(opcode)
        if not match:
            return None
        how, ptx_type = match["how"], match["t"]
        if how != "ne" and how not in COMPARISONS:
            return None
        floating = ptx_type.startswith(("f", "bf"))
        form = COMPARISONS.get(how, ORDERED_NE if floating else "{0} != {1}")
        a, b = (self.read(o, ptx_type) for o in operands[1:3])
        if match["ftz"]:
            a, b = f"flush<true>({a})", f"flush<true>({b})"
        destinations = operands[0].split("|")
        values = [f"({form.format(a, b)})", f"!({form.format(a, b)})"]
        if match["with"]:
            sign = {"and": "&&", "or": "||", "xor": "!="}[match["with"]]
            other = self.read(operands[3], "pred")
            values = [f"({v} {sign} {other})" for v in values]
        results = "".join(f"const bool result{i} = {values[i]}; " for i in range(len(destinations)))
        return "{ " + results + " ".join(self.write(d, f"result{i}") for i, d in enumerate(destinations)) + " }"

    def warp(self, opcode, operands):
        if match := re.fullmatch(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])\.shared(?:::cta)?\.b16", opcode):
            return self.matrices(int(match[1]), *operands)
        match = re.fullmatch(r"shfl\.sync\.(up|down|bfly|idx)\.b32", opcode)
        if not match:
            return None
        destination, _, in_range = operands[0].partition("|")
        flag = f"&{self.variable(in_range)}" if in_range else "nullptr"
        a, b, c, mask = (self.read(o, "u32") for o in operands[1:5])
        mode = f"gpuless::Shuffle::{SHUFFLES[match[1]]}"
        return self.write(destination, f"shfl({mode}, {flag}, {a}, {b}, {c}, {mask})")

    def matrices(self, n, registers, address):
        registers = _list(registers)
        if len(registers) != n:
            raise ValueError
        moves = " ".join(self.write(register, f"words[{i}]") for i, register in enumerate(registers))
        return f"{{ uint32_t words[{n}]; load_matrices({self.address(address, 'shared')}, words); {moves} }}"

    def value(self, opcode, operands):
        for pattern, types, form in VALUES:
            match = re.fullmatch(pattern, opcode)
            if match:
                return self.write(operands[0], self.expression(match.groupdict(), types.split(), form, operands[1:]))
        return None

    def expression(self, groups, types, form, operands):
        t, to = groups.get("t"), groups.get("to")
        names = {"t": t}
        if "wide" in types:
            names["wide"] = f"{t[0]}{16 * size_of(t)}"
        if types and len(types) != len(operands):
            raise ValueError
        values = [self.read(o, names.get(x, x)) for o, x in zip(operands, types, strict=False)]
        ftz = "true" if groups.get("ftz") else "false"
        return form.format(
            *values,
            op=groups.get("op"),
            half=groups.get("half"),
            to=to,
            round=groups.get("round") or "rn",
            ftz=ftz,
            nan="true" if groups.get("nan") else "false",
            wrap="true" if groups.get("mode") == "wrap" else "false",
            flushed=f"flush<{ftz}>({values[0]})" if values else None,
            T=C_TYPES.get(t),
            TO=C_TYPES.get(to),
        )

    # the whole

    def declarations(self, text):
        """C++ for `.reg .b32 %r<5>`; registers start as all ones, which is NaN."""
        match = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text)
        ptx_type = match[1]
        c_type = "bool" if ptx_type == "pred" else f"uint{8 * size_of(ptx_type)}_t"
        for declared in _split(match[2]):
            family = re.fullmatch(r"(%?[\w$]+)<(\d+)>", declared)
            names = [f"{family[1]}{i}" for i in range(int(family[2]))] if family else [declared]
            self.registers.update(names)
            yield f"{c_type} {', '.join(f'{self.variable(n)} = {c_type}(-1)' for n in names)};"

    def statement(self, statement):
        if statement.kind == "label":
            return f"{self.label(statement.text)}:;"
        if statement.kind == "reg":
            return " ".join(self.declarations(statement.text))
        if statement.kind in ("open", "close"):
            return statement.text
        try:
            return f"count_instruction(); {self.instruction(statement.text)}"
        except PtxError as error:
            raise PtxError(f"{error} (PTX line {statement.line})") from None

    def program(self):
        body = "\n".join(f'# {s.line} "{self.kernel.name}.ptx"\n{self.statement(s)}' for s in self.kernel.statements)
        sizes = [bytes or 0 for bytes in self.kernel.shared.values()]
        dynamic = next((i for i, bytes in enumerate(self.kernel.shared.values()) if bytes is None), -1)
        return PROGRAM.format(body=body, sizes=", ".join(map(str, [*sizes, 0])), dynamic=dynamic)


PROGRAM = """\
#include "ptx_job.h"
using namespace ptx;
static const uint32_t shared_bytes[] = {{{sizes}}};
static void kernel(const unsigned char* params) {{
{body}
}}
static const Program program{{kernel, {{shared_bytes, {dynamic}, 0}}}};
extern "C" __attribute__((visibility("default"))) int ptx_launch(
    const unsigned* size, size_t dynamic_bytes, int order, const unsigned char* params) {{
  const gpuless::Dim grid{{size[0], size[1], size[2]}}, block{{size[3], size[4], size[5]}};
  return launch(program, grid, block, dynamic_bytes, order, params);
}}
int main(int, char** argv) {{ return run_job(argv[1], argv[2], program); }}
"""


def translate(text, name):
    """A C++ program that runs the kernel `name` of PTX text, and the kernel's parameters.

    Raises PtxError, which names it, for whatever is unknown.
    """
    kernel = parse(text, name)
    return _Translator(kernel).program(), kernel.params
