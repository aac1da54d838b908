"""Recipes: every published row runs end to end on small files of its data set's format; wrong ones are refused."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from fastsnn import cli, recipes
from fastsnn.errors import RunError
from fastsnn.models.style import NORMS
from fastsnn.train import experiment

from .data import files

pytest.importorskip("sklearn", reason="fastsnn train needs it")
pytest.importorskip("torchvision", reason="pip install 'fastsnn[vision]'")
pytest.importorskip("rich", reason="progress is shown by rich")

ALL = recipes.list_recipes()
NARROW = "model_options.widths=[4, 4, 8, 8]"
SMALLER = {  # how the widest networks become small enough for a test
    **{name: [NARROW] for name in ("preact_resnet18", "empf_resnet18", "empf_resnet34")},
    **{name: [NARROW] for name in ("nf_resnet34", "sew_resnet34", "ms_resnet34")},
    "spiking_resnet19": ["model_options.widths=[8, 8, 8]"],
}


def gestures(root):
    folder = root / "DVSGesture" / "DvsGesture"
    for user, split in ((1, "train"), (2, "test")):
        name = f"user{user:02}_led"
        x, y, on, t = files.events(400)
        files.aedat3(folder / f"{name}.aedat", x, y, on, t)
        rows = "\n".join(f"{k},{k * 80_000},{k * 80_000 + 79_999}" for k in range(1, 12))
        (folder / f"{name}_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n{rows}\n")
        (folder / f"trials_to_{split}.txt").write_text(f"{name}.aedat\n")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """All data sets, a few samples each."""
    root = tmp_path_factory.mktemp("data")
    files.cifar10(root, 2)
    files.cifar100(root, 10)
    files.fashion_mnist(root, 10)
    files.image_folders(root, [f"n{i:04}" for i in range(200)], 1, (12, 12))
    (root / "classes.txt").write_text("\n".join(f"n{i:04}" for i in range(200)))
    for name in ("airplane", *(f"class{i}" for i in range(9))):
        for k in range(2):
            files.aedat2(root / "CIFAR10DVS" / name / f"{k}.aedat", *files.events(100))
    gestures(root)
    return root


def settings(recipe, root):
    """Small steps, images and widths; the row's rule, norm, loss and optimizer stay."""
    small = [*SMALLER.get(recipe.model, [])]
    if recipe.data.startswith("imagenet"):
        few = json.dumps([f"n{i:04}" for i in range(4)]) if recipe.data == "imagenet" else str(root / "classes.txt")
        small += [f"data_options.class_list={few}", "data_options.size=32"]
    if recipe.data == "dvs128-gesture":
        small += ["data_options.size=16"]
    small += ["steps=2"]
    if "temporal_delete" in recipe.data_options.get("augment", ()):
        small += ["steps=3", "model_options.steps=2", "data_options.augment={rotation: 20, temporal_delete: 2}"]
    if recipe.ftrl is not None:
        small += ["ftrl.rho=0.001"]
    return small


def train(recipe, root, out, *more):
    chosen = [part for setting in settings(recipe, root) for part in ("--set", setting)]
    few = ("--epochs", "1", "--batch-size", "100" if recipe.data == "imagenet-200" else "5")
    return cli.main(
        ["train", "--recipe", recipe.name, "--data-root", str(root), *few, *chosen, *more, "--out", str(out)]
    )


def traits(recipe):
    """What makes a row's path through the code its own."""
    wholes = {(recipe.model, recipe.norm), (recipe.data, recipe.optimizer), (recipe.rule, recipe.mode), recipe.init}
    return wholes | {name for name in ("mpdr", "stgr", "ftrl") if getattr(recipe, name) is not None}


def rows():
    """Every recipe; those that have nothing of their own beside the rows before are slow."""
    seen, found = set(), []
    for recipe in ALL:
        marks = pytest.mark.slow if traits(recipe) <= seen else ()
        found.append(pytest.param(recipe, id=recipe.name, marks=marks))
        seen |= traits(recipe)
    return found


@pytest.mark.parametrize("recipe", rows())
def test_every_recipe_runs_end_to_end(recipe, root, tmp_path, capsys):
    more = []
    if recipe.init is not None:
        first = next(one for one in ALL if recipe.init.split()[0] == one.name)
        assert train(first, root, tmp_path / "first") == 0
        more = ["--init", str(tmp_path / "first")]
    assert train(recipe, root, tmp_path / "run", *more) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    [row] = metrics["epochs"]
    assert metrics["complete"]
    assert metrics["config"]["name"] == recipe.name
    assert row["train_loss"] > 0
    steps = metrics["config"]["steps"]
    assert all(len(rates) == steps for rates in row["step_rates"].values())
    assert f"the paper reports {recipe.accuracy:.2f} % for its settings" in capsys.readouterr().out
    resumed = experiment.Experiment.resume(tmp_path / "run", epochs=2)
    assert resumed.progress.epoch == 1


def test_every_recipe_says_where_it_stands_and_what_it_does_not_know():
    fields = recipes.TYPES
    for recipe in ALL:
        assert recipe.accuracy is not None
        assert recipe.paper
        assert {key.partition(".")[0] for keys in recipe.unstated for key in keys.split(", ")} <= fields.keys()
    assert set(recipes.NORMS) == set(NORMS)
    rows = {"ottt-vgg-cifar10", "rptt-nfresnet34-imagenet", "ftrl-ottt-vgg-cifar100", "sltt-stgr-mpdr-resnet18-cifar10"}
    assert rows <= {recipe.name for recipe in ALL}


ABLATION = {  # weight decay in Zhu et al. 2024, table 4, of CIFAR-10, CIFAR-100, ImageNet
    "vgg": {"bn": (5e-4, 5e-4), "osr": (2e-4, 2e-4), "osrots": (5e-4, 5e-4)},
    "resnet19": {"bn": (2e-5, 2e-4), "osr": (2e-5, 2e-5), "osrots": (2e-5, 2e-4)},
}
RPTT = {  # a1, a2, epochs, lr, weight decay: RPTT, A.2.4
    "resnet18-cifar10": (0.002, 0.006, 200, 0.1, 5e-5),
    "resnet18-cifar100": (0.0035, 0.009, 200, 0.1, 5e-5),
    "vgg11-cifar10dvs": (0.0035, 0.009, 300, 0.05, 5e-4),
    "nfresnet34-imagenet": (0.0006, 0.003, 30, 0.001, 0.0),
}
EMPF = {  # version, parallel, batch size, epochs: Hao et al. 2024, table S1
    "resnet18-cifar10": ("I", True, 64, 300),
    "resnet18-cifar10-seca": ("II", True, 64, 300),
    "resnet18-cifar100-seca": ("II", True, 64, 300),
    "resnet34-imagenet": ("I", True, 256, 120),
    "resnet18-cifar10dvs": ("II", False, 32, 300),
    "vgg13-imagenet200": ("I", None, 64, 300),
    "vgg13-imagenet200-seca": ("II", None, 64, 300),
    "vggsnn-cifar10dvs": ("II", None, 32, 300),
}


def test_settings_are_those_of_the_papers():
    for network, rows in ABLATION.items():
        for norm, decays in rows.items():
            for data, decay in zip(("cifar10", "cifar100"), decays, strict=True):
                assert recipes.read(f"{norm}-{network}-{data}").weight_decay == decay, (norm, network, data)
    for norm, decay in (("bn", 2e-5), ("osr", 0.0), ("osrots", 2e-5)):
        assert recipes.read(f"{norm}-sewresnet34-imagenet").weight_decay == decay
    for name, values in RPTT.items():
        row = recipes.read(f"rptt-{name}")
        assert (row.mpdr["weight"], row.stgr["a2"], row.epochs, row.lr, row.weight_decay) == values, name
    for name, values in EMPF.items():
        row = recipes.read(f"empf-{name}")
        options = row.model_options
        assert (options["version"], options.get("parallel"), row.batch_size, row.epochs) == values, name
        assert (row.lr, row.weight_decay) == (0.01, 5e-4)
    mixed = {"cifar10": 0.05, "cifar100": 0.05, "cifar10-dvs": 0.1}  # NDOT, table 2; OTTT, C.2.2
    for row in ALL:
        if row.rule == "ndot":
            assert row.mse == mixed[row.data], row.name
        if row.rule == "ottt" and row.data.startswith("cifar10") and row.ftrl is None:
            assert row.mse == (0.001 if row.data == "cifar10-dvs" else 0.05), row.name


def test_recipes_are_listed_without_torch(capsys):
    assert cli.main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(recipe.name in shown and f"{recipe.accuracy:.2f} %" in shown for recipe in ALL)
    program = "import sys; sys.modules['torch'] = None; from fastsnn import cli; cli.main(['recipes'])"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def refused(capsys, tmp_path, *arguments):
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 1
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "ottt-vgg-cifar1"], "recipe is 'ottt-vgg-cifar1'; did you mean ottt-vgg-cifar10"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "lrr=1"], "--set is 'lrr'; did you mean lr?"),
        (
            ["--recipe", "rptt-resnet18-cifar10", "--set", "mpdr.waight=1"],
            "a key of mpdr is 'waight'; did you mean weight",
        ),
        (["--recipe", "ottt-vgg-cifar10", "--set", "lr"], "--set lr is no key=value"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "lr=fast"], "lr is 'fast'; it must be of type float or int"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "lr=[1"], "--set lr=[1: '[1' is no YAML"),
        (["--recipe", "ottt-vgg-cifar10", "--set", f"seed={2**70}"], "it must be in -2^63..2^64-1"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "decay_every=3"], "'step' takes decay_every and decay_by, 'cosine'"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "model_options.rule=bptt"], "set the recipe's own rule"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "data_options.root=x"], "give --data-root"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "clip=0"], "clip is 0; it must be positive"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "clip=.nan"], "clip is nan; it must be positive"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "decay_by=-2.0"], "decay_by is -2.0; it must be in 0..1"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "steps=null"], "steps is None; it must be of type int"),
        (["--recipe", "ottt-vgg-cifar10", "--set", "rule=bptt"], "it goes back through all steps at once: use mode A"),
        (["--recipe", "ndot-vgg-cifar10", "--set", "norm=osr+ots"], "it takes rule sltt or ottt and rule is 'ndot'"),
        (["--recipe", "empf-resnet18-cifar10", "--set", "norm=osr"], "EM-PF networks have batch norms of their own"),
        (["--recipe", "ottt-vgg-cifar10", "--rule", "sltt"], "--rule is of the digits"),
        (["--recipe", "ottt-vgg-cifar10"], "data cifar10 needs root (--data-root ROOT)"),
        (["--recipe", "rptt-nfresnet34-imagenet"], "it begins with the weights of sltt-nfresnet34-imagenet"),
        (["--recipe", "ftrl-ottt-vgg-cifar100"], "the paper does not say rho"),
        (["--recipe", "mine.yaml"], "recipe mine.yaml cannot be read"),
        (["--model", "vgg"], "--model is for --recipe"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(arguments, said, tmp_path, capsys):
    assert said in refused(capsys, tmp_path, *arguments)


def test_a_missing_set_says_how_to_lay_it_out(tmp_path, capsys):
    said = refused(capsys, tmp_path, "--recipe", "ottt-vgg-cifar10", "--data-root", str(tmp_path))
    assert "lay it out as ROOT/cifar-10-batches-py/" in said
    assert "--download" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model_options.num_classes=7", "gives [2, 7] for two samples and cifar10 has 10 classes"),
        ("model_options.widht=7", "widht is no option of vgg"),
        ("model=vggg", "model is 'vggg'; allowed"),
        ("model=r400", ""),
        ("data_options.agument=[crop]", "did you mean augment?"),
        ("surrogate.name=Sigmod", "surrogate.name is 'Sigmod'; allowed: "),
        ("surrogate={alpha: 4.0}", "surrogate.name is None; allowed: "),
        ("model_options.num_classes=-1", "num_classes is -1; it must be a whole number of at least 1"),
        ("model_options.in_channels=2.0", "in_channels is 2.0; it must be a whole number of at least 1"),
        ("data_options.augment=crop", "augment is 'crop'; it must be a list of names"),
        ("data_options.augment=[[crop]]", "augment is [['crop']]; it must be a list of names"),
        ("data_options.workers=-1", "workers is -1; it must be a whole number"),
    ],
)
def test_networks_and_data_that_do_not_fit_are_refused(setting, said, root, tmp_path, capsys):
    arguments = ("--recipe", "ottt-vgg-cifar10", "--data-root", str(root), "--set", setting)
    if not said:  # a network for vectors takes images, flat
        assert cli.main(["train", *arguments, "--epochs", "1", "--set", "steps=2", "--out", str(tmp_path / "run")]) == 0
    else:
        assert said in refused(capsys, tmp_path, *arguments)


OWN = """
import torch
from torch import nn
import fastsnn

def net(num_classes, in_channels, steps, rule, width=4, norm="none of ours"):
    neuron = fastsnn.LIF.for_rule(rule)
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 16, width), neuron, nn.Linear(width, num_classes))

def silent(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(32, num_classes))

def maxima(num_classes):
    layers = nn.Conv2d(2, 4, 3, padding=1), fastsnn.LIF.for_rule("ottt"), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(16, num_classes))

def through_time(num_classes, in_channels, steps):
    return net(num_classes, in_channels, steps, "bptt")

def frozen(num_classes, in_channels, steps, rule):
    return net(num_classes, in_channels, steps, rule).requires_grad_(False)

def broken():
    raise KeyError("width")

class Unstable(nn.Module):
    def __init__(self):
        super().__init__()
        self.fire = fastsnn.LIF.for_rule("ottt")

    def forward(self, x):
        raise FloatingPointError("no root")

class Squares:
    classes = ["dark", "bright", "none"]

    def __init__(self, train, shade=1.0):
        self.shade = shade

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.full((2, 4, 4), self.shade * (index % 3)), index % 3
"""
MINE = """
paper: my own
rule: ottt
model: {module}:net
data: {module}:Squares
steps: 3
mode: O
epochs: 1
batch_size: 4
lr: 1e-2
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE.format(module="own_parts"))
    yield tmp_path
    sys.modules.pop("own_parts", None)


def test_ones_own_recipe_network_and_data(own, capsys):
    assert cli.main(["train", "--recipe", str(own / "mine.yaml"), "--out", str(own / "run")]) == 0
    assert json.loads((own / "run" / "config.json").read_text())["lr"] == 0.01
    changed = ("--set", "model_options.width=8", "--set", "data_options.shade=2.0", "--set", "model_options.norm=mine")
    assert cli.main(["train", "--recipe", str(own / "mine.yaml"), *changed, "--out", str(own / "wide")]) == 0
    weights = experiment.Experiment.resume(own / "wide").net.state_dict()
    assert weights["1.weight"].shape == (8, 32)
    given = ("--model", "own_parts:net", "--data", "own_parts:Squares", "--epochs", "1", "--batch-size", "4")
    assert cli.main(["train", "--recipe", "ottt-vgg-cifar10", *given, "--out", str(own / "mixed")]) == 0
    assert "own_parts:nett cannot be imported" in refused(
        capsys, own / "x", "--recipe", str(own / "mine.yaml"), "--model", "own_parts:nett"
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("silent", "own_parts:silent has no spiking neurons"),
        ("maxima", "max_pool2d() has no meaning on an eligibility trace"),
        ("through_time", "rule 'bptt' differentiates through all steps at once"),
        ("frozen", "RuntimeError: element 0 of tensors does not require grad"),
        ("broken", "own_parts:broken cannot be made (KeyError: 'width')"),
        ("Squares", "own_parts:Squares cannot be made"),
        ("Unstable", "cannot take a step of own_parts:Squares, ['N', 2, 4, 4] (FloatingPointError: no root)"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_any_training(own, model, said, capsys):
    assert said in refused(capsys, own, "--recipe", str(own / "mine.yaml"), "--model", f"own_parts:{model}")


def test_a_refusal_names_the_option_that_gave_the_file(own, capsys):
    assert f"--init: {own / 'none'} does not exist" in refused(
        capsys, own, "--recipe", str(own / "mine.yaml"), "--init", str(own / "none")
    )
    assert cli.main(["summary", str(own)]) == 1
    assert f"RUN: {own / 'checkpoint.pt'} does not exist" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(own), "--seed", "0"]) == 1
    assert "leave out --seed" in capsys.readouterr().err


def test_a_recipe_of_an_unknown_key_or_no_table_is_refused(own, capsys):
    for text, said in (
        (MINE.format(module="own_parts") + "weight_decy: 1\n", "is 'weight_decy'; did you mean weight_decay?"),
        ("paper: only\n", "lacks rule, model, data, steps, mode, epochs, batch_size, lr"),
        ("[1, 2]\n", "is a list; it must be a table of"),
        ("a: [\n", "is no YAML"),
    ):
        (own / "wrong.yaml").write_text(text)
        assert said in refused(capsys, own, "--recipe", str(own / "wrong.yaml"))


def test_checkpoints_of_another_recipe_or_network_are_refused(own, capsys):
    mine = str(own / "mine.yaml")
    for name in ("a", "b"):
        arguments = ["train", "--recipe", mine, "--set", f"name={name}", "--out", str(own / name)]
        assert cli.main(arguments) == 0
    (own / "a" / "checkpoint.pt").write_bytes((own / "b" / "checkpoint.pt").read_bytes())
    assert cli.main(["train", "--resume", str(own / "a"), "--epochs", "2"]) == 1
    assert "is a run of recipe a and its checkpoint is one of b" in capsys.readouterr().err
    begun = ("--set", "init=a", "--init", str(own / "b"))
    said = refused(capsys, own, "--recipe", mine, *begun)
    assert "best.pt is of b and mine begins with the weights of a; to begin with these give --set init=b" in said
    wider = ("--set", "model_options.width=9", "--init", str(own / "b"))
    assert "is of another network: 1.weight does not fit" in refused(capsys, own, "--recipe", mine, *wider)


def test_a_resumed_recipe_is_the_run_that_was_not_interrupted(root, tmp_path):
    recipe = recipes.read("sltt-stgr-mpdr-resnet18-cifar10").with_settings([NARROW, "steps=2", f"root={root}"])
    recipe = recipe.with_settings(["epochs=2", "batch_size=4"])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    one = experiment.Experiment(recipe, whole)
    assert one.run()
    stopped = experiment.Experiment(recipe, parts)

    def stop(run):
        run.stop = run.progress.epoch == 1

    assert not stopped.run(stop)
    torch.manual_seed(5)
    other = experiment.Experiment.resume(parts)
    assert other.run()
    for name, value in one.net.state_dict().items():
        assert torch.equal(value, other.net.state_dict()[name]), name


def test_the_best_epoch_is_kept(root, tmp_path):
    recipe = recipes.read("ottt-r400-fashion").with_settings([f"root={root}", "epochs=3", "batch_size=5"])
    run = experiment.Experiment(recipe, tmp_path)
    assert run.run()
    saved = torch.load(tmp_path / "best.pt", weights_only=True)
    accuracies = [row["test_accuracy"] for row in run.progress.epochs]
    assert saved["progress"]["epoch"] == 1 + accuracies.index(max(accuracies))
    assert all(row["test_top5"] >= row["test_accuracy"] for row in run.progress.epochs)


def test_a_profile_writes_nothing(root, tmp_path, capsys):
    arguments = ("--recipe", "ottt-r400-fashion", "--data-root", str(root), "--batch-size", "5", "--profile")
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "1 batches of 5 samples, T = 5" in shown
    assert "Self CPU" in shown
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_every_epoch(root, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = ("--recipe", "ottt-r400-fashion", "--data-root", str(root), "--batch-size", "5", "--epochs", "2")
    assert cli.main(["train", *arguments, "--tensorboard", "--out", str(tmp_path / "run")]) == 0
    board = tmp_path / "run" / "tensorboard"
    assert len([*board.iterdir()]) == 1
    events = EventAccumulator(str(board)).Reload()
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"]
    seen = [event.value for event in events.Scalars("test_accuracy")]
    assert seen == pytest.approx([row["test_accuracy"] for row in rows])
    assert "step_rates/1.fire.0/t5" in events.Tags()["scalars"]


def test_alignment_of_a_run_is_shown_layer_by_layer(root, tmp_path, capsys):
    arguments = ("--recipe", "ottt-r400-fashion", "--data-root", str(root), "--batch-size", "5", "--epochs", "1")
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert cli.main(["summary", str(tmp_path / "run")]) == 0
    assert "1.fire.0" in capsys.readouterr().out
    assert cli.main(["alignment", str(tmp_path / "run"), "--samples", "4"]) == 0
    rows = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(rows["2.bias"]) == pytest.approx(1, abs=1e-3)
    assert 0 < float(rows["1.input.weight"]) <= 1


def test_commands_that_read_a_run_find_data_that_have_moved(root, tmp_path, capsys):
    before, after, run, file = (str(tmp_path / name) for name in ("before", "after", "run", "packed.safetensors"))
    shutil.copytree(root, before)
    arguments = ("--recipe", "ottt-r400-fashion", "--batch-size", "5", "--epochs", "1")
    assert cli.main(["train", *arguments, "--data-root", before, "--out", run]) == 0
    shutil.move(before, after)
    commands = (["summary", run], ["alignment", run, "--samples", "4"], ["export", run, "--out", file], ["load", file])
    for command in commands:
        capsys.readouterr()
        if command != ["load", file]:
            assert cli.main(command) == 1
            assert "FashionMNIST/raw" in capsys.readouterr().err
        assert cli.main([*command, "--data-root", after]) == 0


def test_a_run_on_digits_has_no_data_to_move(tmp_path, capsys):
    assert cli.main(["train", "--steps", "1", "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["summary", str(tmp_path / "run"), "--data-root", str(tmp_path)]) == 1
    assert "is of a run on digits, which has no files" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nonsense", None, 3])
def test_rules_of_a_recipe_are_known(name):
    with pytest.raises(RunError, match="rule is"):
        recipes.Recipe("x", "y", name, "vgg", "cifar10", 1, "O", 1, 1, 0.1)
