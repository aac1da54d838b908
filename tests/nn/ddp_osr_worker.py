"""One of two processes that train a normalised network on parts of one batch, MODE eager, compiled or overlapped (no
fallback, so that a step's moments travel while the layers behind work): `ddp_osr_worker.py FOLDER RANK SPLIT MODE`.
Rank 0 has SPLIT of 8 samples, rank 1 the others.

Each leaves its gradients, buffers and outputs. The loss is a sum over samples times the number of ranks, so that the
mean over ranks, which DistributedDataParallel takes, is the sum over the batch.
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastsnn


def network(mode="eager"):
    torch.manual_seed(1)
    fallback = {"max_ratio": None} if mode == "overlapped" else {}
    layers = [
        nn.Conv2d(2, 4, 3),
        fastsnn.OSR2d(4, 2, **fallback),
        fastsnn.LIF.for_rule("ottt"),
        nn.Conv2d(4, 3, 3),
        fastsnn.OSRLIF.for_rule("sltt", 3, 2, **({"max_ratio": 0.0} | fallback)),
        nn.Flatten(),
        nn.Linear(12, 5),
    ]
    return nn.Sequential(*layers).double()


def images():
    generator = torch.Generator().manual_seed(2)
    return 3 * torch.randn(4, 8, 2, 6, 6, generator=generator, dtype=torch.float64)


def train(call, net, x, weight=1.0):
    """Outputs of every step; gradients accumulate in net."""
    outputs = []
    for x_t in x:
        out = call(x_t)
        (weight * out.square().sum()).backward()
        outputs.append(out.detach())
    fastsnn.reset(net)
    return torch.stack(outputs)


def travelling(net):
    """For every normalisation whether a step's moments are on their way."""
    return [norm._pending is not None for norm in (net[1], net[4].norm)]


def check_overlap(net, x):
    """The moments of a step of a new sequence travel until the state is asked for."""
    net(x)
    assert travelling(net) == [True, True]
    assert [net[1].state.steps, net[4].norm.state.steps] == [1, 1]
    assert travelling(net) == [False, False]


def check_ots(x, max_ratio):
    """With OTS, whose statistics are a rank's own, the fused step is the two layers' in a group, too."""
    norm = {"steps": 2, "max_ratio": max_ratio}
    fused = fastsnn.OSRLIF.for_rule("ottt", 2, **norm, threshold="ots").double()
    composed = nn.Sequential(fastsnn.OSR2d(2, **norm), fastsnn.LIF.for_rule("ottt", threshold="ots")).double()
    results = []
    for net in (fused, composed):
        leaf = x.clone().requires_grad_()
        spikes = torch.stack([fastsnn.nn.plain(net(x_t)) for x_t in leaf])
        gradients = torch.autograd.grad((spikes * (leaf.detach() - 0.3)).sum(), (leaf, *net.parameters()))
        results.append((spikes, *gradients, *net.buffers()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def main(folder, rank, split, mode):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    net = network(mode)
    x = images().split([split, 8 - split], 1)[rank]
    layers = torch.compile(net, fullgraph=True, backend="aot_eager") if mode == "compiled" else net
    outputs = train(DistributedDataParallel(layers), net, x, 2.0)
    left = {"gradients": [p.grad for p in net.parameters()], "buffers": dict(net.named_buffers()), "outputs": outputs}
    torch.save(left, folder / f"rank{rank}")
    if mode == "overlapped":
        check_overlap(net, x[0])
    if mode != "compiled":
        check_ots(x, None if mode == "overlapped" else 0.0)
    torch.distributed.barrier()  # a rank that leaves early can take the other's connection down with it
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo's that lets go of a tensor while Python ends would abort (pytorch/pytorch#179291)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
