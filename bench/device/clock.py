"""Times on a device: by events around queued calls, on the host without waiting, inside a captured graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

Call = Callable[[], object]
Name = TypeVar("Name")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_us(call: Call, calls: int = 20, repeats: int = 9) -> float:
    """Median microseconds of the device a call, over `repeats` batches of queued calls."""
    for _ in range(3):
        call()
    synchronize()
    return statistics.median(batch_us(call, calls) for _ in range(repeats))


def batch_us(call: Call, calls: int) -> float:
    if not torch.cuda.is_available():
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e6
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    synchronize()
    return start.elapsed_time(end) * 1e3 / calls


def host_us(call: Call, calls: int = 200, repeats: int = 5) -> float:
    """Median microseconds of the host a call; it does not wait for the device."""
    for _ in range(20):
        call()

    def batch() -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) * 1e6 / calls

    return statistics.median(batch() for _ in range(repeats))


def graph_us(call: Call, steps: int) -> float:
    """Microseconds a step of a captured graph in which call() runs `steps` of them. Raises what the capture raises."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return device_us(graph.replay) / steps


def launches(call: Call) -> int:
    """Kernels, copies and fills that one call starts on the device."""
    call()
    synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        call()
        synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiled.events())


def in_turn(calls: dict[Name, Call], count: int, repeats: int) -> dict[Name, float]:
    """Median microseconds of the device of each, measured in turn."""
    for call in calls.values():
        for _ in range(3):
            call()
    synchronize()
    samples: dict[Name, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(batch_us(call, count))
    return {name: statistics.median(found) for name, found in samples.items()}
