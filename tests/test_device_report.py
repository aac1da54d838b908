"""`python -m bench.device` from end to end with the CPU in a device's place, and how its parts fail."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastsnn._bench import device, main
from fastsnn._bench.device import command, core, families, profile, report, stages, suite
from fastsnn._bench.device.target import Stage, Target

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
TESTS = Path(__file__).parent


@pytest.fixture
def target(tmp_path):
    return Target("cpu", str(tmp_path), str(TESTS), "a stage", 600.0)


def rows_of(folder, stage=None):
    return [row for row in report.read(folder) if stage in (None, row["stage"])]


@pytest.mark.slow
def test_rehearsal_runs_every_stage_to_its_end(tmp_path, capsys):
    assert device.main(["--rehearse", "--minutes", "60", "--out", str(tmp_path), "--tests", str(TESTS)]) == 0
    rows = rows_of(tmp_path)
    assert [row["stage"] for row in rows if row["case"] == "took"] == [plan.name for plan in stages.PLANS]
    checked = [row for row in rows if "ok" in row]
    assert all(row["ok"] for row in checked)
    assert len(checked) >= 2 * 3 * len(families.families(Target("cpu", "", "")))
    assert not [row for row in rows if "error" in row and "device" not in row["error"]]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60 + 2 * len(stages.PLANS)
    text = (tmp_path / "report.md").read_text()
    for plan in stages.PLANS:
        assert f"## {plan.name[0].upper()}{plan.name[1:]}" in text


@NO_GPU
def test_without_a_device_it_says_what_it_needs(tmp_path, capsys):
    assert main(["--gpu-report", "--out", str(tmp_path)]) == 1
    assert "needs a CUDA device and torch finds none" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_stages_fit_into_eight_minutes():
    assert sum(plan.seconds for plan in stages.PLANS) <= 480
    assert sum(plan.seconds for plan in command.within(stages.PLANS, 4)) == pytest.approx(240)


def runs(target, monkeypatch, *programs):
    """The stages' outcomes where each process runs one of `programs`."""
    monkeypatch.setattr(command, "GRACE", 0.0)
    planned = [stages.Plan(f"stage {i}", program, 3.0) for i, program in enumerate(programs)]
    started = command.subprocess.Popen

    def popen(arguments, **kwargs):
        name = json.loads(arguments[-1])["stage"]
        program = next(plan.module for plan in planned if plan.name == name)
        return started([sys.executable, "-c", program, arguments[-1]], **kwargs)

    monkeypatch.setattr(command.subprocess, "Popen", popen)
    command.run(planned, target)
    return {row["stage"]: row["problem"] for row in rows_of(Path(target.out)) if row["case"] == "took"}


def test_a_stage_that_crashes_or_hangs_loses_itself_alone(target, monkeypatch):
    wait = "import sys; sys.stdin.readline(); "
    hang = wait + "import time; time.sleep(60)"
    crash = wait + "import os; os.abort()"
    problems = runs(target, monkeypatch, hang, crash, wait)
    assert problems["stage 0"] == "stopped after 3 s"
    assert "ended with -6" in problems["stage 1"]
    assert problems["stage 2"] is None
    lines, right = report.summary(rows_of(Path(target.out)))
    assert not right
    assert any("stopped after 3 s" in line for line in lines)


def test_a_stage_that_raises_says_so_and_keeps_its_rows(target, monkeypatch):
    def run(stage):
        stage.row(case="first")
        raise MemoryError("no memory")

    monkeypatch.setattr(stages.importlib, "import_module", lambda *_: type("module", (), {"run": staticmethod(run)}))
    monkeypatch.setattr(stages.sys, "stdin", type("stdin", (), {"readline": staticmethod(lambda: "start\n")}))
    with pytest.raises(MemoryError):
        stages.main(replace(target, stage="latency").to_json())
    first, second = rows_of(Path(target.out), "latency")
    assert first["case"] == "first"
    assert second["error"] == "MemoryError: no memory"


def test_an_attempt_that_fails_or_comes_too_late_is_a_row(target):
    stage = Stage(target)
    assert stage.attempt("division", lambda: 1 / 0) is None
    assert Stage(replace(target, seconds=0.0)).attempt("late", lambda: 1) is None
    assert [row["error"] for row in rows_of(Path(target.out))] == [
        "ZeroDivisionError: division by zero",
        "no time left",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_wrong_number_is_seen(target, dtype):
    family = families.families(target)[0]
    truth = families.play(family, "cpu", "cpu", dtype)
    assert families.verdict(family, dtype, truth, truth) == {"ok": True, "off": {}}
    flipped = {name: value.clone() for name, value in truth.items()}
    flipped["out 1"][7] = 1 - flipped["out 1"][7]
    wrong = families.verdict(family, dtype, truth, flipped)
    assert not wrong["ok"]
    assert wrong["off"]["out 1"]["worst"] == 1
    unwritten = truth | {"g_x 0": torch.full_like(truth["g_x 0"], torch.nan)}
    assert not families.verdict(family, dtype, truth, unwritten)["ok"]
    assert not families.verdict(family, dtype, truth, {k: v for k, v in truth.items() if k != "v"})["ok"]


def test_one_bit_of_a_float32_recurrence_is_wrong(target):
    family = families.families(target)[0]
    assert family.exact
    truth = families.play(family, "cpu", "cpu", torch.float32)
    near = truth | {"v": torch.nextafter(truth["v"].float(), torch.tensor(9.0)).double()}
    assert not families.verdict(family, torch.float32, truth, near)["ok"]


def test_memory_no_kernel_wrote_is_nan():
    with families.poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.ones(2)).isnan().all()
    assert torch.empty is not None
    assert torch.empty.__name__ == "empty"


SUITE = """
import pytest
@pytest.mark.gpu
@pytest.mark.parametrize("n", [1, 2, 3])
def test_values(n):
    assert n < 3
@pytest.mark.gpu
def test_skipped():
    pytest.skip("no kernels")
@pytest.mark.gpu
def test_two():
    pytest.skip("needs two CUDA devices")
def test_elsewhere():
    raise AssertionError
"""


@pytest.mark.parametrize("is_gpu", [True, False])
def test_suite_runs_the_clones_tests_and_tells_their_outcome(target, tmp_path, monkeypatch, is_gpu):
    tests = tmp_path / "clone" / "tests"
    (tests / "gpu").mkdir(parents=True)
    (tmp_path / "clone" / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu']\n")
    # the clone's package is not the one that is installed
    (tmp_path / "clone" / "fastsnn.py").write_text("raise ImportError('the clone is not what is installed')")
    (tests / "conftest.py").write_text("import fastsnn\nassert fastsnn.LIF().v_threshold == 1")
    (tests / "gpu" / "test_planted.py").write_text(SUITE)
    monkeypatch.setattr(Target, "is_gpu", is_gpu)
    suite.run(Stage(replace(target, tests=str(tests))))
    summary, *reasons = rows_of(tmp_path)
    assert summary["counts"] == {"passed": 2, "failure": 1, "skipped": 1, "allowed skip": 1}
    assert not summary["ok"]
    assert [row["case"].rpartition("::")[2] for row in reasons] == ["test_values", "test_skipped"]
    assert "[3]" in reasons[0]["error"]


def test_suite_says_where_its_tests_are_missing(target, tmp_path):
    suite.run(Stage(replace(target, tests=str(tmp_path / "nowhere"))))
    (row,) = rows_of(tmp_path)
    assert f"no tests in {tmp_path / 'nowhere'}: start the command in a clone" in row["error"]
    assert not row["ok"]


def test_skips_that_one_device_cannot_help_are_allowed(tmp_path):
    xml = tmp_path / "tests.xml"
    cases = "".join(
        f'<testcase classname="m" name="t[{i}]"><skipped message="{why}"/></testcase>'
        for i, why in enumerate(["needs two CUDA devices", "no kernels"])
    )
    xml.write_text(f"<testsuites><testsuite>{cases}<testcase classname='m' name='u'/></testsuite></testsuites>")
    counts, first = suite.outcomes(xml)
    assert counts == Counter({"allowed skip": 1, "skipped": 1, "passed": 1})
    assert list(first) == ["m::t"]


NCU = """==PROF== Connected
"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","lif_forward","gpu__time_duration.sum","us","1.5"
"0","lif_forward","dram__bytes.sum","Mbyte","2,000.5"
"1","osr","launch__registers_per_thread","register/thread","40"
"""


def test_ncus_lines_become_rows():
    first, second = profile.parse(NCU)
    assert first == {"case": "lif_forward", "ns": 1500.0, "dram_bytes": pytest.approx(2000.5e6)}
    assert second == {"case": "osr", "registers": 40.0}
    assert profile.parse("==ERROR== no permission") == []


def test_registers_are_compared_with_the_static_table():
    table = TESTS.parent / "bench" / "results" / "gpu_kernels.csv"
    name = "void fastsnn::lif_forward_kernel<float, 0, 1, 4, float>(fastsnn::Lif<T5>, fastsnn::LifForward, T5)"
    assert 20 <= profile.static_registers(name, table) <= 64
    assert profile.static_registers("lif_forward", table) is None
    assert profile.static_registers(name, table.with_name("no.csv")) is None


def test_a_core_for_another_architecture_is_built_for_this_one(target, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    (clone / "csrc").mkdir(parents=True)
    (clone / "setup.py").touch()
    asked = {}

    def ran(arguments, env, **_):
        asked.update(arguments=arguments, archs=env["FASTSNN_CUDA_ARCHS"])
        return type("done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(Target, "is_gpu", True)
    monkeypatch.setattr(core.backends, "refusal", lambda *_: "no kernel image")
    monkeypatch.setattr(core.shutil, "which", lambda name: name)
    monkeypatch.setattr(core.torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(core.subprocess, "run", ran)
    found = core.build(Stage(replace(target, tests=str(clone / "tests"))))
    assert found["PYTHONPATH"].startswith(str(tmp_path / "site"))
    assert asked["archs"] == "90"
    assert asked["arguments"][-1] == str(clone)
    monkeypatch.setattr(core.shutil, "which", lambda name: None)
    assert core.build(Stage(replace(target, tests=str(clone / "tests")))) == {}
    assert "takes nvcc and a clone" in rows_of(tmp_path)[-1]["error"]
