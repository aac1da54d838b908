"""One of two processes that train the same network: `ddp_worker.py FOLDER RANK`. Rank 0 leaves the gradients there."""

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastsnn


def network():
    torch.manual_seed(1)
    layers = [nn.Linear(7, 11), fastsnn.LIF.for_rule("ottt"), fastsnn.WSLinear(11, 9)]
    return nn.Sequential(*layers, fastsnn.LIF.for_rule("ottt"), nn.Linear(9, 3)).double()


def images():
    generator = torch.Generator().manual_seed(2)
    return 3 * torch.randn(3, 4, 7, generator=generator, dtype=torch.float64)


def loss(out):
    return out.square().mean()


def main(folder, rank):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    net = DistributedDataParallel(network())
    for x_t in images():
        loss(net(x_t[rank::2])).backward()
    if rank == 0:
        torch.save([p.grad for p in net.parameters()], folder / "gradients")
    torch.distributed.barrier()  # a rank that leaves early can take the other's connection down with it
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo's that lets go of a tensor while Python ends would abort (pytorch/pytorch#179291)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
