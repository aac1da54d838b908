"""What a stage runs on, and where its rows go."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Target:
    """device: "cuda", or "cpu" for a rehearsal: the CPU kernels and the reference stand in, at tiny sizes. seconds: of
    this stage."""

    device: str
    out: str
    tests: str
    stage: str = ""
    seconds: float = 0.0

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def backends(self) -> tuple[str, ...]:
        return ("cuda", "triton") if self.is_gpu else ("cpu", "reference")

    def size(self, full: int, rehearsed: int) -> int:
        return full if self.is_gpu else rehearsed

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Stage:
    """A running stage: appends its rows to OUT/rows.jsonl and knows how much of its time is left."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.end = time.monotonic() + target.seconds

    def left(self) -> float:
        return self.end - time.monotonic()

    def row(self, **values: Any) -> None:
        line = json.dumps({"stage": self.target.stage, **values}) + "\n"
        with open(Path(self.target.out) / "rows.jsonl", "a") as file:
            file.write(line)

    def attempt(self, case: str, call: Callable[[], Any], needs: float = 3.0) -> Any:
        """call(), or a row that says why there is no result."""
        if self.left() < needs:
            self.row(case=case, error="no time left")
            return None
        try:
            return call()
        except Exception as error:
            why = f"{type(error).__name__}: {str(error)[:400]}"
            self.row(case=case, error=why, trace=traceback.format_exc()[-1500:])
            return None
