"""A pytest plugin, for a process without the interpreter: of the variants of the Triton kernels that the tests ask for,
compiles the fewest in which each three properties meet that meet in any, and writes what each takes. No kernel runs, so
what tests compare is not looked at.

    TRITON_INTERPRET=0 python -m pytest -p tests.gpuless.suite_variants tests/parity -k triton --variants FILE.json
"""

import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest
import torch

from fastsnn import backends

from . import machine_code, triton_build

ARCH = 90
# before the tests ask, which is where they are collected
backends.triton.refusal = lambda device: None
torch.testing.assert_close = lambda *_, **__: None


class Recorder:
    """Every variant that a launch asked for, with the first test that did."""

    def __init__(self, file):
        self.file, self.found, self.test = file, {}, ""

    def launched(self, kernel, grid, arguments, options):
        variant, _ = triton_build.specialised(kernel, ARCH, arguments, options)
        # the half types' code differs in conversions alone
        asked, key = str(variant), str(variant).replace("fp16", "bf16")
        if key not in self.found or asked == key:
            self.found[key] = self.test, variant

    def pytest_runtest_setup(self, item):
        self.test = item.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self):
        with triton_build.launches_go_to(self.launched):
            return (yield)

    def pytest_sessionfinish(self):
        kernels = defaultdict(list)
        for test, variant in self.found.values():
            kernels[variant.name].append((test, variant))
        chosen = [found for same in kernels.values() for found in fewest(same)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.file.write_text(json.dumps([*pool.map(taken, chosen)], indent=1))


def properties(variant):
    """Type of each operand, value of each constant and option, and what is known of sizes and addresses."""
    parts = variant.signature, variant.constexprs, variant.attrs, variant.options
    return {f"{i} {name} {value}" for i, part in enumerate(parts) for name, value in part.items()}


def fewest(found):
    """Of one kernel's (test, variant): each next one adds most of the triples of properties that no chosen one has."""
    all_of = [properties(variant) for _, variant in found]
    common = set.intersection(*all_of)
    sizes = range(4)  # fewer than three may differ
    left = {i: {c for k in sizes for c in combinations(sorted(has - common), k)} for i, has in enumerate(all_of)}
    while left:
        most = max(left, key=lambda i: len(left[i]))
        covered = left[most]
        yield found[most]
        left = {i: rest for i, has in left.items() if (rest := has - covered)}


def taken(found):
    """The row of one variant: what its kernel takes, or why it does not compile."""
    test, variant = found
    given = [*triton_build.flattened(variant.signature, variant.signature)]
    row = {"name": variant.name, "test": test, "given": given, "constants": str(variant.constexprs)}
    try:
        registers, stack, shared = machine_code.resources_of(triton_build.compiled(variant, ARCH).asm["cubin"])
    except Exception as error:
        return row | {"error": repr(error)}
    return row | {"registers": registers, "stack": stack, "shared": shared}


def pytest_addoption(parser):
    parser.addoption("--variants", type=Path, required=True, help="where the rows go")


def pytest_configure(config):
    config.pluginmanager.register(Recorder(config.getoption("--variants")))
