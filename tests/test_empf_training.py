"""EM-PF from the command line, and the separable share."""

import json

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import cli
from fastsnn.online import SeparableShare
from fastsnn.train import experiment

from .test_cli import assert_same_run

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
pytest.importorskip("matplotlib", reason="curves.png is drawn by matplotlib")
pytest.importorskip("rich", reason="progress is shown by rich")

TINY = {"rule": "empf", "steps": 2, "epochs": 1, "batch_size": 256, "backward_steps": 1}
LAYERS = {"2", "3.neuron1", "3.neuron2", "4.neuron1", "4.neuron2"}


@pytest.fixture(autouse=True)
def default_backend():
    yield
    fastsnn.use_backend(None)


@pytest.mark.parametrize("version", ["I", "II", "III"])
def test_train_writes_the_run_folder(version, tmp_path, capsys):
    run = tmp_path / "run"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    assert cli.main(["train", *options, "--version", version, "--seca", "I", "--out", str(run)]) == 0
    assert "test accuracy" in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["config"]["version"], metrics["config"]["seca"]) == (version, "I")
    (epoch,) = metrics["epochs"]
    assert epoch["separable_shares"].keys() == epoch["firing_rates"].keys() == LAYERS
    assert all(0 < share <= 1 for share in epoch["separable_shares"].values())
    rates = epoch["firing_rates"].values()
    assert any(rates)
    assert max(rates) < 1
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "potentials.png").exists() == (version != "III")


@pytest.mark.parametrize("version", ["I", "II"])
def test_a_resumed_run_is_bitwise_the_same(version, tmp_path):
    config = experiment.Config.of(**TINY, version=version, seca="II")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert experiment.Experiment(config, whole).run()
    stopped = experiment.Experiment(config, parts)
    assert not stopped.run(lambda run: setattr(run, "stop", run.progress.batch == 2))
    torch.manual_seed(99)
    assert experiment.Experiment.resume(parts).run()
    assert_same_run(whole, parts)


def test_binary_weights_that_are_nan_stop_a_run_and_nothing_is_lost(tmp_path, capsys):
    run = experiment.Experiment(experiment.Config.of(**TINY), tmp_path)
    run.net[3].conv1.weight.data[0, 0, 0, 0] = torch.nan
    run.save()
    before = (tmp_path / experiment.CHECKPOINT).read_bytes()
    assert cli.main(["train", "--resume", str(tmp_path)]) == 1
    assert "training stopped in epoch 1 (weight holds NaN or infinite values" in capsys.readouterr().err
    assert (tmp_path / experiment.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "empf", "--data", "sequential-digits"], "use it with --data digits"),
        (["--rule", "ottt", "--version", "II"], "use --rule empf in place of ottt"),
        (["--seca", "I"], "use --rule empf in place of ottt"),
        (["--weights", "float"], "use --rule empf in place of ottt"),
        (["--parallel"], "use --rule empf in place of ottt"),
        (["--rule", "empf", "--backward-steps", "7"], "--backward-steps is 7; it must be in 1..T = 6"),
        (["--rule", "bptt", "--backward-steps", "1"], "leave out --backward-steps"),
    ],
)
def test_bad_arguments_are_named(arguments, said, tmp_path, capsys):
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["s", "m"])
def test_separable_share_counts_neurons_that_fire_always_or_never(mode):
    net = nn.Sequential(nn.Identity(), fastsnn.EMPF(3, "III", threshold=1.0, step_mode=mode))
    above, below = 2.0, 0.5
    x = torch.tensor([[above, below, above, below], [above, below, below, below], [above, below, below, above]])
    with SeparableShare(net) as share:
        for _ in range(2):
            fastsnn.reset(net)
            if mode == "m":
                net(x)
            else:
                for x_t in x:
                    net(x_t)
    fastsnn.reset(net)
    assert share.shares() == {"1": 0.5}
    net(x if mode == "m" else x[0])
    assert share.shares() == {"1": 0.5}


def test_separable_share_of_an_unfinished_sequence_is_not_reported():
    net = nn.Sequential(fastsnn.EMPF(3))
    with SeparableShare(net) as share:
        net(torch.ones(4))
    assert share.shares() == {}
