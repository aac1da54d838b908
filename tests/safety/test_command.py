"""The command line answers with a sentence, never with a traceback, and obeys the environment."""

import os
import signal
import subprocess
import sys
import time

import pytest

from . import interrupt

SMALL = ("train", "--data", "sequential-digits", "--epochs", "1", "--batch-size", "719")


def fastsnn(*arguments, cwd, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "fastsnn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


REFUSED = {
    "seed": (*SMALL, "--seed", str(2**64)),
    "out is a file": (*SMALL, "--out", "file"),
    "out is too long": (*SMALL, "--out", "x" * 300),
    "epochs": (*SMALL[:3], "--epochs", str(2**40)),
    "no run": ("export", "nothing", "--out", "net"),
    "no file": ("load", "nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_a_sentence(name, tmp_path):
    (tmp_path / "file").touch()
    done = fastsnn(*REFUSED[name], cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "fastsnn: " in done.stderr


def test_a_large_seed_runs(tmp_path):
    done = fastsnn(*SMALL, "--seed", str(10**14), "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_last_batch_of_one_sample_promises_no_checkpoint(tmp_path):
    run = ("train", "--data", "sequential-digits", "--rule", "osr", "--batch-size", "718", "--epochs", "1")
    done = fastsnn(*run, "--out", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "one element a channel" in done.stderr
    assert "no checkpoint was written yet" in done.stderr


@pytest.mark.parametrize("command", ["info", "bench"])
def test_an_unknown_backend_in_the_environment_is_a_sentence(command, tmp_path):
    done = fastsnn(command, cwd=tmp_path, FASTSNN_BACKEND="bogus")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "FASTSNN_BACKEND is 'bogus'; allowed" in done.stderr


def test_the_environment_forces_the_backend_of_a_run(tmp_path):
    done = fastsnn(*SMALL, "--out", "run", cwd=tmp_path, FASTSNN_BACKEND="reference")
    assert "on backend reference" in done.stdout
    done = fastsnn(*SMALL, "--out", "other", cwd=tmp_path, FASTSNN_BACKEND="cuda")
    assert done.returncode == 1
    assert "backend 'cuda' is forced and cannot run standardize on cpu" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("after", [0.05, 0.4, 1.2])
def test_an_interrupt_while_it_starts_is_a_sentence(after, tmp_path):
    command = [sys.executable, "-m", "fastsnn", "info"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path)
    said = run.stderr.readline()
    time.sleep(after)
    run.send_signal(signal.SIGINT)
    said += run.stderr.read()
    assert run.wait() in (0, 130)
    assert "Traceback" not in said


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupt_after_the_answer_is_ignored(tmp_path):
    program = """
import atexit, os, signal, fastsnn.cli
atexit.register(os.kill, os.getpid(), signal.SIGINT)
fastsnn.cli.main = lambda: 0
fastsnn.cli.command()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="closes a pipe")
def test_a_closed_pipe_is_no_error_to_read(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fastsnn", "info"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_run_that_signals_end_resumes_as_if_there_had_been_none():
    interrupt.main(2, seed=3)
