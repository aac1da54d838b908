"""Streaming inference at batch 1: frames come one at a time, the network keeps its potentials between them.

    python examples/streaming.py [FILE]

Packs a small network, writes it to FILE, loads it again and streams noise through it.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import fastsnn


def network() -> nn.Sequential:
    """Float first convolution and classifier, binary synapses between."""
    return nn.Sequential(
        nn.Conv2d(2, 32, 3, padding=1),
        fastsnn.LIF.for_rule("sltt"),
        fastsnn.BinaryConv2d(32, 64, 3, padding=1, stride=2),
        nn.BatchNorm2d(64),
        fastsnn.LIF.for_rule("sltt"),
        nn.Flatten(),
        fastsnn.BinaryLinear(64 * 16 * 16, 128),
        nn.BatchNorm1d(128),
        fastsnn.LIF.for_rule("sltt"),
        nn.Linear(128, 10),
    )


@torch.no_grad()
def stream(net: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """Running sum of the outputs over frames [T, channels, height, width], a row a frame."""
    fastsnn.reset(net)
    return torch.cat([net(frame.unsqueeze(0)) for frame in frames]).cumsum(0)


def main(path: Path) -> torch.Tensor:
    torch.manual_seed(0)
    fastsnn.deploy.save(fastsnn.deploy.pack(network().eval()), path)
    net = fastsnn.deploy.load(path, network())
    frames = torch.randn(50, 2, 32, 32)
    start = time.perf_counter()
    sums = stream(net, frames)
    print(fastsnn.deploy.sizes(net))
    print(f"{1e3 * (time.perf_counter() - start) / len(frames):.2f} ms a frame, class {sums[-1].argmax().item()}")
    return sums


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "net.safetensors")
