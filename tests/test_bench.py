"""The benchmarks' own machinery, at sizes where times mean nothing."""

import csv
from dataclasses import fields, replace

import pytest
import torch
from fastsnn._bench import cases, child, counts, main, measure, plot, report, runner
from fastsnn._bench.cases import CASES, Provider
from fastsnn._bench.record import Row, row

import fastsnn

OTTT = CASES["ottt_step"]


def eager(case):
    """The case without torch.compile, and without peers that are not installed."""
    installed = [p for p in case.providers if p.package != "torch" and not cases.missing(p.package)]
    return replace(case, providers=tuple(installed))


def a_row(**fields):
    about = {"case": "ottt_step", "kernel": "lif_step", "provider": "fastsnn", "mode": "full", "dtype": "float32"}
    numbers = {"p20": 1.0, "p50": 1.0, "p80": 1.0, "size": 8, "repetitions": 1}
    return row(**{"allocator": "warm", "metric": "time", "unit": "us", **about, **numbers, **fields})


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(runner, "launch", child.run)


def test_quick_run_writes_csv_markdown_and_plot(tmp_path):
    arguments = ["--quick", "--allocator", "warm", "--only", "step_overhead", "--out", str(tmp_path)]
    assert main(arguments) == 0
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in fields(Row)]
    assert {"fastsnn", "autograd-floor"} <= {r["provider"] for r in rows}
    assert {r["mode"] for r in rows} == {"forward", "backward", "full"}
    assert all(0 < float(r["p20"]) <= float(r["p50"]) <= float(r["p80"]) for r in rows)
    assert "## step_overhead" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results-warm.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", CASES)
def test_every_provider_is_drawn(tmp_path, name):
    providers = [provider.name for provider in CASES[name].providers]
    rows = [a_row(case=name, provider=provider) for provider in dict.fromkeys(["fastsnn", *providers])]
    assert plot.save(rows, tmp_path) == []
    assert (tmp_path / "results-warm.png").stat().st_size > 5_000


@pytest.mark.parametrize("name", CASES)
def test_gate_is_green(name):
    case = eager(CASES[name])
    x, g = case.inputs(case.quick_sizes[0])
    measure.check_parity(case, {p.name: p.build(x, g) for p in case.providers if p.gated}, x, g)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ottt_step", "bptt_sequence"])
@pytest.mark.skipif(bool(cases.missing("torch")), reason="torch.compile needs a C++ compiler")
def test_gate_is_green_under_torch_compile(name):
    case = CASES[name]
    x, g = case.inputs(100)
    build = next(p.build for p in case.providers if p.package == "torch")
    measure.check_parity(case, {"torch.compile": build(x, g)}, x, g)


def off(part):
    """The fused step with one part of its outcome off by about 1e-3."""

    def build(x, g):
        work = OTTT.providers[0].build(x, g)
        changed = {
            "output": {"forward": lambda: work.forward().spikes + 1e-3},
            "gradient 0": {"grad": 1.001 * work.grad},
            "trace": {"state": lambda: {"trace": work.state()["trace"] + 1e-3}},
        }
        return replace(work, **changed[part])

    return build


@pytest.mark.parametrize("part", ["output", "gradient 0", "trace"])
def test_gate_sees_each_part(part):
    x, g = OTTT.inputs(100)
    with pytest.raises(measure.ParityError, match=f"ottt_step, wrong: {part} is off by"):
        measure.check_parity(OTTT, {"wrong": off(part)(x, g)}, x, g)


def test_not_a_number_is_an_error():
    nan = torch.tensor([1.0, torch.nan])
    assert not measure.relative_error(nan, torch.ones(2)) <= 1
    assert not measure.relative_error(torch.ones(2), nan) <= 1
    assert measure.relative_error(torch.ones(2), torch.ones(3)) == torch.inf


def test_red_gate_refuses_to_report(tmp_path, monkeypatch, in_process, capsys):
    red = replace(OTTT, providers=(*eager(OTTT).providers, Provider("wrong", off("output"))))
    monkeypatch.setitem(CASES, "ottt_step", red)
    arguments = ["--quick", "--allocator", "default", "--only", "ottt_step", "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1
    assert "REFUSED: ottt_step, wrong: output is off by 1.0e-03" in (tmp_path / "results.md").read_text()
    assert "REFUSED: ottt_step, wrong" in capsys.readouterr().out


def test_crashed_child_is_reported(capsys):
    outcome = runner.launch({"case": "no such case", "allocator": "default", "threads": 1, "quick": True})
    assert outcome["rows"] == []
    assert "no such case (default) crashed" in outcome["refused"]
    assert "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize("bars", [False, True])
def test_comparisons_are_printed_and_verdicts_only_where_asked_for(bars, tmp_path, monkeypatch, capsys):
    rows = [replace(a_row(), provider=provider, metric="time") for provider in ("fastsnn", "spikingjelly")]
    outcome = {"rows": [vars(row) for row in rows], "notes": [], "refused": None}
    monkeypatch.setattr(runner, "launch", lambda job: outcome)
    arguments = ["--allocator", "warm", "--only", rows[0].case, "--out", str(tmp_path), *(["--bars"] if bars else [])]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "| size | mode | fastsnn | spikingjelly |" in shown
    for text in (shown, (tmp_path / "results.md").read_text()):
        assert ("verdict" in text) == bars


def test_a_quick_run_has_no_verdicts(capsys):
    with pytest.raises(SystemExit):
        main(["--quick", "--bars"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_missing_peer_is_skipped_and_named(tmp_path, monkeypatch, in_process, capsys):
    monkeypatch.setattr(cases, "find_spec", lambda package: None)
    arguments = ["--quick", "--allocator", "default", "--only", "step_overhead", "--out", str(tmp_path)]
    assert main(arguments) == 0
    note = "step_overhead: spikingjelly skipped, spikingjelly is not installed"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "results.md").read_text()
    assert "spikingjelly," not in (tmp_path / "results.csv").read_text()


def test_bandwidth_is_bytes_over_time():
    rows, _ = measure.time_rows(CASES["step_bandwidth"], measure.QUICK, "default")
    found = {(r.provider, r.metric): r for r in rows}
    for provider, moved in (("fastsnn", 24), ("copy", 24), ("copy-layer", 8)):
        rate, time = found[provider, "bandwidth"], found[provider, "time"]
        assert rate.p20 <= rate.p50 <= rate.p80
        assert rate.p50 == pytest.approx(moved * rate.size / 1e3 / time.p50)


def test_inputs_never_meet_the_threshold():
    x, _ = OTTT.inputs(1000)
    assert (x * 32 % 2 == 1).all()


def test_one_step_saves_nothing_beyond_the_state():
    rows = [r for r in counts.step_rows() if r.provider == "fastsnn"]
    saved = {r.case: r.p50 for r in rows if r.metric == "saved_bytes"}
    assert saved == dict.fromkeys([*counts.COUNTED, "ottt_sequence"], 0)
    ops = {(r.case, r.mode): r.p50 for r in rows if r.metric == "aten_ops"}
    assert max(ops["ottt_step", mode] for mode in ("forward", "backward")) <= 5


def test_saved_bytes_counts_a_storage_once():
    x = torch.ones(10, requires_grad=True)
    double = cases.Workload(lambda: (x.exp() * x).sin(), torch.ones(10), (x,))
    assert counts.saved_bytes(double) == 2 * 40


def test_peak_memory_follows_storages():
    with counts.PeakMemory() as memory:
        x = torch.ones(1000)
        view = x[::2]
        y = x + 1
        del x
        z = view + 1
    assert (memory.live, memory.peak) == (10_000, 10_000)
    del y, z
    assert memory.live == 4000


@pytest.mark.parametrize("mode", ["O", "A"])
def test_peak_memory_is_flat_in_steps(mode):
    short, long = (counts.peak_bytes(lambda: fastsnn.LIF.for_rule("ottt"), mode, steps) for steps in (2, 8))
    assert long <= 1.02 * short
    assert counts.peak_bytes(fastsnn.LIF, "bptt", 8) > 2 * long


@pytest.mark.parametrize("rule", ["bptt", "sltt", "ottt", "ndot", "ndot_released"])
def test_bitwise_row_compares_with_the_reference(rule):
    assert counts.bitwise_equal(rule, n=1000)


def test_bars_tell_pass_fail_and_not_measured():
    bar = report.Bar("faster", ">=", 10, report.faster("ottt_step", "spikingjelly"))
    slow = a_row(provider="spikingjelly", p50=9.0)
    assert bar.line([]).endswith("| not measured |")
    assert bar.line([a_row(), slow]).endswith("| 9 | FAIL |")
    assert bar.line([a_row(), replace(slow, p50=11.0)]).endswith("| 11 | PASS |")
    assert bar.line([a_row(allocator="default"), slow]).endswith("| not measured |")
    flat = report.Bar("memory", "<=", 1.02, report.memory_growth("O"))
    peaks = [a_row(case="peak_memory", mode="O", size=size, p50=p50) for size, p50 in ((4, 100.0), (128, 103.0))]
    assert flat.line(peaks).endswith("| 1.03 | FAIL |")


@pytest.mark.parametrize(("us", "text"), [(1.234, "1.23 us"), (999.6, "1 ms"), (45_678, "45.7 ms"), (2e6, "2 s")])
def test_durations_have_three_digits(us, text):
    assert report.duration(us) == text
