"""The instructions that are understood: patterns of opcodes and the C++ that computes them."""

import re

C_TYPES = {
    **{f"{kind}{bits}": f"{'' if kind == 's' else 'u'}int{bits}_t" for kind in "usb" for bits in (8, 16, 32, 64)},
    **{"f16": "f16", "bf16": "bf16", "f16x2": "Pair<f16>", "bf16x2": "Pair<bf16>"},
    **{"f32": "float", "f64": "double", "pred": "bool"},
}

F, SMALL, PAIR, INT = "f32|f64", "f16|bf16", "f16x2|bf16x2", "[us](?:16|32|64)"
ROUND = r"(?:\.(?P<round>r[nzmp]))?"
FTZ = r"(?P<ftz>\.ftz)?"

# Opcode, types of the operands after the result, and the value, in which {0}, {1}, ... are those operands.
# The type t is the opcode's; wide is twice as wide.
VALUES = [
    (rf"(?P<op>add|sub|mul){ROUND}{FTZ}\.(?P<t>{F})", "t t", "{op}<{round}, {ftz}>({0}, {1})"),
    (rf"(?P<op>add|sub|mul)(?:\.rn)?\.(?P<t>{SMALL}|{PAIR})", "t t", "{op}<rn, false>({0}, {1})"),
    (rf"div\.(?P<round>r[nzmp]){FTZ}\.(?P<t>{F})", "t t", "div<{round}, {ftz}>({0}, {1})"),
    (rf"div\.(?:approx|full){FTZ}\.(?P<t>f32)", "t t", "quotient<{ftz}>({0}, {1})"),
    (rf"(?P<op>rcp|sqrt)\.(?P<round>r[nzmp]){FTZ}\.(?P<t>{F})", "t", "{op}<{round}, {ftz}>({0})"),
    (
        rf"(?P<op>rcp|sqrt|rsqrt|ex2|lg2|sin|cos)\.approx{FTZ}\.(?P<t>f32)",
        "t",
        "approximate<{ftz}>(approx_{op}, {0})",
    ),
    (r"(?P<op>tanh)\.approx\.(?P<t>f32)", "t", "approximate<false>(approx_{op}, {0})"),
    (rf"fma\.rn\.(?P<t>{SMALL}|{PAIR})", "t t t", "fma<rn, false>({0}, {1}, {2})"),
    (rf"fma\.(?P<round>r[nzmp]){FTZ}\.(?P<t>{F})", "t t t", "fma<{round}, {ftz}>({0}, {1}, {2})"),
    (
        rf"(?P<op>min|max){FTZ}(?P<nan>\.NaN)?\.(?P<t>{F})",
        "t t",
        "{op}_float<{nan}>(flush<{ftz}>({0}), flush<{ftz}>({1}))",
    ),
    (rf"(?P<op>min|max)(?P<nan>\.NaN)?\.(?P<t>{SMALL})", "t t", "{op}_float<{nan}>({0}, {1})"),
    (rf"neg{FTZ}\.(?P<t>{F})", "t", "flush<{ftz}>(-{0})"),
    (rf"neg\.(?P<t>{SMALL})", "t", "{T}(-{0})"),
    (rf"abs{FTZ}\.(?P<t>{F})", "t", "flush<{ftz}>({T}(__builtin_fabs({0})))"),
    (rf"abs\.(?P<t>{SMALL})", "t", "{T}(__builtin_fabs({0}))"),
    (rf"copysign\.(?P<t>{F})", "t t", "{T}(__builtin_copysign({1}, {0}))"),
    (rf"(?P<op>add|sub)\.(?P<t>{INT})", "t t", "{op}_int({0}, {1})"),
    (rf"mul\.(?P<half>lo|hi)\.(?P<t>{INT})", "t t", "mul_{half}({0}, {1})"),
    (r"mul\.wide\.(?P<t>[us](?:16|32))", "t t", "mul_wide({0}, {1})"),
    (rf"mad\.(?P<half>lo|hi)\.(?P<t>{INT})", "t t t", "add_int(mul_{half}({0}, {1}), {2})"),
    (r"mad\.wide\.(?P<t>[us](?:16|32))", "t t wide", "add_int(mul_wide({0}, {1}), {2})"),
    (rf"(?P<op>div|rem)\.(?P<t>{INT})", "t t", "{op}_int({0}, {1})"),
    (rf"min\.(?P<t>{INT})", "t t", "{0} < {1} ? {0} : {1}"),
    (rf"max\.(?P<t>{INT})", "t t", "{0} > {1} ? {0} : {1}"),
    (r"neg\.(?P<t>s(?:16|32|64))", "t", "sub_int({T}(0), {0})"),
    (r"abs\.(?P<t>s(?:16|32|64))", "t", "{0} < 0 ? sub_int({T}(0), {0}) : {0}"),
    (r"and\.(?P<t>b16|b32|b64|pred)", "t t", "{T}({0} & {1})"),
    (r"or\.(?P<t>b16|b32|b64|pred)", "t t", "{T}({0} | {1})"),
    (r"xor\.(?P<t>b16|b32|b64|pred)", "t t", "{T}({0} ^ {1})"),
    (r"not\.(?P<t>b16|b32|b64)", "t", "{T}(~{0})"),
    (r"not\.pred", "pred", "!{0}"),
    (r"shl\.(?P<t>b16|b32|b64)", "t u32", "shl({0}, {1})"),
    (r"shr\.(?P<t>[bus](?:16|32|64))", "t u32", "shr({0}, {1})"),
    (r"shf\.(?P<to>l|r)\.(?P<mode>wrap|clamp)\.b32", "u32 u32 u32", "shf<'{to}' == 'l', {wrap}>({0}, {1}, {2})"),
    (r"prmt\.b32", "u32 u32 u32", "prmt({0}, {1}, {2})"),
    (r"lop3\.b32", "u32 u32 u32 u32", "lop3({0}, {1}, {2}, {3})"),
    (r"bfe\.(?P<t>[us](?:32|64))", "t u32 u32", "bfe({0}, {1}, {2})"),
    (r"bfi\.(?P<t>b32|b64)", "t t u32 u32", "bfi({0}, {1}, {2}, {3})"),
    (r"(?P<op>popc|clz|brev)\.(?P<t>b32|b64)", "t", "{op}({0})"),
    (r"selp\.(?P<t>[busf](?:16|32|64)|bf16)", "t t pred", "{2} ? {0} : {1}"),
    (r"mov\.(?P<t>[busf](?:16|32|64)|pred)", "t", "{0}"),
    (r"cvta\.to\.global\.(?P<t>u64)|cvta\.global\.(?P<t2>u64)", "u64", "{0}"),
    (r"cvt\.(?P<to>[us](?:8|16|32|64))\.(?P<t>[us](?:8|16|32|64))", "t", "{TO}({0})"),
    (r"cvt\.sat\.f32\.(?P<t>f32)", "t", "saturate({0})"),
    (rf"cvt\.(?P<round>r[nzmp])\.(?P<to>{F})\.(?P<t>[us](?:8|16|32|64))", "t", "convert<{round}, {TO}>({0})"),
    (rf"cvt\.rn\.(?P<to>{SMALL})\.(?P<t>[us](?:8|16|32))", "t", "{TO}(double({0}))"),
    (
        rf"cvt\.(?P<round>r[nzmp])i{FTZ}\.(?P<to>[us](?:8|16|32|64))\.(?P<t>{F}|{SMALL})",
        "t",
        "to_integer<{round}, {TO}>({flushed})",
    ),
    (rf"cvt\.(?P<round>r[nzmp])i{FTZ}\.(?P<t>{F}|{SMALL})\.(?P=t)", "t", "{T}(integral<{round}>({flushed}))"),
    (rf"cvt\.(?P<round>r[nzmp]){FTZ}\.(?P<to>f32)\.(?P<t>f64)", "t", "flush<{ftz}>(convert<{round}, {TO}>({0}))"),
    (rf"cvt{FTZ}\.(?P<to>f64)\.(?P<t>f32)", "t", "double(flush<{ftz}>({0}))"),
    (rf"cvt\.(?P<to>{F})\.(?P<t>{SMALL})", "t", "{TO}({0})"),
    (rf"cvt\.rn\.(?P<to>{SMALL})\.(?P<t>{F})", "t", "{TO}({0})"),
    (rf"cvt\.rn\.(?P<to>{SMALL})x2\.f32", "f32 f32", "pack<{TO}>({0}, {1})"),
    (r"vote\.sync\.ballot\.b32", "pred u32", "gpuless::warp_vote({1}, {0})"),
    (r"vote\.sync\.any\.pred", "pred u32", "gpuless::warp_vote({1}, {0}) != 0"),
    (r"vote\.sync\.all\.pred", "pred u32", "gpuless::warp_vote({1}, !{0}) == 0"),
    (r"createpolicy\.fractional\.L2::evict_\w+\.b64", "", "uint64_t(0)"),
]

COMPARISONS = {
    "eq": "{0} == {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lo": "{0} < {1}",
    "ls": "{0} <= {1}",
    "hi": "{0} > {1}",
    "hs": "{0} >= {1}",
    "equ": "!({0} < {1} || {0} > {1})",
    "neu": "{0} != {1}",
    "ltu": "!({0} >= {1})",
    "leu": "!({0} > {1})",
    "gtu": "!({0} <= {1})",
    "geu": "!({0} < {1})",
    "num": "!is_nan({0}) && !is_nan({1})",
    "nan": "is_nan({0}) || is_nan({1})",
}
ORDERED_NE = "{0} < {1} || {0} > {1}"  # false where an operand is NaN

INDICES = {"tid": "thread_index", "ctaid": "block_index", "ntid": "block_size", "nctaid": "grid_size"}
SPECIAL = {
    **{f"%{name}.{axis}": f"gpuless::{index}.{axis}" for name, index in INDICES.items() for axis in "xyz"},
    "%laneid": "gpuless::lane()",
    "WARP_SZ": "gpuless::kWarp",
}

SHUFFLES = {"up": "up", "down": "down", "bfly": "butterfly", "idx": "index"}
HINTS = r"(?:\.(?:nc|ca|cg|cs|lu|cv|wb|wt|L1::\w+|L2::(?:64B|128B|256B)))*(?P<policy>\.L2::cache_hint)?"
MEMORY = re.compile(
    rf"(?P<op>ld|st)(?:\.weak|\.volatile)?\.(?P<space>global|shared|param)(?:::cta)?{HINTS}"
    r"(?:\.v(?P<n>2|4))?\.(?P<t>[busf](?:8|16|32|64))"
)
SETP = re.compile(rf"setp\.(?P<how>[a-z]+)(?:\.(?P<with>and|or|xor))?{FTZ}\.(?P<t>[busf](?:16|32|64)|bf16)")
