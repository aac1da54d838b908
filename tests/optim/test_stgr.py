"""STGR around an optimizer against the formulas of equations/rptt.md."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

import fastsnn
from fastsnn.ops.stgr.graph import stgr_sgd
from fastsnn.optim import STGR, rho

from ..cases import assert_same
from . import stgr_worker

LR, MOMENTUM, LAM, GAM, A2 = 0.1, 0.9, 0.75, 1.25, 0.4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def weights(dtype=torch.float64):
    torch.manual_seed(3)
    return [nn.Parameter(torch.randn(5, 7, dtype=dtype)), nn.Parameter(torch.randn(2049, dtype=dtype))]


def gradients(steps, like):
    torch.manual_seed(4)
    return [[torch.randn_like(p) for p in like] for _ in range(steps)]


def run(optimizer, parameters, grads, first_epoch=0):
    """A step for each gradient, an epoch every two steps."""
    for i, step in enumerate(grads):
        optimizer.epoch = first_epoch + i // 2
        for p, g in zip(parameters, step, strict=True):
            p.grad = g.clone()
        optimizer.step()


def expected(parameters, grads, decay=0.0, nesterov=False, dampening=0.0):
    """SGD with momentum on g + a2*(lam*(W - W_ema) + gam*g_prev); W_ema moves after each step."""
    found = []
    for w, own in zip(parameters, zip(*grads, strict=True), strict=True):
        w, average, previous, buffer = w.detach().clone(), w.detach().clone(), torch.zeros_like(w), None
        for i, g in enumerate(own):
            kept = max(0.01, 1 / (1 + 0.1 * (i // 2)))
            d = g + A2 * LAM * (w - average) + A2 * GAM * previous + decay * w
            buffer = d if buffer is None else MOMENTUM * buffer + (1 - dampening) * d
            w = w - LR * (d + MOMENTUM * buffer if nesterov else buffer)
            average, previous = kept * average + (1 - kept) * w, g
        found.append((w, average, previous, buffer))
    return found


def outcome(optimizer, parameters):
    inner = optimizer.optimizer.state
    return [
        (p.detach(), *(optimizer.state[p][name] for name in ("average", "previous")), inner[p]["momentum_buffer"])
        for p in parameters
    ]


@pytest.mark.parametrize("native", [True, False], ids=["native", "foreach"])
@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.2}, {"nesterov": True}, {"dampening": 0.3}],
    ids=["plain", "decay", "nesterov", "dampening"],
)
def test_steps_follow_the_formulas(options, native, monkeypatch):
    if not native:
        monkeypatch.setattr(fastsnn.optim, "_fusible", lambda optimizer: False)
    parameters = weights()
    grads = gradients(7, parameters)
    decay = options.get("weight_decay", 0.0)
    rest = {name: value for name, value in options.items() if name != "weight_decay"}
    truth = expected(parameters, grads, decay, **rest)
    optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM, **options), LAM, GAM, a2=A2)
    run(optimizer, parameters, grads)
    assert_same(outcome(optimizer, parameters), truth, **CLOSE)
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, grads[-1], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_native_step_is_that_of_foreach(dtype, monkeypatch):
    results = []
    for fusible in (fastsnn.optim._fusible, lambda optimizer: False):
        monkeypatch.setattr(fastsnn.optim, "_fusible", fusible)
        parameters = weights(dtype)
        parameters.append(nn.Parameter(torch.randn(3, 4, 5, 6, dtype=dtype).to(memory_format=torch.channels_last)))
        optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM), LAM, GAM, a2=A2)
        run(optimizer, parameters, gradients(5, parameters))
        results.append(outcome(optimizer, parameters))
    assert_same(results[0], results[1], rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


def test_the_defaults_are_the_appendixs():
    """lambda_STGR = 0.006 is the outer strength, gamma = 0.5 the coefficient inside."""
    w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = STGR(torch.optim.SGD([w], 1.0))
    run(optimizer, [w], [[torch.ones(3).double()], [torch.zeros(3).double()]])
    # W = -1 after the first step; then 0.006*(W - W_0) + 0.003*g
    assert_same(w.detach(), torch.full((3,), -1 + 0.006 - 0.003, dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_kept_task_gradient_is_the_previous_one(scale):
    """Other terms' gradients count in the step, not in the g_{t-1} of the next."""
    w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = STGR(torch.optim.SGD([w], 1.0), LAM, GAM, a2=A2)
    w.grad = scale * torch.ones(3, dtype=torch.float64)
    optimizer.keep_task_gradient(scale)
    w.grad += scale * 2
    w.grad /= scale  # GradScaler.unscale_
    optimizer.step()
    assert_same(w.detach(), torch.full_like(w, -3.0).detach(), **CLOSE)
    assert_same(optimizer.state[w]["previous"], torch.ones(3, dtype=torch.float64))
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert_same(optimizer.state[w]["previous"], torch.zeros(3, dtype=torch.float64))
    assert_same(w.detach(), torch.full_like(w, -3 + A2 * (3 * LAM - GAM)).detach(), **CLOSE)


def test_the_native_step_runs_where_it_should():
    parameters = weights()
    run(STGR(torch.optim.SGD(parameters, LR, MOMENTUM)), parameters, gradients(1, parameters))
    fusible = [
        torch.optim.SGD(parameters, LR, MOMENTUM),
        torch.optim.SGD(parameters, LR),
        torch.optim.SGD(parameters, LR, MOMENTUM, maximize=True),
        torch.optim.Adam(parameters),
    ]
    assert [fastsnn.optim._fusible(optimizer) for optimizer in fusible] == [True, False, False, False]
    with fastsnn.use_backend("reference"):
        assert not fastsnn.optim._fusible(fusible[0])


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, LR, MOMENTUM), torch.optim.Adam], ids=["SGD", "Adam"])
def test_a_backward_through_weights_that_moved_raises(make):
    w = nn.Parameter(torch.randn(5))
    optimizer = STGR(make([w]))
    loss = w.square().sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_threads_give_the_same_bits():
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(100_003))]
        optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM), LAM, GAM, a2=A2)
        run(optimizer, parameters, gradients(3, parameters), first_epoch=1)
        results.append(outcome(optimizer, parameters))
    assert_same(results[0], results[1])


@pytest.mark.parametrize(("epoch", "kept"), [(0, 1.0), (10, 0.5), (90, 0.1), (990, 0.01), (5000, 0.01)])
def test_rho(epoch, kept):
    assert rho(epoch) == pytest.approx(kept)


def test_epoch_0_keeps_the_first_weights():
    parameters = weights()
    first = [p.detach().clone() for p in parameters]
    optimizer = STGR(torch.optim.Adam(parameters))
    run(optimizer, parameters, gradients(2, parameters))
    assert_same([optimizer.state[p]["average"] for p in parameters], first)


def test_without_weights_it_is_the_plain_optimizer():
    plain, wrapped = weights(), weights()
    inner = torch.optim.AdamW(plain)
    run(inner, plain, gradients(4, plain))
    run(STGR(torch.optim.AdamW(wrapped), lam=0, gam=0), wrapped, gradients(4, wrapped))
    assert_same(wrapped, plain)


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, LR, MOMENTUM), torch.optim.Adam], ids=["SGD", "Adam"])
def test_state_round_trip_goes_on_bitwise(make, tmp_path):
    whole, parts = weights(torch.float32), weights(torch.float32)
    grads = gradients(6, whole)
    run(STGR(make(whole), LAM, GAM, a2=A2), whole, grads, first_epoch=0)
    first = STGR(make(parts), LAM, GAM, a2=A2)
    run(first, parts, grads[:4])
    torch.save(first.state_dict(), tmp_path / "state")
    second = STGR(make(parts), 9.0, 9.0)
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert second.epoch == 1
    assert second.param_groups is second.optimizer.param_groups
    run(second, parts, grads[4:], first_epoch=2)
    assert_same(parts, whole)


def test_a_state_saved_in_another_memory_order_goes_on(tmp_path):
    """Weights that turned to channels_last after the state was saved."""
    torch.manual_seed(0)
    plain = [nn.Parameter(torch.randn(3, 4, 5, 6, dtype=torch.float64))]
    turned = [nn.Parameter(plain[0].detach().clone())]
    first, second = (STGR(torch.optim.SGD(p, LR, MOMENTUM), LAM, GAM, a2=A2) for p in (plain, turned))
    grads = gradients(4, plain)
    run(first, plain, grads[:2])
    turned[0].data = plain[0].detach().contiguous(memory_format=torch.channels_last)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(first, plain, grads[2:], first_epoch=1)
    run(second, turned, [[g.contiguous(memory_format=torch.channels_last) for g in own] for own in grads[2:]], 1)
    assert_same(turned[0].detach(), plain[0].detach(), **CLOSE)


def test_it_keeps_two_tensors_a_parameter():
    parameters = weights()
    optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM))
    run(optimizer, parameters, gradients(3, parameters))
    held = [value for state in optimizer.state.values() for value in state.values()]
    assert sum(tensor.numel() for tensor in held) == 2 * sum(p.numel() for p in parameters)
    assert len({tensor.data_ptr() for tensor in [*held, *parameters]}) == 6


def test_parameter_groups_have_their_own_values():
    parameters = weights()
    start = [p.detach().clone() for p in parameters]
    inner = torch.optim.SGD([{"params": parameters[:1], "lam": 0.0, "gam": 0.0}], LR, MOMENTUM)
    optimizer = STGR(inner, LAM, GAM, a2=A2)
    optimizer.add_param_group({"params": parameters[1:], "lr": 0.01})
    assert [(g["lam"], g["gam"], g["lr"]) for g in inner.param_groups] == [(0.0, 0.0, LR), (LAM, GAM, 0.01)]
    plain = [nn.Parameter(start[0])]
    grads = gradients(3, parameters)
    run(torch.optim.SGD(plain, LR, MOMENTUM), plain, [g[:1] for g in grads])
    run(optimizer, parameters, grads)
    assert_same(parameters[0], plain[0], **CLOSE)
    assert not torch.equal(parameters[1], start[1])


def test_a_parameter_without_gradient_is_left_out():
    parameters = weights()
    optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM))
    before = parameters[1].detach().clone()
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    assert_same(parameters[1].detach(), before)
    assert parameters[1] not in optimizer.state


def test_schedulers_take_it(recwarn):
    parameters = weights()
    optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    run(optimizer, parameters, gradients(1, parameters))
    scheduler.step()
    assert optimizer.optimizer.param_groups[0]["lr"] == LR / 2
    inner = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, 1, 0.5)
    run(optimizer, parameters, gradients(1, parameters))
    inner.step()
    assert not [w for w in recwarn if "lr_scheduler.step" in str(w.message)]


def test_step_with_a_closure_returns_its_loss():
    parameters = weights()
    optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM))

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in parameters)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first


def test_grad_scaler_unscales_first_and_skips_overflow():
    scaled, plain = weights(torch.float32), weights(torch.float32)
    wrapped = STGR(torch.optim.SGD(scaled, LR, MOMENTUM), LAM, GAM, a2=A2)
    reference = STGR(torch.optim.SGD(plain, LR, MOMENTUM), LAM, GAM, a2=A2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (1.0, float("inf"), 2.0):
        for optimizer, parameters in ((wrapped, scaled), (reference, plain)):
            optimizer.zero_grad()
            loss = sum(factor * p.sin().sum() for p in parameters)
            (scaler.scale(loss) if optimizer is wrapped else loss).backward()
        scaler.step(wrapped)
        scaler.update()
        if factor < float("inf"):
            reference.step()
    assert_same(scaled, plain)
    assert_same([wrapped.state[p]["previous"] for p in scaled], [reference.state[p]["previous"] for p in plain])


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize(("wrap", "inner"), [("ddp", "sgd"), ("fsdp2", "sgd"), ("fsdp2", "adam")])
def test_two_processes_equal_one(tmp_path, wrap, inner):
    worker = Path(__file__).with_name("stgr_worker.py")
    ranks = [subprocess.Popen([sys.executable, worker, tmp_path, str(rank), wrap, inner]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    one = stgr_worker.train(stgr_worker.network(), slice(None), inner)
    first, second = (torch.load(tmp_path / f"weights{rank}") for rank in range(2))
    assert_same(first, second)
    assert_same(first, one, rtol=1e-10, atol=1e-12)


def smooth(w, x):
    return (x @ w).tanh().pow(2).sum() + (w**3).sum() / 7


def test_hessian_vector_product_against_the_explicit_hessian():
    torch.manual_seed(5)
    w = nn.Parameter(torch.randn(6, dtype=torch.float64))
    xs = torch.randn(4, 3, 6, dtype=torch.float64)
    optimizer = STGR(torch.optim.SGD([w], LR, MOMENTUM), LAM, GAM, a2=A2, first_order=False)
    truth, start, buffer = w.detach().clone(), w.detach().clone(), torch.zeros_like(w)
    for t, x in enumerate(xs):
        g = torch.func.grad(smooth)(truth, x)
        d = g + A2 * LAM * (truth - start)
        if t:
            previous = xs[t - 1]
            hessian = torch.autograd.functional.hessian(lambda w, x=previous: smooth(w, x), truth)
            d = d + A2 * GAM * hessian @ torch.func.grad(smooth)(truth, previous)
        buffer = MOMENTUM * buffer + d
        truth = truth - LR * buffer
        optimizer.step(lambda x=x: smooth(w, x))
    assert_same(w.detach(), truth, **CLOSE)
    first_order = nn.Parameter(start.clone())
    other = STGR(torch.optim.SGD([first_order], LR, MOMENTUM), LAM, GAM, a2=A2)
    for x in xs:
        first_order.grad = torch.func.grad(smooth)(first_order.detach(), x)
        other.step()
    assert not torch.allclose(first_order, w)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_the_second_order_is_for_one_process(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = STGR(torch.optim.SGD(net.parameters(), LR, MOMENTUM), first_order=False)
        with pytest.raises(RuntimeError, match=r"DistributedDataParallel does not average.*first_order=True"):
            optimizer.step(lambda: net(torch.ones(4, 3)).square().mean())
        assert_same([p.detach() for p in net.parameters()], before)
        optimizer.step(lambda: net.module(torch.ones(4, 3)).square().mean())
        assert not torch.equal(net.module.weight, before[0])
    finally:
        torch.distributed.destroy_process_group()


def test_deepcopy_keeps_wrapper_and_optimizer_together():
    parameters = weights()
    optimizer = STGR(torch.optim.SGD(parameters, LR, MOMENTUM))
    twin = copy.deepcopy(optimizer)
    assert twin.param_groups is twin.optimizer.param_groups


def test_bad_input():
    parameters = weights()
    sgd = torch.optim.SGD(parameters, LR)
    with pytest.raises(TypeError, match="must be a"):
        STGR(parameters)
    for values in ({"lam": -1}, {"gam": float("inf")}, {"lam": float("nan")}, {"a2": -0.1}):
        with pytest.raises(ValueError, match=next(iter(values))):
            STGR(sgd, **values)
    with pytest.raises(ValueError, match="not STGR's state"):
        STGR(sgd).load_state_dict(sgd.state_dict())
    with pytest.raises(ValueError, match="closure"):
        STGR(sgd, first_order=False).step()
    embedding = nn.Embedding(4, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        STGR(torch.optim.SGD(embedding.parameters(), LR)).step()


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_default_device_does_not_matter(device):
    grads = gradients(3, weights())
    results = []
    for default in ("cpu", device):
        parameters = weights()
        optimizer = STGR(torch.optim.SGD(parameters, LR, momentum=MOMENTUM), LAM, GAM, a2=A2)
        with torch.device(default):
            run(optimizer, parameters, grads)
        results.append(outcome(optimizer, parameters))
    assert_same(results[1], results[0])


INNER = {
    "sgd": lambda p: torch.optim.SGD(p, LR, momentum=MOMENTUM),
    "adam": lambda p: torch.optim.Adam(p, LR),
}
SCHEDULES = {
    "one_cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=6),
    "cyclic": lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.5, 2),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("inner", INNER)
def test_schedulers_find_what_the_inner_optimizer_has(inner, schedule):
    seen = []
    for wrap in (lambda o: o, lambda o: STGR(o, LAM, GAM, a2=A2)):
        parameters = weights()
        optimizer = wrap(INNER[inner](parameters))
        scheduler = SCHEDULES[schedule](optimizer)
        rows = []
        for _ in range(5):
            for p in parameters:
                p.grad = torch.ones_like(p)
            optimizer.step()
            scheduler.step()
            group = optimizer.param_groups[0]
            rows.append((group["lr"], group.get("momentum"), group.get("betas")))
        seen.append(rows)
    assert seen[1] == seen[0]


def test_first_order_is_a_flag():
    with pytest.raises(TypeError, match=r"first_order is 'no'.*True or False"):
        STGR(torch.optim.SGD(weights(), LR), first_order="no")


@pytest.mark.parametrize("how", ["at once", "late", "to the wrapped optimizer", "after loading"])
def test_a_group_that_is_added_steps_as_one_that_was_there(how):
    first, second = (nn.Parameter(torch.ones(3)) for _ in range(2))
    groups = [{"params": [first]}, {"params": [second], "lr": 0.05}]
    inner = torch.optim.SGD(groups if how == "at once" else groups[:1], lr=0.1, momentum=0.9)
    optimizer = STGR(inner)
    if how == "after loading":
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if how != "at once":
        (inner if how == "to the wrapped optimizer" else optimizer).add_param_group(groups[1])
    for step in range(3):
        for p in (first, second):
            p.grad = torch.full((3,), step + 1.0)
        optimizer.step()
    assert optimizer.param_groups is inner.param_groups
    expected = [stepped_alone(lr) for lr in (0.1, 0.05)]
    assert all(map(torch.equal, (first, second), expected))


def stepped_alone(lr):
    p = nn.Parameter(torch.ones(3))
    optimizer = STGR(torch.optim.SGD([p], lr=lr, momentum=0.9))
    for step in range(3):
        p.grad = torch.full((3,), step + 1.0)
        optimizer.step()
    return p


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_step_is_an_operator(dtype):
    numbers = {"lam": 0.2, "gam": 0.1, "rho": 0.9, "lr": 0.1, "momentum": 0.9, "undamped": 1.0, "decay": 1e-3}
    torch.manual_seed(5)
    given = {
        name: torch.randn(5, 7, dtype=dtype) for name in ("grad", "weight", "average", "previous", "momentum_buffer")
    }
    arguments = stgr_sgd.operands(**given, first=False, nesterov=True, **numbers)
    opcheck(stgr_sgd.op, tuple(arguments))


def test_a_trace_takes_the_fused_step():
    """As eager, in place and bit for bit."""
    eager, traced = weights(), weights()
    optimizers = [STGR(torch.optim.SGD(p, LR, MOMENTUM)) for p in (eager, traced)]
    first, then = gradients(2, eager)
    for parameters, optimizer in zip((eager, traced), optimizers, strict=True):
        run(optimizer, parameters, [first])

    def step(*grads):
        for p, g in zip(traced, grads, strict=True):
            p.grad = g
        optimizers[1].step()
        return grads[0]

    graph = make_fx(step)(*(g.clone() for g in then))
    assert [str(n.target) for n in graph.graph.nodes].count("fastsnn.stgr_sgd.default") == len(traced)
    run(optimizers[0], eager, [then])
    for a, b in zip(outcome(optimizers[0], eager), outcome(optimizers[1], traced), strict=True):
        for mine, other in zip(a, b, strict=True):
            assert torch.equal(mine, other)
