"""What `fastsnn.record` sees is what the neurons did."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fastsnn


def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), fastsnn.LIF.for_rule("ottt", v_threshold=0.3), *middle, nn.Linear(6, 3))


def test_rates_potentials_and_traces_are_those_of_each_step():
    net, x = network(), torch.randn(4, 7, 5)
    with fastsnn.record(net, potentials=True, traces=True, spikes=True) as seen:
        spikes, potentials, trace = [], [], []
        for x_t in x:
            spikes.append(net[1](net[0](x_t)))
            potentials.append(net[1].v.clone())
            trace.append(net[1].trace.clone())
    assert seen.rates == {"1": [float((s.spikes != 0).double().mean()) for s in spikes]}
    assert_close(seen.potentials["1"], torch.stack(potentials))
    assert_close(seen.traces["1"], torch.stack(trace))
    assert torch.equal(seen.spikes["1"], torch.stack([fastsnn.nn.plain(s) for s in spikes]) != 0)
    fastsnn.reset(net)
    net(x[0])
    assert len(seen.rates["1"]) == 4  # nothing is recorded after the block


def test_sequences_are_pooled_and_the_last_one_is_kept():
    net, x = network(), torch.randn(2, 3, 7, 5)
    with fastsnn.record(net, potentials=True) as both:
        for sequence in x:
            fastsnn.reset(net)
            for x_t in sequence:
                net(x_t)
    single = []
    for sequence in x:
        fastsnn.reset(net)
        with fastsnn.record(net, potentials=True) as one:
            for x_t in sequence:
                net(x_t)
        single.append(one)
    for t in range(3):
        assert both.rates["1"][t] == pytest.approx(sum(one.rates["1"][t] for one in single) / 2)
    assert_close(both.potentials["1"], single[1].potentials["1"])


def test_a_fused_norm_and_its_neuron_are_seen_in_training_and_evaluation():
    for train in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(fastsnn.OSRLIF.for_rule("sltt", 4, 2)).train(train)
        with fastsnn.record(net, potentials=True) as seen:
            fired = [float((net(torch.randn(8, 4)) != 0).double().mean()) for _ in range(2)]
        assert seen.rates == {"0.neuron": fired}
        assert seen.potentials["0.neuron"].shape == (2, 8, 4)


def test_whole_sequences_and_em_pf_neurons_have_rates():
    x = torch.randn(3, 6, 4) + 0.5
    neuron = fastsnn.EMPF(3, "I", 4)
    with fastsnn.record(neuron, potentials=True) as steps:
        spikes = torch.stack([neuron(x_t) for x_t in x])
    fastsnn.reset(neuron)
    neuron.step_mode = "m"
    with fastsnn.record(neuron) as whole:
        neuron(x)
    expected = [float((s != 0).double().mean()) for s in spikes]
    assert steps.rates[""] == whole.rates[""] == expected
    assert steps.potentials[""].shape == x.shape


@pytest.mark.parametrize(
    ("net", "asked", "said"),
    [
        (nn.Linear(2, 2), {}, "has no LIF and no EMPF neurons"),
        (fastsnn.LIF(step_mode="m"), {"potentials": True}, "has step_mode 'm'"),
        (fastsnn.LIF.for_rule("sltt"), {"traces": True}, "no neuron of net makes a trace"),
    ],
)
def test_what_cannot_be_recorded_is_said(net, asked, said):
    with pytest.raises(ValueError, match=said):
        fastsnn.record(net, **asked)


def test_a_plot_shows_what_was_recorded_of_one_sample():
    pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")
    net, x = network(nn.Linear(6, 6), fastsnn.LIF.for_rule("sltt", v_threshold=0.3)), torch.randn(4, 7, 5)
    with fastsnn.record(net, traces=True, spikes=True) as seen:
        for x_t in x:
            net(x_t)
    figure = seen.plot(sample=2)
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == [f"{layer}: {what}" for layer in "13" for what in ("firing rate", "spikes", "trace a")]
    assert [*panels["3: firing rate"].get_lines()[0].get_ydata()] == seen.rates["3"]
    raster, traces = (panels[f"1: {what}"].get_images()[0].get_array() for what in ("spikes", "trace a"))
    assert_close(torch.as_tensor(raster.data), seen.spikes["1"][:, 2].double().T)
    assert_close(torch.as_tensor(traces.data), seen.traces["1"][:, 2].double().T)
    assert not panels["3: trace a"].get_images()  # the rule makes none
    with pytest.raises(ValueError, match=r"sample is 7; spikes was recorded of 7, so it must be in 0\.\.6"):
        seen.plot(7)
    with pytest.raises(ValueError, match="nothing was recorded"):
        fastsnn.record(net).plot()
