"""The command line: runs, run folders, interruption and resuming."""

import errno
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from torch.testing import assert_close

import fastsnn
from fastsnn import backends, cli, graphs, names
from fastsnn.nn import LIF, plain
from fastsnn.nn.osr import OSR, VanillaBN
from fastsnn.train import config, experiment
from fastsnn.train.potentials import Distribution, charged

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
pytest.importorskip("matplotlib", reason="curves.png is drawn by matplotlib")
pytest.importorskip("rich", reason="progress is shown by rich")

SHORT = ["train", "--data", "sequential-digits", "--epochs", "2", "--batch-size", "256"]


@pytest.fixture(autouse=True)
def default_backend():
    yield
    fastsnn.use_backend(None)


def weights(folder):
    return torch.load(folder / experiment.CHECKPOINT, weights_only=True)["trainer"]["net"]


def assert_same_run(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for one, other in zip(epochs(a), epochs(b), strict=True):
        timing = ("seconds", "samples_per_second")
        assert {k: v for k, v in one.items() if k not in timing} == {k: v for k, v in other.items() if k not in timing}


def epochs(folder):
    return json.loads((folder / "metrics.json").read_text())["epochs"]


def test_train_writes_the_run_folder(tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main([*SHORT, "--seed", "3", "--out", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "test accuracy" in shown
    assert "firing rates" in shown
    figures = {"curves.png", "potentials.png", "spikes.png"}
    assert {p.name for p in run.iterdir()} == {"best.pt", "checkpoint.pt", "config.json", "metrics.json"} | figures
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["complete"]
    assert metrics["backend"] == "cpu"
    assert metrics["config"]["seed"] == 3
    assert [row["epoch"] for row in metrics["epochs"]] == [1, 2]
    assert metrics["epochs"][1]["train_loss"] < metrics["epochs"][0]["train_loss"]
    assert all(0 < rate < 1 for rate in metrics["epochs"][1]["firing_rates"].values())
    assert all((run / name).read_bytes().startswith(b"\x89PNG") for name in figures)


@pytest.mark.slow
def test_the_main_job_reaches_its_accuracy(tmp_path):
    run = tmp_path / "run"
    assert cli.main(["train", "--out", str(run)]) == 0
    assert epochs(run)[-1]["test_accuracy"] >= 0.985


def test_a_seed_gives_the_same_run(tmp_path):
    for name in ("a", "b"):
        assert cli.main([*SHORT, "--out", str(tmp_path / name)]) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("rule", [rule for rule in experiment.RECIPES if rule != "empf"])
def test_every_rule_trains(rule, tmp_path):
    run = tmp_path / rule
    # under OSR+OTS nothing fires before some batches have moved the running statistics
    batch = "64" if rule == "osr+ots" else "256"
    assert cli.main([*SHORT, "--rule", rule, "--batch-size", batch, "--out", str(run)]) == 0
    assert epochs(run)[-1]["test_accuracy"] > 0.2


def test_osbp_is_sltt_with_an_update_at_every_step(tmp_path):
    for rule in ("osbp", "sltt", "osbp+stgr", "osbp+mpdr"):
        assert cli.main([*SHORT, "--rule", rule, "--out", str(tmp_path / rule)]) == 0
    assert_same_run(tmp_path / "osbp", tmp_path / "sltt")
    trained = [weights(tmp_path / rule)["6.bias"] for rule in ("osbp", "osbp+stgr", "osbp+mpdr")]
    assert not any(torch.equal(trained[a], trained[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_rptt_tells_its_distributions(tmp_path):
    run = tmp_path / "run"
    assert cli.main([*SHORT, "--rule", "rptt", "--out", str(run)]) == 0
    row = epochs(run)[-1]
    for name in ("z_scores", "mpdr_loss"):
        assert [len(steps) for steps in row[name].values()] == [8, 8]
        assert row[name].keys() == row["firing_rates"].keys()
    # N(-60, 10): (m + 60)^2/20 is most of it
    assert all(100 < value < 300 for steps in row["mpdr_loss"].values() for value in steps)
    saved = torch.load(run / experiment.CHECKPOINT, weights_only=True)["trainer"]["optimizer"]
    assert saved["epoch"] == 2
    net = experiment.Experiment.resume(run)
    assert [neuron.mpdr.weight for neuron in net.neurons.values()] == [0.002, 0.002]


@pytest.mark.parametrize("data", ["digits", "sequential-digits"])
@pytest.mark.parametrize(("rule", "norms"), [("bn", VanillaBN), ("osr", OSR), ("osr+ots", OSR)])
def test_every_layer_is_normalised_and_stabilised_as_the_rule_says(data, rule, norms, tmp_path):
    run = experiment.Experiment(experiment.Config.of(data=data, rule=rule), tmp_path)
    found = [module for module in run.net.modules() if isinstance(module, OSR)]
    assert len(found) == len(run.neurons) == (3 if data == "digits" else 2)
    assert all(type(module) is norms and module.steps == run.config.steps for module in found)
    assert all((neuron.stabilizer is not None) == (rule == "osr+ots") for neuron in run.neurons.values())


def test_osr_folds_each_batch_in_and_ots_has_no_one_threshold(tmp_path):
    for rule in experiment.OSR_ABLATION:
        assert cli.main([*SHORT, "--rule", rule, "--out", str(tmp_path / rule)]) == 0
    assert int(weights(tmp_path / "osr")["1.norm.num_batches_tracked"]) == 2 * 6
    assert int(weights(tmp_path / "bn")["1.num_batches_tracked"]) == 2 * 6
    assert not torch.equal(*(weights(tmp_path / rule)["4.bias"] for rule in ("osr", "osr+ots")))
    assert epochs(tmp_path / "osr")[-1]["z_scores"].keys() == {"1.neuron", "3.neuron"}
    assert "z_scores" not in epochs(tmp_path / "osr+ots")[-1]
    assert experiment.Experiment.resume(tmp_path / "osr").threshold == 1.0
    assert experiment.Experiment.resume(tmp_path / "osr+ots").threshold is None


@pytest.mark.parametrize("store_v_seq", [False, True])
@pytest.mark.parametrize("rule", ["ottt", "bptt", "alif"])
def test_the_potentials_seen_are_those_before_the_reset(rule, store_v_seq):
    neuron, seen = LIF.for_rule(rule, store_v_seq=store_v_seq), []
    experiment._each_potential(neuron, lambda u: seen.append(u.clone()))
    for x in torch.randn(4, 2, 50):
        expected = charged(neuron, x)
        fired = plain(neuron(x))
        assert_close(seen[-1], expected, rtol=0, atol=0)
        assert torch.equal(seen[-1] >= neuron.v_threshold, fired != 0)
    assert len(seen) == 4


def test_the_moments_of_batches_are_those_of_all():
    u = 100 + torch.randn(2, 300, 7, dtype=torch.float64)
    seen = Distribution(2)
    for batch in u.split([10, 250, 40], 1):
        for u_t in batch:
            seen.add(u_t)
    assert_close(seen.rows()[:, 0], u.mean((1, 2)), rtol=1e-14, atol=0)
    assert_close(seen.rows()[:, 1], u.var((1, 2), correction=0), rtol=1e-12, atol=0)
    expected = ((1 - u.mean((1, 2))) / u.std((1, 2), correction=0)).tolist()
    assert seen.z_score(1.0) == pytest.approx(expected)
    silent = Distribution(1)
    silent.add(torch.zeros(5))
    assert silent.z_score(1.0) == [None]


def test_a_forced_backend_runs(tmp_path):
    run = tmp_path / "run"
    arguments = ["train", "--data", "sequential-digits", "--epochs", "1", "--batch-size", "512"]
    assert cli.main([*arguments, "--backend", "reference", "--out", str(run)]) == 0
    assert json.loads((run / "metrics.json").read_text())["backend"] == "reference"


@pytest.mark.parametrize("after", [1, 6, 9])
@pytest.mark.parametrize("rule", ["ottt", "rptt", "osr+ots"])
def test_a_stopped_run_resumes_bitwise(rule, after, tmp_path):
    """Stopped in the first epoch, at its end, and in the second epoch."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = experiment.Config.of(data="sequential-digits", epochs=2, batch_size=256, rule=rule)
    for folder in (whole, parts):
        folder.mkdir()
    assert experiment.Experiment(config, whole).run()
    stopped = experiment.Experiment(config, parts)
    seen = []

    def stop(run):
        seen.append(run.progress.batch)
        run.stop = len(seen) == after

    assert not stopped.run(stop)
    torch.manual_seed(99)
    assert experiment.Experiment.resume(parts).run()
    assert_same_run(whole, parts)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_interrupt_leaves_a_checkpoint_to_resume(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fastsnn", "train", "--data", "sequential-digits", "--epochs", "400"]
    with subprocess.Popen([*command, "--out", str(run)], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not (run / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"fastsnn train --resume {run}" in shown
    assert experiment.Experiment.resume(run).progress.epoch >= 1


def test_info_says_why(capsys):
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    assert fastsnn.__version__ in shown
    assert "backend cpu        available" in shown
    assert re.search(r"backend cuda +\S", shown)
    assert re.search(r"backend triton +\S", shown)
    assert fastsnn._cpu.isa() in shown
    assert re.search(r"threads +\d+, which (sleep|spin) while they wait", shown)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "bptt", "--mode", "O"], "use it with --mode A"),
        (["--rule", "rptt", "--mode", "A"], "leave out --mode A"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--batch-size", "-1"], "--batch-size is -1"),
        (["--lr", "nan"], "--lr is nan"),
        (["--data", "sequential-digits", "--steps", "5"], "8 rows"),
        (["--device", "meta"], "--device meta cannot be used"),
        (["--device", "nonsense"], "--device nonsense cannot be used"),
    ],
)
def test_bad_arguments_are_named(arguments, said, tmp_path, capsys):
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_backend_that_cannot_run_is_refused(tmp_path, capsys):
    assert cli.main(["train", "--backend", "cuda", "--out", str(tmp_path / "run")]) == 1
    assert "the cuda backend takes CUDA tensors and this one is on cpu" in capsys.readouterr().err


def test_a_folder_in_use_is_not_touched(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    assert cli.main(["train", "--out", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_help_needs_no_torch():
    program = "import sys, fastsnn.cli; fastsnn.cli.parser().format_help(); print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("arguments", [["info"], ["bench", "--help"], ["load", "no-such-file"]])
def test_something_is_said_before_torch_is_there(arguments):
    program = f"import sys; sys.modules['torch'] = None; from fastsnn import cli; cli.main({arguments})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.startswith(f"fastsnn {fastsnn.__version__}: loading torch\n")


def test_threads_of_a_training_sleep_while_they_wait(tmp_path):
    program = (
        "import os, sys; sys.modules['torch'] = None; from fastsnn import cli; "
        f"cli.main(['train', '--out', {str(tmp_path / 'run')!r}]); print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "passive"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_memory_that_a_training_frees_serves_its_next_tensors(tmp_path):
    program = (
        "import resource, sys, numpy; sys.modules['torch'] = None; from fastsnn import cli\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): [numpy.ones(9_000_000), numpy.ones(5_000_000)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        f"cli.main(['info']); old = faults(); cli.main(['train', '--out', {str(tmp_path / 'run')!r}])\n"
        "faults(); print(old, faults())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    old, new = map(int, done.stdout.split())
    assert new < old / 10


def test_names_that_need_no_torch_are_those_of_the_library():
    assert {*config.WEIGHTS} == {*experiment.CONVOLUTIONS}
    assert [*names.BACKENDS] == [*backends.REGISTRY]


def lazily(expression):
    """`expression` in a process that imported fastsnn alone."""
    program = f"import sys, fastsnn; assert 'torch' not in sys.modules; print({expression})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_public_name_is_found_before_torch_is():
    assert lazily("[name for name in fastsnn.__all__ if getattr(fastsnn, name) is None]") == "[]"
    assert lazily("{*fastsnn.__all__} - {*dir(fastsnn)}") == "set()"
    assert lazily("fastsnn.nn.LIF is fastsnn.LIF and fastsnn.backends.BackendError is fastsnn.BackendError") == "True"
    assert lazily("hasattr(fastsnn, 'nonsense') or hasattr(fastsnn, 'version')") == "False"


def test_torchs_compiler_is_left_to_those_who_compile():
    program = (
        "import sys, torch; before = 'torch._dynamo' in sys.modules; import fastsnn; fastsnn.LIF()(torch.ones(3)); "
        "print('torch._dynamo' in sys.modules and not before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_constant_of_a_graph_is_marked_as_torch_marks_it():
    marked = torch.compiler.assume_constant_result(lambda: 0)
    assert vars(marked)
    assert vars(graphs.constant(lambda: 0)) == vars(marked)


def test_operators_are_registered_with_the_package_where_torch_is_there():
    program = "import torch, fastsnn; print(torch.ops.fastsnn.lif_forward)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_start_that_fails_leaves_no_folder(tmp_path, capsys):
    (tmp_path / "kept").mkdir()
    for folder in ("kept", "new/run"):
        assert cli.main(["train", "--backend", "cuda", "--out", str(tmp_path / folder)]) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_a_folder_that_cannot_be_written_is_refused_before_any_training(tmp_path, monkeypatch, capsys):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert cli.main([*SHORT, "--out", str(tmp_path / "new" / "run")]) == 1
    said = capsys.readouterr()
    assert f"cannot write into {tmp_path / 'new' / 'run'} (No space left on device)" in said.err
    assert "epoch" not in said.out
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_of_a_run_follow_the_umask(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        experiment.write_json(path, {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_run_is_extended(tmp_path, capsys):
    run, learning_rates = tmp_path / "run", []
    assert cli.main([*SHORT, "--out", str(run)]) == 0
    assert cli.main(["train", "--resume", str(run), "--epochs", "2"]) == 1
    assert "has trained 2 epochs" in capsys.readouterr().err
    longer = experiment.Experiment.resume(run, epochs=4)
    assert longer.run(lambda at: learning_rates.append(at.trainer.optimizer.param_groups[0]["lr"]))
    assert [row["epoch"] for row in epochs(run)] == [1, 2, 3, 4]
    expected = [0.1 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in (2, 3)]
    assert sorted({*learning_rates}, reverse=True) == pytest.approx(expected)
    assert experiment.Experiment.resume(run).config.epochs == 4


def test_resume_takes_no_other_options(tmp_path, capsys):
    assert cli.main(["train", "--resume", str(tmp_path), "--lr", "1"]) == 1
    assert "leave out --lr" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "other format"])
def test_an_unreadable_checkpoint_is_named(damage, tmp_path, capsys):
    path = tmp_path / experiment.CHECKPOINT
    if damage == "truncated":
        torch.save({"format": 1, "rng": torch.get_rng_state()}, path)
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "foreign":
        torch.save([1, 2], path)
    elif damage == "other format":
        torch.save({"format": 99}, path)
    assert cli.main(["train", "--resume", str(tmp_path)]) == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="the file size limit stands in for a full disk")
def test_a_full_disk_keeps_the_checkpoint_from_before(tmp_path):
    program = f"""
import pathlib, resource, torch
from fastsnn.train import experiment
config = experiment.Config.of(data="sequential-digits", epochs=2, batch_size=512)
run = experiment.Experiment(config, pathlib.Path({str(tmp_path)!r}))
run.save()
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    run.run()
except experiment.RunError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "the file from before, if any, is unchanged" in done.stdout
    assert experiment.Experiment.resume(tmp_path).progress.epoch == 0
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
