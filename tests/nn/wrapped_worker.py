"""One of two processes that train the same networks under several wrappers: `wrapped_worker.py FOLDER RANK`."""

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastsnn

UPDATES, STEPS, BATCH = 12, 2, 4
CASES = {"ottt": ("ottt", 0.0), "ndot": ("ndot", 0.0), "ftrl": ("ottt", 0.3)}  # rule, and rho of FTRL


def network(rule):
    torch.manual_seed(1)
    neuron = {"v_threshold": 0.3}
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), fastsnn.LIF.for_rule(rule, **neuron), fastsnn.Scale()),
        nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding=1), fastsnn.LIF.for_rule(rule, **neuron), nn.Flatten()
        ),
        nn.Linear(45, 3),
    ).double()


def sharded(net):
    mesh = init_device_mesh("cpu", (2,))
    for layer in net:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def in_parts(**options):
    """The body and the readout in a wrapper each: traced spikes leave the one and enter the other."""

    def wrap(net):
        return nn.Sequential(DistributedDataParallel(net[:2], **options), DistributedDataParallel(net[2], **options))

    return wrap


WRAPPERS = {
    "fsdp2": sharded,
    "ddp": in_parts(),
    "static_graph": in_parts(static_graph=True),
    "find_unused_parameters": in_parts(find_unused_parameters=True),
}


def parameters(net):
    whole = (p.full_tensor() if hasattr(p, "full_tensor") else p for p in net.parameters())
    return [p.detach().clone() for p in whole]


def train(net, share, rho):
    """Mode O, on a share of the samples."""
    near = fastsnn.online.FTRL(net, rho) if rho else lambda: 0.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(2)
    for _ in range(UPDATES // STEPS):
        fastsnn.reset(net)
        for _ in range(STEPS):
            x = 2 * torch.randn(BATCH, 2, 6, 6, generator=generator, dtype=torch.float64)
            optimizer.zero_grad()
            (net(x[share]).square().mean() + near()).backward()
            optimizer.step()
    return parameters(net)


def main(folder, rank):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for case, (rule, rho) in CASES.items():
        results["start", case] = parameters(network(rule))
        results["one", case] = train(network(rule), slice(None), rho)
        for name, wrap in WRAPPERS.items():
            results[name, case] = train(wrap(network(rule)), slice(rank, None, 2), rho)
    if rank == 0:
        torch.save(results, folder / "trained")
    torch.distributed.barrier()  # a rank that leaves early can take the other's connection down with it
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo's that lets go of a tensor while Python ends would abort (pytorch/pytorch#179291)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
