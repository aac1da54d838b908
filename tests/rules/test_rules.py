"""What a rule file may not say, and what it must: errors name rule, slot or parameter, and file."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastsnn
from fastsnn.reference import lif as reference
from fastsnn.rules import RULES, SLOTS
from fastsnn.rules.ottt import OTTT
from fastsnn.rules.rule import Parameter, Rule, Slot
from fastsnn.types import PLACES, LIFParams, LIFState, slots_at


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


def test_a_rule_whose_slot_drives_spikes_needs_its_file_alone():
    """Gradient through potential and slot, steps, sequences, states, evaluation: against autograd of the equations."""
    program = Path(__file__).with_name("planted.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
