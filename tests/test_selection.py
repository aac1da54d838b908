"""The short suite holds every value of every parameter and every type on every backend; the list of what ran."""

import itertools
from types import SimpleNamespace

import torch

from . import operations, selection

VARIANTS, DTYPES, CONFIGS = ("cpu", "triton"), (torch.float32, torch.float16), tuple({"rule": i} for i in range(9))


class Case:
    """What pytest collects, as far as the selection looks."""

    def __init__(self, test, slow=False, fixtures=(), **values):
        self.nodeid, self.slow, self.fixturenames = f"{test}[{values}]" if values else test, slow, fixtures
        if values:
            self.callspec = SimpleNamespace(params=values)

    def get_closest_marker(self, name):
        return (name == "slow" and self.slow) or None


def test_the_short_suite_holds_every_value_and_every_type_on_every_backend():
    every = [
        Case("parity", variant=variant, dtype=dtype, config=config)
        for variant, dtype, config in itertools.product(VARIANTS, DTYPES, CONFIGS)
    ]
    chosen = [case.callspec.params for case in selection.short(every)]
    assert len(chosen) == len(CONFIGS)
    assert {id(values["config"]) for values in chosen} == {*map(id, CONFIGS)}
    assert {(values["variant"], values["dtype"]) for values in chosen} == {*itertools.product(VARIANTS, DTYPES)}


def test_every_test_but_slow_ones_is_in_the_short_suite_in_its_order():
    every = [Case("b"), Case("a", n=1), Case("a", n=2), Case("slow", slow=True), Case("c")]
    assert selection.short(every) == [every[0], every[1], every[2], every[4]]


def test_of_what_is_compiled_one_case_is_in_the_short_suite():
    every = [Case("compiled", fixtures=("no_graphs",), rule=rule) for rule in range(3)]
    assert selection.short(every) == every[:1]


def test_what_ran_is_noted_by_its_narrowest_type():
    ran = set()
    core = operations.Recorded(SimpleNamespace(step=lambda *operands: len(operands), version="1"), "cpu", ran)
    half, state = torch.zeros(1, dtype=torch.float16), torch.zeros(1)
    assert core.step(3, half, state, None) == 4
    assert core.version == "1"
    assert ran == {("step", "cpu", "float16")}
    assert operations.table(ran | {("sum", "triton", "float32")}).splitlines() == [
        "| operation | cpu | triton |",
        "|---|---|---|",
        "| `step` | float16 | - |",
        "| `sum` | - | float32 |",
    ]
