"""The stages, most valuable first, and the process that each runs in: `python -m bench.device.stages TARGET`."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from dataclasses import dataclass, field

from .target import Stage, Target


@dataclass(frozen=True)
class Plan:
    """module: whose run(stage) it is. seconds: of the 8 minutes. environment: of its process."""

    name: str
    module: str
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)


PLANS = (
    Plan("environment", "environment", 28),
    Plan("families", "families", 50),
    Plan("suite", "suite", 100),
    Plan("bandwidth", "bandwidth", 25),
    Plan("latency", "latency", 25),
    Plan("peers cuda", "peers", 15, {"SJ_LIF_CUDA_IMPLEMENTATION": "cuda"}),
    Plan("peers triton", "peers", 15, {"SJ_LIF_CUDA_IMPLEMENTATION": "triton"}),
    Plan("peers auto", "peers", 15),
    Plan("layers", "layers", 50),
    Plan("capture", "capture", 15),
    Plan("profile", "profile", 40),
    Plan("sanitizer", "sanitizer", 50),
)


def main(text: str) -> int:
    """Imports, waits for the word to start, runs."""
    target = Target(**json.loads(text))
    plan = next(plan for plan in PLANS if plan.name == target.stage)
    module = importlib.import_module(f".{plan.module}", __package__)
    if sys.stdin.readline() == "":
        return 0
    stage = Stage(target)
    try:
        module.run(stage)
    except BaseException as error:
        stage.row(
            case="stage", error=f"{type(error).__name__}: {str(error)[:400]}", trace=traceback.format_exc()[-1500:]
        )
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
