"""Compiles the Triton kernels for GPUs that are not there, as their launches would.

    python tests/gpuless/triton_build.py FOLDER [--archs 75 90] [--only REGEX] [--spread]

writes NAME.ARCH.ptx, .cubin and .ttir and an index.json of what was compiled. Run it without TRITON_INTERPRET.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from fastsnn._triton.kernel import Kernel
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, create_function_from_signature

from fastsnn import surrogate
from fastsnn.backends.triton import KERNELS
from fastsnn.ops.binary import words_shape
from fastsnn.reference.binary import Geometry
from fastsnn.reference.empf import Norm
from fastsnn.stats import Moments, Running, Sequence, Used
from fastsnn.types import RULES, LIFParams, LIFState, MPDRGradient, Saved, state_dtype, state_of

ARCHS = (75, 80, 86, 89, 90, 100, 120)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SURROGATES = [surrogate.SURROGATES[name](1.5) for name in surrogate.SURROGATES]


class Variant(NamedTuple):
    """One specialisation of a kernel, as `triton.compile` takes it."""

    name: str
    kernel: JITFunction
    signature: dict[str, str]
    constexprs: dict[tuple[int], Any]
    attrs: dict[tuple[int], Any]
    options: dict[str, Any]


def specialised(kernel, arch, args, options):
    """The variant that a launch asks for on such a GPU, and the launch's arguments by name."""
    backend = CUDABackend(GPUTarget("cuda", arch, 32))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(*args, **options)
    _, signature, constexprs, attrs = kernel._pack_args(backend, options, bound, specialization, options)
    return Variant(kernel.__name__, kernel, signature, constexprs, attrs, options), bound


@contextmanager
def launches_go_to(launch):
    """Inside this context launches call launch(kernel, grid, arguments, options), and nothing else."""

    def call(self, *args, grid, warmup, **options):
        launch(self, grid, args, options)

    run, JITFunction.run = JITFunction.run, call
    short, Kernel.__getitem__ = Kernel.__getitem__, JITFunction.__getitem__
    try:
        yield
    finally:
        JITFunction.run, Kernel.__getitem__ = run, short


@contextmanager
def recorded_launches():
    """A list of the variants that launches inside this context ask for; nothing runs."""
    recorded = []
    with launches_go_to(lambda kernel, _, args, options: recorded.append(specialised(kernel, 90, args, options)[0])):
        yield recorded


def lif_params(rule, hard=False, shape=SURROGATES[0]):
    return LIFParams(v_reset=0.25 if hard else None, rule=rule, surrogate=shape)


def forward(p, dtype, sequence, bare=False, n=2048, T=3):
    """A step that reuses the state's memory, or a sequence from nothing that stores all it can. bare: from nothing,
    with no dropout mask, storing what must be."""
    x = torch.empty((T, n) if sequence else n, dtype=dtype)
    one = torch.empty(n, dtype=state_dtype(dtype))
    if bare:
        return KERNELS["lif"].forward(p, x, LIFState(), sequence)
    if sequence:
        return KERNELS["lif"].forward(p, x, LIFState(keep=one), sequence, True, LIFState(), not p.online)
    state = state_of(p.places, one, not p.online, [one] * len(p.places), one)
    return KERNELS["lif"].forward(p, x, state, sequence, False, state if p.online else LIFState())


def backward(p, dtype, sequence, bare=False, n=2048, T=3):
    """With every optional gradient under BPTT; an online sequence recomputes its potentials. bare: with none, from
    nothing, with no dropout mask."""
    shape = (T, n) if sequence else (n,)
    g_s, x = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    u, one = torch.empty(shape, dtype=state_dtype(dtype)), torch.empty(n, dtype=state_dtype(dtype))
    start = None if bare else one
    if p.online and sequence:
        saved = Saved(dtype, sequence, x=x, potential=start, keep=start, drive=[start] * len(p.drive))
    else:
        saved = Saved(dtype, sequence, u=u, keep=start)
    if p.online or bare:
        return KERNELS["lif"].backward(p, saved, g_s)
    of_v = {"g_v": one, "g_v_seq": u if sequence else None, "want_v": True}
    return KERNELS["lif"].backward(p, saved, g_s, **of_v, g_drive=[one] * len(p.drive))


def standardize(dtype, rows=8, cols=576):
    weight, gain = torch.empty((rows, cols), dtype=dtype), torch.empty(rows, dtype=dtype)
    _, mean, inverse = KERNELS["standardize"].forward(weight, gain, 1e-4)
    return KERNELS["standardize"].backward(weight, gain, mean, inverse, weight, 1e-4)


def empf(version, dtype, T=3, shape=(2, 4, 2048)):
    """Forward and backward: a sequence of version I or III, a step of II. shape: outer, channels, inner."""
    kernels, state = KERNELS["empf"], state_dtype(dtype)
    x, g_s = (torch.empty((T, *shape), dtype=dtype) for _ in range(2))
    v_seq, parameter = torch.empty(x.shape, dtype=state), torch.empty((T, shape[1]), dtype=state)
    if version != "II":
        leak, after = (parameter, v_seq) if version == "I" else (None, None)
        kernels.forward(x, v_seq[0], leak, parameter, v_seq=True)
        kernels.backward(g_s, after, x, v_seq[0], parameter)
        return
    m, *_ = kernels.potential(x[0], v_seq[0], parameter[0], True)
    norm = Norm(m, *[parameter[0]] * 7)
    kernels.norm_forward(norm, dtype)
    kernels.norm_sums(norm, g_s[0], v_seq[0])
    kernels.norm_backward(norm, g_s[0], v_seq[0], v_seq[0], parameter[0], parameter[0])


def osr(dtype, last=False, rule=None, hard=None):
    """Every kernel of a training step, alone, with a neuron, or with one under OTS, whose reset is hard or not;
    contiguous or with channels last. The statistics settle in the merge, and in a second pass that ends the sequence.
    """
    x = torch.empty(8, 64) if last else torch.empty(8, 64, 16)
    x, rows, one = x.to(dtype), torch.empty(6, 64, dtype=torch.float64), torch.empty((), dtype=torch.float64)
    vector, kernels, wide = torch.empty(64), KERNELS["osr"], torch.empty_like(x, dtype=state_dtype(dtype))
    p = lif_params(rule or "sltt")
    for ends in (False, True):
        sequence = Sequence(2, Moments(one, rows[0], rows[1]), False, ends, one, torch.tensor(1), one)
        running = Running(vector, vector, 1e-4, 20.0 if ends else None, ends, sequence)
        if rule is None:
            kernels.normalize(x, vector, vector, running)
        elif hard is not None:
            kernels.charge(lif_params(rule, hard), x, vector, vector, running, wide)
        else:
            state = state_of(p.places, wide, False, [wide] * len(p.places), wide)
            kernels.lif_forward(p, x, vector, vector, running, state)
    if rule is not None:
        threshold = None if hard is None else one
        return kernels.lif_reduce(p, x, x, wide, wide, Used(rows, one), torch.float32, threshold)
    kernels.apply(x, vector, vector, running)
    kernels.reduce(x, x, Used(rows, one), torch.float32)
    return kernels.gradient(x, x, Used(rows, one), rows[:2])


def ots(dtype, hard, n=2048):
    """Every kernel of a later training step."""
    kernels, p = KERNELS["ots"], lif_params("ottt", hard)
    x, wide = torch.empty(n, dtype=dtype), torch.empty(n, dtype=state_dtype(dtype))
    threshold = torch.empty((), dtype=torch.float64)
    kernels.charge(p, x, wide)
    kernels.fire(p, wide, threshold, wide, wide, dtype)
    kernels.backward(p, wide, threshold, wide, x, dtype)


def mpdr(p, dtype, local, T=3, n=2048):
    """Forward and backward of a sequence with all that is optional; an online one recomputes its potentials."""
    kernels, moments = KERNELS["mpdr"], torch.empty(T, 2, dtype=torch.float64)
    x, u = torch.empty((T, n), dtype=dtype), torch.empty((T, n), dtype=state_dtype(dtype))
    kernels.forward(p, x, LIFState(keep=u[0]), True, not p.online, u_seq=not p.online, moments_out=moments)
    gradient = MPDRGradient(torch.empty(T, 3, dtype=torch.float64), local)
    if p.online:
        kernels.backward(p, Saved(dtype, True, x=x, potential=u[0], keep=u[0]), x, mpdr=gradient)
    else:
        kernels.backward(p, Saved(dtype, True, u=u, keep=u[0]), x, u[0], u, True, gradient)


def binary(dtype, bits, neighbours):
    """Both directions of the transform; products of few positions, and of many, as a convolution."""
    kernels, weight = KERNELS["binary"], torch.empty((64, 576), dtype=dtype)
    kernels.backward(weight, kernels.forward(weight, True)[0])
    if dtype == torch.float64:
        return
    shape, one = torch.Size((64, 64, 3, 3)), torch.empty(64)
    words = torch.empty(words_shape(shape, bits), dtype=torch.int32)
    for side in (2, 16):
        x = torch.empty((1, 64, side, side), dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last) if neighbours else x
        kernels.product(x, words, bits, shape, one, one, Geometry(padding=(1, 1)))


def named(*parts):
    return "-".join(str(part).removeprefix("torch.") for part in parts)


def cases():
    """(name, launch) of every variant: dtype x rule x reset x step or sequence x all or nothing optional, and every
    surrogate in float32."""
    for dtype, rule, hard, sequence, bare in itertools.product(DTYPES, RULES, *[(False, True)] * 3):
        if hard and RULES[rule].soft_reset:
            continue
        operands = lif_params(rule, hard), dtype, sequence, bare
        how = "hard" if hard else "soft", "sequence" if sequence else "step", *(("bare",) if bare else ())
        yield named("forward", rule, *how, dtype), partial(forward, *operands)
        if RULES[rule].untraced == rule:
            yield named("backward", rule, *how, dtype), partial(backward, *operands)
    for shape, rule in itertools.product(SURROGATES[1:], ("bptt", "sltt")):
        name = named("backward", rule, type(shape).__name__, "float32")
        yield name, partial(backward, lif_params(rule, shape=shape), torch.float32, True)
    for dtype in DTYPES:
        yield named("standardize", dtype), partial(standardize, dtype)
        for version in ("I", "II", "III"):
            yield named("empf", version, dtype), partial(empf, version, dtype)
        for bits, neighbours in itertools.product((1, 2), (False, True)):
            name = named("binary", f"{bits}bit", "neighbours" if neighbours else "apart", dtype)
            yield name, partial(binary, dtype, bits, neighbours)
        for last, rule in itertools.product((False, True), (None, "sltt", "ottt", "ndot")):
            yield named("osr", rule or "alone", "last" if last else "inner", dtype), partial(osr, dtype, last, rule)
        for hard in (False, True):
            reset = "hard" if hard else "soft"
            for last in (False, True):
                name = named("osr", "ots", reset, "last" if last else "inner", dtype)
                yield name, partial(osr, dtype, last, "ottt", hard)
            yield named("ots", reset, dtype), partial(ots, dtype, hard)
            yield named("mpdr", "bptt", reset, dtype), partial(mpdr, lif_params("bptt", hard), dtype, False)
        for rule, local in itertools.product([rule for rule in RULES if RULES[rule].online], (False, True)):
            name = named("mpdr", rule, "local" if local else "whole", dtype)
            yield name, partial(mpdr, lif_params(rule), dtype, local)


def variants(only=""):
    """Every variant whose case the regular expression `only` finds, named KERNEL-CASE, a case's later ones of a kernel
    KERNEL2-CASE and so on."""
    for name, launch in cases():
        if re.search(only, name):
            with recorded_launches() as recorded:
                launch()
            seen = Counter()
            for variant in recorded:
                seen[variant.name] += 1
                kernel = variant.name + (str(seen[variant.name]) if seen[variant.name] > 1 else "")
                yield variant._replace(name=f"{kernel}-{name}")


def compiled(variant, arch):
    source = ASTSource(variant.kernel, variant.signature, variant.constexprs, variant.attrs)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=variant.options)


def flattened(values, types):
    """name -> value of a kernel's arguments, of each in a tuple, that are no constants."""
    flat = {}
    for name, kind in types.items():
        if isinstance(kind, tuple):
            each = zip(values[name], kind, strict=True)
            flat |= {f"{name}.{i}": value for i, (value, one) in enumerate(each) if one != "constexpr"}
        elif kind != "constexpr":
            flat[name] = values[name]
    return flat


def write(variant, arch, folder):
    """The files of one compiled variant; returns its row of the index."""
    done = compiled(variant, arch)
    stem = folder / f"{variant.name}.{arch}"
    for kind in ("ptx", "ttir"):
        stem.with_name(f"{stem.name}.{kind}").write_text(done.asm[kind])
    stem.with_name(f"{stem.name}.cubin").write_bytes(done.asm["cubin"])
    return {
        "name": variant.name,
        "arch": arch,
        "entry": variant.kernel.__name__,
        "num_warps": done.metadata.num_warps,
        "shared": done.metadata.shared,
        "arguments": flattened(variant.signature, variant.signature),
        "constants": {variant.kernel.arg_names[at[0]]: str(value) for at, value in variant.constexprs.items()},
    }


def spread(chosen, archs):
    """(variant, arch): each variant for one architecture, and of each kernel and type one for every architecture."""
    kinds = defaultdict(list)
    for variant in chosen:
        kinds[variant.kernel.__name__, variant.name.rpartition("-")[2]].append(variant)
    for kind in kinds.values():
        for i in range(max(len(kind), len(archs))):
            yield kind[i % len(kind)], archs[i % len(archs)]


def build(chosen, folder):
    """chosen: (variant, arch) of each"""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [write(variant, arch, folder) for variant, arch in chosen]
    (folder / "index.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--archs", type=int, nargs="+", default=ARCHS)
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name it finds")
    parser.add_argument("--spread", action="store_true", help="a variant for one architecture alone, see `spread`")
    arguments = parser.parse_args()
    pairs = spread if arguments.spread else itertools.product
    build(pairs(variants(arguments.only), arguments.archs), arguments.folder)
