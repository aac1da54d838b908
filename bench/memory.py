"""Peak memory of training against T: `python -m bench.memory`.

One batch of two images, SGD with momentum, at T = 4 and T = 32: OTTT in modes O and A beside BPTT, on the same network.
Counted, not timed, and the same at every run: the largest sum of live tensor bytes, weights, gradients, momentum and
input included. Writes memory.csv (one row a run) and memory.md into bench/results.
"""

from __future__ import annotations

from typing import Any

import torch

from fastsnn import data, models, online
from fastsnn.ops.common.dispatch import straight

from .accuracy import Row, write
from .counts import PeakMemory

STEPS = (4, 32)
BATCH = 2
CASES = (("ottt", "O"), ("ottt", "A"), ("bptt", "A"))
# by the row's name: model, edge of the images, further options
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "NF-ResNet-34, 64x64": ("nf_resnet34", 64, {}),
    "Spikformer-4-256, 32x32": ("spikformer", 32, {"norm": "osr"}),
    "ResNet-18, 32x32": ("preact_resnet18", 32, {"norm": "bn"}),
}


def train(name: str, edge: int, options: dict[str, Any], mode: str, steps: int) -> None:
    """A new network and one batch."""
    torch.manual_seed(0)
    net = models.create_model(name, **options)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    x, y = torch.randn(BATCH, 3, edge, edge), torch.arange(BATCH)
    online.train_batch(net, data.direct(x, steps), y, optimizer, mode=mode)


def peak_bytes(network: str, rule: str, mode: str, steps: int) -> int:
    """Largest sum of live tensor bytes from building the network to the end of the batch."""
    name, edge, options = NETWORKS[network]
    counted = {"steps": steps} if "norm" in options else {}
    with straight(), PeakMemory() as memory:
        train(name, edge, {"rule": rule, **options, **counted}, mode, steps)
    return memory.peak


def rows() -> list[Row]:
    """Every network, rule and T."""
    found = []
    for network in NETWORKS:
        for rule, mode in CASES:
            peaks = {f"bytes_t{steps}": peak_bytes(network, rule, mode, steps) for steps in STEPS}
            found.append({"network": network, "rule": rule, "mode": mode, **peaks})
            print(found[-1], flush=True)
    return found


def table(rows: list[Row]) -> str:
    """MB at each T and their ratio."""
    few, many = STEPS
    lines = [f"| network | rule | mode | T = {few} (MB) | T = {many} (MB) | ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        a, b = row[f"bytes_t{few}"], row[f"bytes_t{many}"]
        about = f"{row['network']} | {row['rule']} | {row['mode']}"
        lines.append(f"| {about} | {a / 1e6:.1f} | {b / 1e6:.1f} | {b / a:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = rows()
    write("memory", measured, table(measured))
