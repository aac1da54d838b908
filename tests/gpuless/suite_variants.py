"""A pytest plugin, for a process without the interpreter: compiles every variant of the Triton kernels that the tests
ask for, and writes what each takes. No kernel runs, so what tests compare is not looked at.

    TRITON_INTERPRET=0 python -m pytest -p tests.gpuless.suite_variants tests/parity -k triton --variants FILE.json
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
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
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.file.write_text(json.dumps([*pool.map(taken, self.found.values())], indent=1))


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
