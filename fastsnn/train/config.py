"""What `fastsnn train` can be asked for. Imports no torch, so that a wrong option is named at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import RunError
from ..names import BACKENDS, DATASETS, LARGEST, RULES, VERSIONS, through_time

ATTENTION = ("none", "I", "II")
WEIGHTS = ("binary", "float")
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("data", "rule", "mode", "device", "version", "seca", "weights"), (str,)),
    **dict.fromkeys(("steps", "epochs", "batch_size", "seed"), (int,)),
    "lr": (float, int),
    "backend": (str, type(None)),
    "parallel": (bool,),
    "backward_steps": (int, type(None)),
}


@dataclass(frozen=True)
class Training:
    """What a --rule trains with: the neurons' gradient rule, RPTT's regularisers at the values of CIFAR-10, and what
    normalises the currents ("bn", the vanilla batch norm that OSR's paper compares with, "osr"; None: the weights are
    standardised) and the threshold. Neurons have soft reset, also with OSR, whose released code made the paper's tables
    with it; the paper prints a hard one."""

    rule: str
    stgr: bool = False
    mpdr: bool = False
    norm: str | None = None
    threshold: str | None = None

    @property
    def family(self) -> str:
        """Of the neurons' kernels."""
        return "empf" if self.rule == "empf" else "mpdr" if self.mpdr else "osr" if self.norm == "osr" else "lif"


RPTT_ABLATION = {
    "osbp": Training("sltt"),
    "osbp+stgr": Training("sltt", stgr=True),
    "osbp+mpdr": Training("sltt", mpdr=True),
    "rptt": Training("sltt", stgr=True, mpdr=True),
}
OSR_ABLATION = {
    "bn": Training("sltt", norm="bn"),
    "osr": Training("sltt", norm="osr"),
    "osr+ots": Training("sltt", norm="osr", threshold="ots"),
}
RECIPES = {**{rule: Training(rule) for rule in RULES}, **RPTT_ABLATION, **OSR_ABLATION, "empf": Training("empf")}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    """A value in a message, short."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"{type(value).__name__} with too many digits to show"
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Config:
    """All that determines a run. Raises RunError for values that do not fit together."""

    data: str = "digits"
    rule: str = "ottt"
    mode: str = "O"
    steps: int = 6
    epochs: int = 12
    batch_size: int = 64
    lr: float = 0.1
    seed: int = 0
    device: str = "cpu"
    backend: str | None = None
    version: str = "I"
    seca: str = "none"
    weights: str = "binary"
    parallel: bool = False
    backward_steps: int | None = None

    def __post_init__(self) -> None:
        for name, types in TYPES.items():
            value = getattr(self, name)
            if type(value) not in types:
                wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in types)
                raise RunError(f"{_option(name)} is {_shown(value)}; it must be of type {wanted}")
        allowed = {"data": DATASETS, "rule": tuple(RECIPES), "mode": ("O", "A")}
        allowed |= {"version": VERSIONS, "seca": ATTENTION, "weights": WEIGHTS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                more = "; others take --recipe" if name == "data" else ""
                raise RunError(f"--{name} is {_shown(getattr(self, name))}; allowed: {', '.join(values)}{more}")
        if self.backend not in (None, *BACKENDS):
            raise RunError(f"--backend is {_shown(self.backend)}; allowed: {', '.join(BACKENDS)}")
        for name in ("steps", "epochs", "batch_size"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise RunError(f"{_option(name)} is {_shown(getattr(self, name))}; it must be in 1..{LARGEST}")
        if not -(2**63) <= self.seed < 2**64:
            raise RunError(f"--seed is {_shown(self.seed)}; it must be in -2^63..2^64-1, as torch.manual_seed takes it")
        if not 0 < self.lr < float("inf"):
            raise RunError(f"--lr is {self.lr}; it must be a positive number")
        if through_time(self.rule) and self.mode == "O":
            raise RunError(f"--rule {self.rule} goes back through all steps at once: use it with --mode A")
        if self.rule in RPTT_ABLATION and self.mode == "A":
            raise RunError(f"--rule {self.rule} updates at every step: leave out --mode A (or use --rule sltt)")
        of_empf = (self.version, self.seca, self.weights, self.parallel)
        if self.rule != "empf" and of_empf != ("I", "none", "binary", False):
            raise RunError(
                "--version, --seca, --weights and --parallel are of EM-PF networks: use --rule empf in place of "
                f"{self.rule}"
            )
        if self.rule == "empf" and self.data == "sequential-digits":
            raise RunError("--rule empf trains a residual network on images: use it with --data digits")
        if self.backward_steps is not None and not 1 <= self.backward_steps <= self.steps:
            raise RunError(f"--backward-steps is {self.backward_steps}; it must be in 1..T = {self.steps}")
        if through_time(self.rule) and self.backward_steps is not None:
            raise RunError(f"--rule {self.rule} goes back through all steps at once: leave out --backward-steps")
        if self.data == "sequential-digits" and self.steps != 8:
            raise RunError(f"--steps is {self.steps}; sequential-digits has 8 rows, one a step")

    @classmethod
    def of(cls, **given: Any) -> Config:
        """Defaults of the data set and rule, with the given values that are not None."""
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("data") == "sequential-digits":
            given = {"steps": 8, "epochs": 30, **given}
        if through_time(given.get("rule")):
            given = {"mode": "A", **given}
        return cls(**given)
