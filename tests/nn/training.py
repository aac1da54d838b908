"""Training by eager and compiled networks, with all that they hold, for comparison."""

import torch

import fastsnn
from fastsnn.nn.osr import OSR
from fastsnn.online import regularisation


def _state(module):
    """What a layer remembers; what has no steps counts as nothing."""
    if isinstance(module, OSR):
        steps, *moments = module.state
        return [int(steps), *(moments if steps else [])]
    if isinstance(module, fastsnn.EMPF):
        return [module.v, int(module.state.t)]
    if isinstance(module, fastsnn.LIF):
        stabilizer = module.stabilizer
        kept = [] if stabilizer is None else [int(stabilizer.state.steps), stabilizer.state.quantile]
        return [*module.state, module.v_seq, *kept]
    return []


def remembered(net):
    """What the layers of a network remember between steps."""
    return [value for module in net.modules() for value in _state(module)]


def held(net):
    """State, statistics and gradients."""
    buffers = [buffer.clone() for buffer in net.buffers()]
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    return [*remembered(net), *buffers, *gradients]


def train_by_step(net, step, x):
    """Mode O: an update at every t of a new sequence."""
    optimizer, results = torch.optim.SGD(net.parameters(), lr=0.1), []
    torch.manual_seed(2)
    fastsnn.reset(net)
    for x_t in x:
        fastsnn.detach(net)
        out = step(x_t)
        optimizer.zero_grad()
        (out.square().sum() + regularisation(net)).backward()
        optimizer.step()
        results += [out.detach(), *held(net)]
    return [*results, *(p.detach().clone() for p in net.parameters())]


def one_call(net, step, x):
    """A sequence in one call, with backward."""
    net.zero_grad()
    fastsnn.reset(net)
    out = step(x)
    (out.square().sum() + regularisation(net)).backward()
    return [out.detach(), *held(net)]
