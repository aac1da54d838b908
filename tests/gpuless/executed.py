"""What the kernels execute and move per neuron and step: their PTX, counted instruction by instruction."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass

import torch

from .launches import SOURCES, Operation, launched
from .ptx import Counts

N = 2048  # whole blocks of every kernel
RULES = {None: ("sltt", "bptt", "ottt", "ndot", "ndot_released"), 16: ("sltt", "bptt", "ottt")}  # by T
BACKWARD = {("sltt", None), ("bptt", 16)}
DTYPES = torch.float32, torch.bfloat16
OPERATIONS = [Operation(rule, dtype, N, T) for dtype in DTYPES for T, rules in RULES.items() for rule in rules]


@dataclass
class Executed:
    """Per neuron and step, but for `launches`. `T`: steps of a launch, None for the step kernel's one.

    sector_use: share of the 32-byte sectors' bytes that each request of a warp wants; unique_sector_use: that the
    whole launch wants.
    """

    source: str
    name: str
    dtype: str
    T: int | None
    bytes_read: float
    bytes_written: float
    sector_use: float
    unique_sector_use: float
    instructions: float
    fmas: float
    launches: int


def count(source, operation, way, launches):
    """The row of one operation's forward or backward: the sum of its launches."""
    parts = [astuple(launch.run_apart(count=True)) for launch in launches]
    counts = Counts(*map(sum, zip(*parts, strict=True)))
    neurons = operation.n * (operation.T or 1)
    return Executed(
        source,
        f"{way} {operation.rule} {'sequence' if operation.T else 'step'}",
        str(operation.dtype).removeprefix("torch."),
        operation.T,
        counts.bytes_read / neurons,
        counts.bytes_written / neurons,
        counts.sector_use,
        counts.unique_sector_use,
        counts.instructions / neurons,
        counts.fmas / neurons,
        len(launches),
    )


def jobs():
    for source in SOURCES:
        for operation, (forward, backward) in zip(OPERATIONS, launched(source, OPERATIONS), strict=True):
            yield source, operation, "forward", forward
            if (operation.rule, operation.T) in BACKWARD:
                yield source, operation, "backward", backward


def rows():
    """Rows of both sources, in the order of OPERATIONS."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda job: count(*job), list(jobs())))
