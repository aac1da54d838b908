"""The scripts behind the page of results, with runs as short as they can be."""

import pytest
import torch
from fastsnn._bench import accuracy, drift, drift_speed, memory, spikformer_digits, training_speed, vgg_speed
from fastsnn._bench.measure import ParityError

import fastsnn
from fastsnn import data, models
from fastsnn.names import through_time
from fastsnn.recipes import Recipe

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

SEED = 3


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def short(monkeypatch):
    for name, value in {"BEFORE": 20, "EPOCHS": 1, "BATCH": 10, "SECTION": 2, "WIDTH": 8}.items():
        monkeypatch.setattr(drift, name, value)


def test_pixels_are_permuted_anew_in_every_section_but_the_first():
    x = torch.arange(128.0).view(2, 1, 8, 8)
    looks = [drift.permuted(x, share, SEED) for share in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)]
    assert torch.equal(looks[0], x)
    assert torch.equal(looks[1], x)
    assert torch.equal(looks[2], looks[3])
    for one, other in ((looks[1], looks[2]), (looks[3], looks[4]), (looks[4], looks[5])):
        assert not torch.equal(one, other)
        assert torch.equal(one.flatten(1).sort().values, other.flatten(1).sort().values)
    order = looks[2][0].flatten().long()
    assert torch.equal(looks[2][1].flatten(), x[1].flatten()[order])
    assert not torch.equal(drift.permuted(x, 0.3, SEED + 1), looks[2])


def test_images_turn_as_the_stream_goes_on():
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(drift.rotated(x, 0.0, SEED), x)
    turned = drift.rotated(x, 1.0, SEED)
    assert any(torch.allclose(turned, x.rot90(k, (2, 3)), atol=1e-5) for k in (1, 3))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("case", drift.CASES)
def test_each_digit_is_predicted_before_it_is_learned(case, digits, monkeypatch):
    events = []
    learn, predict = drift.online.Trainer.train_batch, drift.correct

    def train_batch(self, x, y):
        events.append(("learn", x.clone(), y))
        return learn(self, x, y)

    def correct(net, x, y):
        events.append(("predict", data.direct(x, drift.STEPS), y))
        return predict(net, x, y)

    monkeypatch.setattr(drift.online.Trainer, "train_batch", train_batch)
    monkeypatch.setattr(drift, "correct", correct)
    row = drift.stream("rotated", case, SEED, digits)
    before, rest = events[: drift.BEFORE // drift.BATCH], events[drift.BEFORE // drift.BATCH : -2]
    assert all(kind == "learn" and len(y) == drift.BATCH for kind, _, y in before)
    assert [kind for kind, *_ in rest] == (["predict"] if case == "frozen" else ["predict", "learn"]) * 8
    if case != "frozen":
        for (_, x, y), (_, learned, label) in zip(rest[::2], rest[1::2], strict=True):
            assert torch.equal(x, learned)
            assert torch.equal(y, label)
    assert row["mode"] == ("A" if through_time(case) else "O")
    sections = [row[f"section_{i}"] for i in range(1, 5)]
    assert row["over_stream"] == pytest.approx(sum(sections) / 4)


def test_the_table_of_drift_has_every_stream_and_rule():
    rows = []
    for kind in drift.STREAMS:
        for case in drift.CASES:
            for seed in range(2):
                rows.append({"stream": kind, "rule": case, "mode": "O", **dict.fromkeys(drift.SHOWN, 0.5 + seed / 10)})
    shown = drift.table(rows).splitlines()
    assert len(shown) == 2 + len(rows) / 2
    assert shown[2] == f"| permuted | bptt | O | {'55.00 ± 7.07 | ' * 4}50.00 - 60.00 |"


@pytest.mark.parametrize("script", ["drift", "vgg", "vgg, channels last"])
def test_speed_is_of_the_same_learning(script, digits, monkeypatch):
    pytest.importorskip("spikingjelly")
    torch.manual_seed(SEED)
    if script == "drift":
        inputs, labels = digits.train_x[:3], digits.train_y[:3]
        learners, nets = drift_speed.contenders()
        learners = {name: learn for name, learn in learners.items() if "compiled" not in name}  # 10 s each
        ours, theirs = nets["graph"], nets["spikingjelly"]
    else:
        monkeypatch.setattr(vgg_speed, "STEPS", 2)
        inputs, labels = torch.randn(3, 3, 8, 8), torch.tensor([1, 0, 7])
        learners, ours, theirs = vgg_speed.contenders(inputs[:1], vgg_speed.LAYOUTS[script.removeprefix("vgg")])
    for i in range(3):
        training_speed.check(ours, theirs)
        for learn in learners.values():
            learn(inputs[i : i + 1], labels[i : i + 1])
    training_speed.check(ours, theirs)
    with torch.no_grad():
        next(iter(theirs.parameters())).add_(1)
    with pytest.raises(ParityError, match="not timed"):
        training_speed.check(ours, theirs)


def test_the_table_of_speed_has_medians_of_ratios():
    rows = [dict.fromkeys(drift_speed.SHOWN, 40.0) | {"fastsnn": 30.0 + i, "spikingjelly": 10.0} for i in range(3)]
    assert "| fastsnn | 31 | 3.10 (3.00 - 3.20) |" in training_speed.table(rows, drift_speed.SHOWN)


def test_the_tables_of_the_vgg_have_medians():
    names = [each + layout for layout in vgg_speed.LAYOUTS for each in vgg_speed.SHOWN]
    rows = [{"round": i} | {name: 3.0 + j + i for j, name in enumerate(names)} for i in range(3)]
    lines = vgg_speed.table(rows).splitlines()
    assert len(lines) == 2 + len(names)
    assert lines[2] == "| fastsnn | 4 | 0.80 (0.75 - 0.83) | 1.50 | 1.50 |"
    assert lines[7].startswith("| fastsnn, channels last | 9 | 1.80 (")
    apart = [
        {"allocator": allocator, "process": i, "fastsnn": speed + i, "spikingjelly": speed}
        for allocator, speed in (("warm", 20.0), ("default", 10.0))
        for i in range(3)
    ]
    lines = vgg_speed.table_alone(apart).splitlines()
    assert lines[2:] == ["| fastsnn | 11 (10 - 12) | 21 (20 - 22) |", "| SpikingJelly | 10 (10 - 10) | 20 (20 - 20) |"]


def test_the_table_of_small_batches_has_medians_of_ratios():
    rows = [
        {"batch": batch, "round": i}
        | {name + layout: value * batch + i for name, value in speeds for layout in vgg_speed.LAYOUTS}
        for speeds in [(("fastsnn", 6.0), ("spikingjelly", 3.0), ("dense", 9.0))]
        for batch in vgg_speed.SMALL
        for i in range(3)
    ]
    lines = vgg_speed.table_small(rows).splitlines()
    assert lines[2:4] == ["| 1 | 7 | 1.75 | 1.43 |", "| 1, channels last | 7 | 1.75 | 1.43 |"]
    assert len(lines) == 2 + 2 * len(vgg_speed.SMALL)


def test_the_dense_floor_is_of_every_convolution():
    net, x = vgg_speed.models.vgg(), torch.randn(2, 3, 8, 8)
    shapes = [
        tuple(map(tuple, (given.shape, weight.shape, out.shape))) for given, weight, out in vgg_speed.operands(net, x)
    ]
    assert len(shapes) == 8
    assert shapes[0] == ((2, 3, 8, 8), (64, 3, 3, 3), (2, 64, 8, 8))
    assert shapes[-1] == ((2, 512, 1, 1), (512, 512, 3, 3), (2, 512, 1, 1))
    traces = [tuple(given.shape) for _, given, _ in vgg_speed.calls(net, x, torch.nn.AvgPool2d)]
    assert traces == [(2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2)]
    assert [part.weight.shape[0] for part in vgg_speed.narrow_vgg() if hasattr(part, "weight")] == [1] * 8 + [10]
    plain = vgg_speed.relu(net)
    assert [p.shape for p in plain.parameters() if p.dim() == 4] == [shape for _, shape, _ in shapes]
    assert [type(part).__name__ for part in plain[:5]] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "AvgPool2d"]
    assert plain(x).shape == (2, 10)


def test_memory_is_counted_for_each_t(monkeypatch):
    tiny = {"norm": "osr", "channels": 16, "depth": 1, "heads": 2, "poolings": 0}
    monkeypatch.setattr(memory, "NETWORKS", {"tiny": ("spikformer", 8, tiny)})
    monkeypatch.setattr(memory, "STEPS", (2, 6))
    rows = memory.rows()
    grown = {(row["rule"], row["mode"]): row["bytes_t6"] / row["bytes_t2"] for row in rows}
    assert grown["ottt", "O"] <= 1.02
    assert grown["ottt", "A"] <= 1.02
    assert grown["bptt", "A"] > 1.5
    assert memory.table(rows).splitlines()[4].endswith(f"| {grown['bptt', 'A']:.3f} |")


def test_rows_of_the_spikformer_are_runs_of_a_recipe(tmp_path):
    cases = spikformer_digits.cases()
    assert {case["rule"] for case in cases.values()} == {"bptt", "sltt", "ottt"}
    for case in cases.values():
        Recipe(**case)
    case = {**cases["sltt, sws"], "epochs": 1, "batch_size": 1437}
    run = accuracy.train(SEED, **case)
    assert run.config == Recipe(**case, seed=SEED)
    assert accuracy.outcome(run)["mode"] == "O"


def test_a_spikformer_with_folded_norms_is_the_same_in_evaluation():
    sizes = {**spikformer_digits.SIZES["spikformer"], "rule": "ottt", "in_channels": 1}
    torch.manual_seed(SEED)
    net, other = (models.create_model("spikformer", norm=norm, **sizes) for norm in ("bn", "none"))
    x = torch.rand(4, 8, 1, 8, 8)
    for _ in range(30):  # until the running statistics let spikes through
        fastsnn.reset(net)
        for x_t in x:
            net(x_t)
    other.load_state_dict(spikformer_digits.folded(net))
    fastsnn.reset(net)
    for x_t in x:
        y = net.eval()(x_t)
        assert y.std(0).max() > 1e-4
        torch.testing.assert_close(other.eval()(x_t), y)


def test_the_run_that_folds_goes_on_with_the_same_schedule():
    case = {**spikformer_digits.cases()["ottt, bn, then folded"], "epochs": 2, "batch_size": 1437}
    run = spikformer_digits.learn(SEED, **case)
    whole = accuracy.train(SEED, **case | {"name": "bn-ottt"})
    assert run.config.norm == "none"
    assert run.scheduler.state_dict() == whole.scheduler.state_dict()
    assert len(run.progress.epochs) == 2
    assert run.progress.epochs[0]["train_accuracy"] == whole.progress.epochs[0]["train_accuracy"]


@pytest.mark.parametrize("model", spikformer_digits.SHOWN)
def test_rows_of_the_other_transformers_are_runs_of_a_recipe(model):
    cases = [case for case in spikformer_digits.others().values() if case["model"] == model]
    assert [case["rule"] for case in cases] == ["bptt", "sltt", "ottt"]
    run = accuracy.train(SEED, **{**cases[-1], "epochs": 1, "batch_size": 1437})
    assert len(run.progress.epochs) == 1
