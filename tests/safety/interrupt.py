"""`python -m tests.safety.interrupt 100`: trainings that random signals end at random moments, and that resume: they
end as the one that nothing disturbed, bit for bit.

Arguments: how many runs, the seed (0).
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

TRAIN = ("--data", "sequential-digits", "--epochs", "2", "--batch-size", "719")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TIMES = ("seconds", "samples_per_second")


def start(folder):
    """The run in this folder, from its checkpoint where there is one."""
    given = ("--resume", str(folder)) if (folder / "checkpoint.pt").exists() else (*TRAIN, "--out", str(folder))
    command = [sys.executable, "-m", "fastsnn", "train", *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(folder):
    """Runs it to its end."""
    run = start(folder)
    _, said = run.communicate()
    if run.returncode != 0:
        raise RuntimeError(f"exit status {run.returncode}: {said[-2000:]}")


def outcome(folder):
    """Weights, optimizer and metrics of a run."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["trainer"]
    epochs = json.loads((folder / "metrics.json").read_text())["epochs"]
    return state, [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]


def same(a, b):
    """Whether two nests of tensors and numbers are equal."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def disturbed(folder, rng, seconds):
    """A run that is ended once to three times, each after up to `seconds`, then resumed. Returns what was sent."""
    sent = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        run, sends, after = start(folder), rng.choice(SIGNALS), rng.uniform(0, seconds)
        run.stderr.readline()  # before it, Python itself starts
        time.sleep(after)
        run.send_signal(sends)
        _, said = run.communicate()
        sent.append(f"{sends.name} after {after:.2f} s")
        if "Traceback" in said and sends != signal.SIGKILL:
            raise RuntimeError(f"{sent}: {said[-2000:]}")
    finish(folder)
    return sent


def main(count, seed=0):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        began = time.monotonic()
        finish(undisturbed)
        seconds = time.monotonic() - began
        expected = outcome(undisturbed)
        for i in range(count):
            run = Path(folder) / str(i)
            sent = disturbed(run, rng, seconds)
            if not same(outcome(run), expected):
                raise RuntimeError(f"run {i} of seed {seed} differs: {sent}")
    print(f"{count} disturbed runs, all as the undisturbed one")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
