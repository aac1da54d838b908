"""One of two processes that train networks with MPDR by STGR under several wrappers: `mpdr_worker.py FOLDER RANK`.

MPDR's moments are those of a process's own samples, so one process stands for two by two copies of the network.
"""

import itertools
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastsnn
from fastsnn.online import MPDR, regularisation

STEPS, BATCHES, SAMPLES = 2, 3, 4
CASES = [*itertools.product("OA", (False, True))]  # mode, propagate


def sharded(net):
    mesh = init_device_mesh("cpu", (2,))
    for layer in net:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


WRAPPERS = {"ddp": lambda net: DistributedDataParallel(net, gradient_as_bucket_view=True), "fsdp2": sharded}


def parameters(net):
    return [(p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone() for p in net.parameters()]


def network(propagate):
    torch.manual_seed(1)
    neuron = {"v_threshold": 0.3, "mpdr": MPDR(0.0, 1.0, 0.1, propagate=propagate)}
    layers = [nn.Linear(5, 7), fastsnn.LIF.for_rule("ottt", **neuron)]
    layers += [nn.Linear(7, 6), fastsnn.LIF.for_rule("ottt", **neuron)]
    return nn.Sequential(nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:]), nn.Linear(6, 3)).double()


def batches():
    generator = torch.Generator().manual_seed(2)
    for _ in range(BATCHES):
        x = 2 * torch.randn(STEPS, SAMPLES, 5, generator=generator, dtype=torch.float64)
        yield x, torch.randint(0, 3, (SAMPLES,), generator=generator)


def stgr(net):
    optimizer = fastsnn.optim.STGR(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), a2=0.3)
    optimizer.epoch = 2
    return optimizer


def train(net, mode, share):
    optimizer = stgr(net)
    for x, y in batches():
        fastsnn.online.train_batch(net, x[:, share], y[share], optimizer, mode=mode)
    return parameters(net)


def by_hand(mode, propagate):
    """One process: the mean of two copies' gradients; STGR's previous gradient is the task's alone."""
    copies = [network(propagate) for _ in range(2)]
    weights = [[*net.parameters()] for net in copies]
    optimizer, previous = stgr(copies[0]), [torch.zeros_like(p) for p in weights[0]]
    for x, y in batches():
        total, task = ([torch.zeros_like(p) for p in weights[0]] for _ in range(2))
        for net in copies:
            fastsnn.reset(net)
        for t in range(STEPS):
            for i, net in enumerate(copies):
                loss = fastsnn.online.loss(net(x[t, i::2]), y[i::2], STEPS)
                of_task = torch.autograd.grad(loss, weights[i], retain_graph=True)
                of_both = torch.autograd.grad(loss + regularisation(net), weights[i])
                total = [a + g / 2 for a, g in zip(total, of_both, strict=True)]
                task = [a + g / 2 for a, g in zip(task, of_task, strict=True)]
            if mode == "O" or t == STEPS - 1:
                for p, before, gradient in zip(weights[0], previous, total, strict=True):
                    p.grad = gradient
                    if p in optimizer.state:
                        optimizer.state[p]["previous"].copy_(before)
                optimizer.step()
                copies[1].load_state_dict(copies[0].state_dict())
                previous = task
                total, task = ([torch.zeros_like(p) for p in weights[0]] for _ in range(2))
    return parameters(copies[0])


def main(folder, rank):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for mode, propagate in CASES:
        results["one", mode, propagate] = by_hand(mode, propagate)
        for name, wrap in WRAPPERS.items():
            results[name, mode, propagate] = train(wrap(network(propagate)), mode, slice(rank, None, 2))
    torch.save(results, folder / f"trained{rank}")
    torch.distributed.barrier()  # a rank that leaves early can take the other's connection down with it
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo's that lets go of a tensor while Python ends would abort (pytorch/pytorch#179291)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
