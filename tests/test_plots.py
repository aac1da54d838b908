"""What the figures of a run show."""

import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fastsnn.train import experiment, plots

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")

RULES = ["rptt", "osbp", "bptt", "osr+ots", "empf"]


@pytest.fixture(scope="module", params=RULES)
def run(request, tmp_path_factory):
    """A run of two epochs."""
    data = {"data": "digits", "steps": 3} if request.param == "empf" else {"data": "sequential-digits"}
    config = experiment.Config.of(**data, rule=request.param, epochs=2, batch_size=512)
    trained = experiment.Experiment(config, tmp_path_factory.mktemp("run"))
    assert trained.run()
    return trained


def panels(figure):
    return {axis.get_title(): axis for axis in figure.axes}


def lines(axis):
    return {line.get_label(): line.get_ydata() for line in axis.get_lines()}


def shown_by_name(metrics, name):
    """The values of every layer over the epochs."""
    epochs = metrics["epochs"]
    return {f"module {layer}": [row[name][layer] for row in epochs] for layer in epochs[-1][name]}


def test_z_scores_of_every_layer_and_step_are_in_the_metrics_and_shown(run):
    metrics = run.metrics()
    axes = panels(plots.curves(metrics, run.potentials()))
    title = "Z = (threshold - mean of u)/std of u"
    if run.config.rule not in ("rptt", "osbp", "bptt"):
        assert "z_scores" not in metrics["epochs"][-1]
        assert title not in axes
        return
    z_scores = metrics["epochs"][-1]["z_scores"]
    assert [*z_scores] == [*run.neurons]
    u = run.potentials().layers
    for name, of_steps in z_scores.items():
        assert_allclose(of_steps, (1 - u[name].mean(1)) / u[name].std(1, correction=0), rtol=1e-4)
    found = lines(axes[title])
    assert found.keys() == {"t = 1", "t = 8"}
    assert [text.get_text() for text in axes[title].get_xticklabels()] == [*run.neurons]
    assert_allclose(found["t = 1"], [z[0] for z in z_scores.values()])
    assert_allclose(found["t = 8"], [z[7] for z in z_scores.values()])


def test_separable_shares_are_in_the_metrics_and_shown(run):
    metrics = run.metrics()
    axes = panels(plots.curves(metrics, run.potentials()))
    title = "separable share (fires at all steps or none)"
    if run.config.rule != "empf":
        assert metrics["epochs"][-1]["separable_shares"] == {}
        assert title not in axes
        return
    expected = shown_by_name(metrics, "separable_shares")
    assert expected.keys() == {f"module {name}" for name in run.neurons}
    found = lines(axes[title])
    assert found.keys() == expected.keys()
    for layer, values in expected.items():
        assert_allclose(found[layer], values)


def test_loss_accuracy_and_rates(run):
    metrics = run.metrics()
    axes = panels(plots.curves(metrics, run.potentials()))
    for title, name in {"loss (sum over T)": "loss", "accuracy": "accuracy"}.items():
        for split, values in lines(axes[title]).items():
            assert_allclose(values, [row[f"{split}_{name}"] for row in metrics["epochs"]])
    rates = lines(axes["firing rate (spikes per neuron and step)"])
    for layer, values in shown_by_name(metrics, "firing_rates").items():
        assert_allclose(rates[layer], values)


def test_histograms_of_every_layer_and_step(run):
    potentials = run.potentials()
    rule, steps = run.config.rule, run.config.steps
    assert potentials.kind == ("v after reset" if rule == "empf" else "u before reset")
    assert potentials.threshold == (None if rule in ("empf", "osr+ots") else 1.0)
    figure = plots.histograms(potentials)
    axes = panels(figure)
    assert figure.get_supxlabel() == f"potential {potentials.kind}"
    assert figure.get_supylabel() == "density"
    assert len({axis.get_xlim() for axis in axes.values()}) == 1
    assert axes.keys() == {f"module {name}, t = {t}" for name in run.neurons for t in range(1, steps + 1)}
    for name, values in potentials.layers.items():
        for t in range(steps):
            axis = axes[f"module {name}, t = {t + 1}"]
            expected, edges = np.histogram(values[t].double().numpy(), 100, density=True)
            (outline,) = axis.patches
            corners = outline.get_xy()  # up and down again at every edge
            assert_allclose(corners[1:-1:2, 1], expected)
            assert_allclose(corners[::2, 0], edges)
            thresholds = [line.get_xdata()[0] for line in axis.get_lines()]
            assert thresholds == ([] if potentials.threshold is None else [1.0])


def test_potentials_are_those_of_the_steps(run):
    """Against the network run by hand."""
    potentials = run.potentials()
    ((x, _),) = run.data.test_batches(run.config.steps)
    experiment.reset(run.net.eval())
    before = dict.fromkeys(run.neurons, 0.0)
    currents = {}
    hooks = [
        neuron.register_forward_pre_hook(lambda _, inputs, name=name: currents.update({name: inputs[0]}))
        for name, neuron in run.neurons.items()
    ]
    with torch.no_grad():
        for t, x_t in enumerate(x):
            run.net(x_t)
            for name, neuron in run.neurons.items():
                u = neuron.v if run.config.rule == "empf" else 0.5 * before[name] + currents[name]
                assert torch.equal(potentials.layers[name][t], u.flatten())
                before[name] = neuron.v
    for hook in hooks:
        hook.remove()
    experiment.reset(run.net.train())


def test_potentials_that_are_not_finite_are_left_out(run):
    potentials = run.potentials()
    (first, values), *_ = potentials.layers.items()
    broken = values.clone()
    broken[0, :5] = torch.nan
    broken[1] = torch.inf
    axes = panels(plots.histograms(potentials._replace(layers={first: broken})))
    expected, _ = np.histogram(values[0, 5:].double().numpy(), 100, density=True)
    assert_allclose(axes[f"module {first}, t = 1"].patches[0].get_xy()[1:-1:2, 1], expected)
    assert not axes[f"module {first}, t = 2"].patches


def test_without_matplotlib_the_remedy_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(experiment.RunError, match=r"pip install 'fastsnn\[train\]'"):
        plots.curves(run.metrics(), run.potentials())
