"""The tables of accuracies over seeds, with runs as short as they can be."""

import csv

import pytest
import torch
from fastsnn._bench import accuracy, empf_table

from fastsnn.train.experiment import Config, Experiment

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

SHORT = {"data": "sequential-digits", "epochs": 1, "batch_size": 512}


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "SEEDS", range(2))
    monkeypatch.setattr(accuracy, "OUT", tmp_path / "results")


def test_a_comparison_is_the_runs_of_the_command(tmp_path):
    accuracy.compare({rule: {**SHORT, "rule": rule} for rule in ("osbp", "bptt")}, "some")
    with (tmp_path / "results" / "some.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rule"], row["seed"]) for row in rows] == [(r, s) for r in ("osbp", "bptt") for s in "01"]
    run = Experiment(Config.of(**SHORT, rule="bptt", seed=1), tmp_path)
    run.run()
    assert float(rows[3]["test_accuracy"]) == pytest.approx(run.progress.epochs[-1]["test_accuracy"], abs=1e-6)
    shown = (tmp_path / "results" / "some.md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in shown[2:]] == [["| osbp", "O"], ["| bptt", "A"]]
    values = 100 * torch.tensor([float(row["test_accuracy"]) for row in rows[2:]])
    assert f"| {values.mean():.2f} ± {values.std():.2f} | {values.min():.2f} - {values.max():.2f} |" in shown[3]


def test_cases_alternate_and_rows_are_in_their_order(monkeypatch):
    order = []

    def train(seed, **options):
        order.append((seed, options["rule"]))
        return options

    monkeypatch.setattr(accuracy, "train", train)
    rows = accuracy.run({"b": {"rule": "b"}, "a": {"rule": "a"}}, dict)
    assert order == [(0, "b"), (0, "a"), (1, "b"), (1, "a")]
    assert [row["rule"] for row in rows] == ["b", "b", "a", "a"]


def test_times_are_shown_against_those_of_ottt_with_the_same_seed():
    def row(rule, seed, seconds):
        numbers = {"test_accuracy": 0.9 + 0.02 * seed, "seconds_per_epoch": seconds}
        return {"rule": rule, "seed": seed, **numbers, "weight_bytes": 1234, "stored_bytes": 56789}

    rows = [row("ottt", 0, 1.0), row("ottt", 1, 4.0), row("ottt", 2, 2.0)]
    rows += [row("I", 0, 2.0), row("I", 1, 2.0), row("I", 2, 3.0)]
    shown = empf_table.table(rows).splitlines()
    assert shown[3] == "| I | 92.00 ± 2.00 | 90.00 - 94.00 | 1.50 (0.50 - 2.00) | 1,234 | 56,789 |"


def test_bytes_are_those_of_the_packed_network(tmp_path):
    cases = empf_table.cases()
    assert len(cases) == 2 + 9

    def measured(name):
        run = Experiment(Config.of(**{**cases[name], "epochs": 1, "batch_size": 1500}), tmp_path)
        run.run()
        return run, empf_table.measure(run)

    (_, floats), (run, binary) = measured("I, float weights"), measured("I")
    first, last, inner = run.net[0].weight.numel(), run.net[7].weight.numel(), 0
    for block in (run.net[3], run.net[4]):
        inner += sum(p.numel() for name, p in block.named_parameters() if p.dim() == 4)
    assert floats["weight_bytes"] == 4 * (first + last + inner)
    assert binary["weight_bytes"] == 4 * (first + last) + inner // 8
    assert binary["stored_bytes"] > binary["weight_bytes"]


def test_the_time_is_that_of_an_epoch_of_training(tmp_path, monkeypatch):
    run = Experiment(Config.of(**SHORT, rule="osbp", seed=3), tmp_path)
    seen = []
    monkeypatch.setattr(run.trainer, "train_batch", lambda x, y: seen.append((len(x), len(y))))
    clock = iter([5.0, 7.5])
    monkeypatch.setattr(empf_table.time, "process_time", lambda: next(clock))
    assert empf_table.epoch_time(run) == {"seed": 3, "seconds_per_epoch": 2.5}
    assert seen == [(8, 512), (8, 512), (8, len(run.data.train_y) - 1024)]
