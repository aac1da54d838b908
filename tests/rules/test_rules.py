"""What a rule file may not say, and what it must: errors name rule, slot or parameter, and file."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fastsnn
from fastsnn import backends
from fastsnn.ops.common.kernels import check_rules
from fastsnn.ops.lif import run
from fastsnn.reference import lif as reference
from fastsnn.rules import RULES, SLOTS
from fastsnn.rules.alif import ALIF
from fastsnn.rules.ottt import OTTT
from fastsnn.rules.rule import Parameter, Rule, Slot
from fastsnn.types import PLACES, LIFParams, LIFState, slots_at

from ..gpuless import toolkit


def ottt_with(**changes):
    return type("Changed", (OTTT,), {"name": "changed", "__module__": __name__, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": (Parameter("rho"),)}, "'changed' .*test_rules.py.*parameter 'rho' has no default"),
        ({"slots": (Slot("trace", every_step=True), Slot("late", every_step=True))}, "'changed'.*slot 'late'.*first"),
        ({"untraced": "changed"}, "'changed'.*`untraced` is 'changed'"),
        (
            {"slots": (Slot("trace", every_step=True), Slot("late", start=float("inf")))},
            "'changed'.*slot 'late' starts at infinity and the rule has no `first`",
        ),
    ],
)
def test_a_wrong_declaration_is_an_error_at_import(changes, message):
    with pytest.raises(TypeError, match=message):
        ottt_with(**changes)


class Renamed(OTTT):
    """Writes `trace` and says that it is `other`."""

    name = "renamed"
    slots = (Slot("other", every_step=True),)

    def advance(self, p, now, slots):
        return {"trace": now.s}


class Driving(Rule):
    """Says that spikes depend on a slot, and moves it on where others are."""

    name = "driving"
    online = False
    untraced = "driving"
    slots = (Slot("late", drives=True),)

    def advance(self, p, now, slots):
        return {"late": now.s}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Renamed, "'renamed' .*test_rules.py.* declares and does not write slot 'other' in `advance`"),
        (Driving, "'driving' .*test_rules.py.* declares and does not write slot 'late' in `settle`"),
    ],
)
def test_a_slot_must_be_declared_and_written(rule, message, monkeypatch):
    monkeypatch.setitem(RULES, rule.name, rule())
    monkeypatch.setitem(PLACES, rule.slots[0].name, len(LIFState._fields))
    with pytest.raises(TypeError, match=message):
        reference.check(RULES[rule.name])


class Listening(ALIF):
    """Its trace is the adaptation that the step's spikes depended on."""

    name = "listening"

    def advance(self, p, now, slots):
        return {"trace": slots["adaptation"]}


def test_slots_follow_a_step_from_those_that_its_spikes_depended_on(monkeypatch):
    monkeypatch.setitem(RULES, "listening", Listening())
    p, x = LIFParams(rule="listening", v_reset=None, of_rule=(0.5, 0.25)), torch.full((3, 1), 4.0)
    trace, _ = reference.forward(p, x, LIFState(), True).slots
    assert trace.flatten().tolist() == [0.0, 1.0, 1.5]  # b[t-1], after the spike of t - 1


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_runs_with_its_papers_defaults(rule):
    neuron = fastsnn.LIF.for_rule(rule)
    neuron(torch.ones(3, requires_grad=True))
    held = {name for name in SLOTS if getattr(neuron.state, name) is not None}
    assert held == {slot.name for slot in RULES[rule].slots}
    assert neuron._params.untraced.traced is False
    assert all(slot is not None for slot in slots_at(neuron._params.places, neuron.state))


@pytest.mark.parametrize("call", [fastsnn.LIF, lambda **given: fastsnn.functional.lif_step(torch.ones(3), **given)])
def test_an_unknown_parameter_is_named_with_the_rule(call):
    with pytest.raises(TypeError, match=r"'rho' is no argument of a neuron; those of rule 'ottt' alone are: none"):
        call(rule="ottt", rho=0.5)


def test_rules_and_states_of_earlier_pickles_are_read():
    p = LIFParams(2.0, True, 1.0, None, fastsnn.surrogate.Sigmoid(), False, "ndot")  # 0.1 wrote these seven
    assert pickle.loads(pickle.dumps(p)) == p
    state = LIFState(torch.ones(2), False, torch.zeros(2), torch.ones(2), None)  # and these five
    assert state.keep is None
    assert torch.equal(pickle.loads(pickle.dumps(state)).ratio, state.ratio)


def test_the_list_needs_no_torch():
    code = "import sys, fastsnn.rules; assert 'torch' not in sys.modules, 'torch'; print(*fastsnn.rules.RULES)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*RULES]


@pytest.mark.skipif(backends.cpu._cpu is None, reason="needs the CPU core")
class TestCores:
    def core_with(self, **changes):
        return SimpleNamespace(__name__="core", rules={**backends.cpu._cpu.rules, **changes})

    def test_the_native_steps_have_the_slots_and_parameters_of_the_rules(self):
        check_rules(backends.cpu._cpu)
        assert {rule.kernel for rule in RULES.values()} == {*backends.cpu._cpu.rules}

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            (
                ((), 0),
                r"'ottt' \(.*ottt.py\) declares slot \('trace', .* where step 'ottt' of core has None",
            ),
            (((("a", False, True),), 0), r"'ottt' \(.*ottt.py\) declares slot \('trace', .* has \('a', False, True\)"),
            (((("trace", True, True),), 0), r"'ottt' .*slot \('trace', False, True\).* has \('trace', True, True\)"),
            (
                ((("trace", False, True),), 1),
                r"'ottt' \(.*ottt.py\) declares 0 parameters .*'ottt' of core has 1",
            ),
        ],
    )
    def test_a_step_with_others_is_an_error_at_import(self, step, message):
        with pytest.raises(ImportError, match=message):
            check_rules(self.core_with(ottt=step))

    def test_a_rule_without_a_step_is_refused_by_its_backend_alone(self, monkeypatch):
        class Python(OTTT):
            name = kernel = "python"

        monkeypatch.setitem(RULES, "python", Python())
        x, p = torch.ones(3), LIFParams(v_reset=None, rule="python")
        with pytest.raises(fastsnn.BackendError, match=r"cpu backend has no step 'python' of rule 'python';"):
            run(p, x)
        with fastsnn.use_backend("reference"):
            assert run(p, x).spikes.shape == x.shape


FAULTY = """
#include <iostream>
#include "{csrc}/core/rules/check.h"
using namespace fastsnn;
using namespace fastsnn::generic;
struct Silent : Untraced {{
  static constexpr Slot slots[] = {{kTrace, {{"late"}}}};
  static constexpr int count = 2;
  static constexpr bool traced = true;
  template <class M, class S>
  static FASTSNN_HD void advance(const Lif<S>&, const Now<S>& now, M& m) {{ m.at[0] = now.s; }}
}};
struct Driving : Ottt {{
  static constexpr Slot slots[] = {{{{"late", true}}}};
  static constexpr bool traced = false;
}};
struct Behind : Ndot {{
  static constexpr Slot slots[] = {{{{"ratio"}}, kTrace}};
}};
int main() {{
  std::cout << fault_of<Silent>("silent", "silent.h") << "\\n"
            << fault_of<Driving>("driving", "driving.h") << "\\n"
            << fault_of<Behind>("behind", "behind.h") << "\\n"
            << fault_of_rules() << "\\n";
}}
"""


@pytest.mark.skipif(bool(toolkit.lacks_gxx()), reason=toolkit.lacks_gxx())
def test_a_native_rule_must_write_what_it_declares(tmp_path):
    (tmp_path / "faulty.cpp").write_text(FAULTY.format(csrc=Path(__file__).parents[2] / "csrc"))
    subprocess.run(["g++", "-std=c++17", "faulty.cpp", "-o", "faulty"], check=True, cwd=tmp_path)
    said = subprocess.run([tmp_path / "faulty"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:3] == [
        "rule 'silent' (csrc/core/rules/silent.h): slot 'late' is declared and `advance` does not write it",
        "rule 'driving' (csrc/core/rules/driving.h): slot 'late' is declared and `settle` does not write it",
        "rule 'behind' (csrc/core/rules/behind.h): slot 'ratio' is the trace if, and only if, it is the first one",
    ]
    assert said[3:] == [""]


def test_a_rule_of_tritons_kernels_is_declared_and_writes_its_slots():
    rules = pytest.importorskip("fastsnn._triton.rules")
    with pytest.raises(ImportError, match=r"'nobody' .*rule.py.*with this kernel.*: none"):
        rules.Rule("nobody")
    with pytest.raises(ImportError, match=r"'ottt' .*rule.py.*slot 'trace' is declared and there is no `advance`"):
        rules.Rule("ottt")
    with pytest.raises(TypeError, match=r"'ottt' .*ndot.py.* has 'advanced'; kernels call charge, .*advance"):
        rules.Rule("ottt", advanced=rules.RULES["ndot"].advance)


def test_a_rule_of_tritons_kernels_that_forgets_a_slot_does_not_compile():
    pytest.importorskip("fastsnn._triton.core")
    pytest.importorskip("triton", minversion="3.6")  # what binds a launch without a device
    program = Path(__file__).with_name("forgetful_triton.py")
    env = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
