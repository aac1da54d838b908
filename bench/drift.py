"""Learning while the world changes: `python -m bench.drift`.

A network learns 1,000 upright digits in batches; 400 that it has not seen arrive one by one, batch 1, T = 4: each is
predicted, then learned, then gone. In `permuted` every quarter of the stream but the first has its own order of the 64
pixels, in `rotated` the images turn from 0 to 90 degrees as it goes on. Every rule with five seeds, mode O ("bptt": A,
all that it has), the same network and learning rates; "frozen" is OTTT that learns nothing from the stream. One thread.
Writes drift.csv (one row a run) and drift.md (mean and spread) into bench/results.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from fastsnn import data, online
from fastsnn.data.digits import Dataset
from fastsnn.models import Style
from fastsnn.names import through_time
from fastsnn.nn import reset
from fastsnn.online.losses import hits
from fastsnn.optim import STGR
from fastsnn.train.config import RECIPES
from fastsnn.types import RULES

from . import accuracy
from .accuracy import Row, percent, span, write

STEPS, WIDTH = 4, 128
BEFORE, EPOCHS, BATCH = 1000, 4, 50  # digits that are learned before the stream, how often, how many at once
# of the stream: of 0.005, 0.01, 0.02 and 0.1 the best for OTTT in `permuted`, with a seed outside of the five; before
# it, with larger batches, 0.1
LR = 0.02
SECTIONS, SECTION = 4, 100  # of the stream, and digits in each
TURN = 90.0  # degrees over the stream
CASES = (*RULES, "rptt", "frozen")

Look = Callable[[Tensor, float, int], Tensor]


def permuted(x: Tensor, share: float, seed: int) -> Tensor:
    """Images [N, 1, 8, 8] when that share of the stream is over: of a permutation for each section, the first none."""
    section = min(int(share * SECTIONS), SECTIONS - 1)
    if section == 0:
        return x
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1000 * seed + section))
    return x.flatten(1)[:, order].view_as(x)


def rotated(x: Tensor, share: float, seed: int) -> Tensor:
    """Images [N, 1, 8, 8] when that share of the stream is over, turned by that share of TURN."""
    angle = torch.tensor(share * TURN).deg2rad()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.new_zeros(()), angle.sin(), angle.cos(), angle.new_zeros(())])
    grid = F.affine_grid(turn.view(1, 2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


STREAMS: dict[str, Look] = {"permuted": permuted, "rotated": rotated}


def network(case: str) -> nn.Sequential:
    """64-128-128-10 with standardised weights."""
    training = RECIPES["ottt" if case == "frozen" else case]
    style = Style(training.rule, neuron={"mpdr": online.MPDR.paper("cifar10")} if training.mpdr else {})
    hidden = [style.linear(64, WIDTH), style.lif(), style.linear(WIDTH, WIDTH), style.lif()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(WIDTH, 10))


def trainer(case: str, graph: bool = False) -> online.Trainer:
    """Of a new network."""
    net = network(case)
    optimizer: Optimizer = SGD(net.parameters(), 0.1)
    if case == "rptt":
        optimizer = STGR(optimizer)
    return online.Trainer(net, optimizer, mode="A" if through_time(case) else "O", graph=graph)


def prepare(learner: online.Trainer, read: Dataset, order: Tensor) -> None:
    """Learn the upright digits of `order` in batches, and set the learning rate of the stream."""
    for _ in range(EPOCHS):
        for index in order[torch.randperm(len(order))].split(BATCH):
            learner.train_batch(data.direct(read.train_x[index], STEPS), read.train_y[index])
        learner.epoch_done()
    for group in learner.optimizer.param_groups:
        group["lr"] = LR


@torch.no_grad()
def correct(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """Correct predictions of images [N, 1, 8, 8]."""
    net.eval()
    reset(net)
    logits = sum(net(x_t) for x_t in data.direct(x, STEPS))
    reset(net)
    net.train()
    return int(hits(logits, y))


def stream(kind: str, case: str, seed: int, read: Dataset) -> Row:
    """A run: accuracy of the predictions before each digit is learned, over the stream and in its last quarter, and of
    the test split after it, as digits look at its end and as they looked before."""
    torch.manual_seed(seed)
    learner, look = trainer(case), STREAMS[kind]
    order = torch.randperm(read.train_samples)
    prepare(learner, read, order[:BEFORE])
    right = [0] * SECTIONS
    for i, index in enumerate(order[BEFORE : BEFORE + SECTIONS * SECTION]):
        share = i / (SECTIONS * SECTION)
        x, y = look(read.train_x[index : index + 1], share, seed), read.train_y[index : index + 1]
        right[i // SECTION] += correct(learner.net, x, y)
        if case != "frozen":
            learner.train_batch(data.direct(x, STEPS), y)
    after = {f"test_{name}": correct(learner.net, look(read.test_x, share, seed), read.test_y) for name, share in ENDS}
    row: Row = {"stream": kind, "rule": case, "mode": learner.options["mode"], "seed": seed}
    row |= {f"section_{i}": round(n / SECTION, 6) for i, n in enumerate(right, 1)}
    row |= {"over_stream": round(sum(right) / (SECTION * SECTIONS), 6)}
    return row | {name: round(n / read.test_samples, 6) for name, n in after.items()}


ENDS = (("end", 1.0), ("beginning", 0.0))
SHOWN = {
    "over_stream": "over the stream",
    f"section_{SECTIONS}": "its last quarter",
    "test_end": "test after, as at the end",
    "test_beginning": "test after, upright",
}


def table(rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    lines = [f"| stream | rule | mode | {' | '.join(SHOWN.values())} | worst - best seed over the stream |"]
    lines.append("|" + "---|" * (4 + len(SHOWN)))
    for kind in STREAMS:
        for case in CASES:
            mine = [row for row in rows if (row["stream"], row["rule"]) == (kind, case)]
            shown = " | ".join(percent(mine, name) for name in SHOWN)
            lines.append(f"| {kind} | {case} | {mine[0]['mode']} | {shown} | {span(mine, 'over_stream')} |")
    return "\n".join(lines) + "\n"


def run() -> list[Row]:
    """Every stream, rule and seed."""
    read = data.load("digits")
    rows = []
    for kind in STREAMS:
        for seed in accuracy.SEEDS:
            for case in CASES:
                rows.append(stream(kind, case, seed, read))
                print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = run()
    write("drift", rows, table(rows))
