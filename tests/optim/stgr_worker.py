"""One of two processes that train the same network by STGR: `stgr_worker.py FOLDER RANK ddp|fsdp2 sgd|adam`. Leaves its
weights there."""

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastsnn


def network():
    torch.manual_seed(1)
    layers = [nn.Linear(7, 11), fastsnn.LIF.for_rule("sltt"), nn.Linear(11, 3)]
    return nn.Sequential(*layers).double()


INNER = {"sgd": lambda p: torch.optim.SGD(p, 0.1, 0.9), "adam": lambda p: torch.optim.Adam(p, 0.1)}


def train(net, share, inner="sgd"):
    """Three epochs of three steps each, an update at every step."""
    optimizer = fastsnn.optim.STGR(INNER[inner](net.parameters()), 0.3, 0.5, a2=1.0)
    generator = torch.Generator().manual_seed(2)
    for optimizer.epoch in range(3):
        for x in 3 * torch.randn(3, 4, 7, generator=generator, dtype=torch.float64):
            net(x[share]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        fastsnn.reset(net)
    optimizer.load_state_dict(optimizer.state_dict())
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in net.parameters()]


def ddp(net):
    # gradients that are views of DDP's buckets are the harder case
    return DistributedDataParallel(net, gradient_as_bucket_view=True)


def fsdp2(net):
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(net[0], mesh=mesh)
    return fully_shard(net, mesh=mesh)


def main(folder, rank, wrap, inner):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    net = {"ddp": ddp, "fsdp2": fsdp2}[wrap](network())
    torch.save([p.detach() for p in train(net, slice(rank, None, 2), inner)], folder / f"weights{rank}")
    torch.distributed.barrier()  # a rank that leaves early can take the other's connection down with it
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo's that lets go of a tensor while Python ends would abort (pytorch/pytorch#179291)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
