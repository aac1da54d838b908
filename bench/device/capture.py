"""Which layers a CUDA graph captures, and what their training step then costs. Last of its process: a capture that
fails leaves torch's generator unusable."""

from __future__ import annotations

import torch

from .clock import graph_us
from .layers import normalised_layers
from .target import Stage


def run(stage: Stage) -> None:
    if not stage.target.is_gpu:
        stage.row(case="capture", error="needs a device")
        return
    for (backend, name), call in normalised_layers(stage).items():
        row = {"case": name, "backend": backend}
        try:
            stage.row(**row, graph_us=graph_us(call, 1))
        except Exception as error:
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
            stage.row(**row, error=str(first)[:300])
            torch.cuda.synchronize()
