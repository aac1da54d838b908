"""One of two processes that train the same network by STGR: `stgr_worker.py FOLDER RANK`. Leaves its weights there."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastsnn


def network():
    torch.manual_seed(1)
    layers = [nn.Linear(7, 11), fastsnn.LIF.for_rule("sltt"), nn.Linear(11, 3)]
    return nn.Sequential(*layers).double()


def train(net, share):
    """Three epochs of three steps each, an update at every step."""
    optimizer = fastsnn.optim.STGR(torch.optim.SGD(net.parameters(), 0.1, 0.9), 0.3, 0.5, a2=1.0)
    generator = torch.Generator().manual_seed(2)
    for optimizer.epoch in range(3):
        for x in 3 * torch.randn(3, 4, 7, generator=generator, dtype=torch.float64):
            net(x[share]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        fastsnn.reset(net)
    return [p.detach() for p in net.parameters()]


def main(folder, rank):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    # gradients that are views of DDP's buckets are the harder case
    net = DistributedDataParallel(network(), gradient_as_bucket_view=True)
    torch.save(train(net, slice(rank, None, 2)), folder / f"weights{rank}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
