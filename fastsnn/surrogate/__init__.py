"""Surrogate derivatives, named and parametrised as in SpikingJelly's `surrogate` module (equations/lif.md).

A surrogate is a small immutable object. `fastsnn.LIF` reads its shape; called on a tensor it is the
Heaviside step with the surrogate's derivative, as in SpikingJelly. SpikingJelly's own objects of the same
class names are accepted wherever a surrogate is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from . import formulas

__all__ = [
    "ATan",
    "Erf",
    "PiecewiseExp",
    "PiecewiseQuadratic",
    "Rect",
    "Rectangle",
    "Sigmoid",
    "SoftSign",
    "SuperSpike",
    "Surrogate",
    "Triangle",
    "coerce",
]


@dataclass(frozen=True)
class Surrogate:
    """Base class: `alpha` > 0 and finite, `shape` names the formula, height and slope scale it.

    Raises ValueError where alpha is not a positive finite number.
    """

    alpha: float = 1.0
    shape: ClassVar[str] = ""

    def __post_init__(self) -> None:
        number = isinstance(self.alpha, (int, float)) and not isinstance(self.alpha, bool)
        if not (number and 0 < self.alpha < math.inf):
            raise ValueError(f"alpha of {type(self).__name__} is {self.alpha!r}; it must be a positive, finite number")

    @property
    def height(self) -> float:
        return float(self.alpha)

    @property
    def slope(self) -> float:
        return float(self.alpha)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Spikes of z = u - th: 1 where z >= 0, with this surrogate's derivative in backward."""
        return formulas.Heaviside.apply(z, self.shape, self.height, self.slope)

    def derivative(self, z: torch.Tensor) -> torch.Tensor:
        """sg(z), elementwise."""
        return formulas.derivative(z, self.shape, self.height, self.slope)


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """alpha*q*(1 - q), q = sigmoid(alpha*z). OTTT, NDOT, OSR; SpikingJelly's default. alpha = 4."""

    alpha: float = 4.0
    shape: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Triangle(Surrogate):
    """max(0, 1 - |z|/alpha)/alpha. SLTT's default, EM-PF's text. alpha = 1 (half the base's width)."""

    alpha: float = 1.0
    shape: ClassVar[str] = "triangle"

    @property
    def height(self) -> float:
        return 1.0 / self.alpha

    @property
    def slope(self) -> float:
        return 1.0 / self.alpha


@dataclass(frozen=True)
class Rectangle(Surrogate):
    """1/alpha where |z| <= alpha/2. NDOT's and RPTT's equation. alpha = 1 (the width)."""

    alpha: float = 1.0
    shape: ClassVar[str] = "rectangle"

    @property
    def height(self) -> float:
        return 1.0 / self.alpha

    @property
    def slope(self) -> float:
        return self.alpha / 2


@dataclass(frozen=True)
class Rect(Surrogate):
    """alpha where |z| < 0.5/alpha: SpikingJelly's rectangle; its alpha is 1/Rectangle's. alpha = 1."""

    alpha: float = 1.0
    shape: ClassVar[str] = "rect_open"

    @property
    def slope(self) -> float:
        return 0.5 / self.alpha


@dataclass(frozen=True)
class ATan(Surrogate):
    """(alpha/2) / (1 + (pi/2*alpha*z)^2). alpha = 2."""

    alpha: float = 2.0
    shape: ClassVar[str] = "atan"

    @property
    def height(self) -> float:
        return self.alpha / 2

    @property
    def slope(self) -> float:
        return math.pi / 2 * self.alpha


@dataclass(frozen=True)
class PiecewiseQuadratic(Surrogate):
    """alpha - alpha^2*|z| where |z| <= 1/alpha: Triangle with alpha turned over. alpha = 1."""

    shape: ClassVar[str] = "triangle"


@dataclass(frozen=True)
class PiecewiseExp(Surrogate):
    """alpha/2 * exp(-alpha*|z|). alpha = 1."""

    shape: ClassVar[str] = "piecewise_exp"

    @property
    def height(self) -> float:
        return self.alpha / 2


@dataclass(frozen=True)
class SoftSign(Surrogate):
    """1 / (2*alpha*(1/alpha + |z|)^2), the slope of (softsign(alpha*z) + 1)/2. alpha = 2."""

    alpha: float = 2.0
    shape: ClassVar[str] = "soft_sign"

    @property
    def height(self) -> float:
        return self.alpha / 2


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    """alpha / (1 + |z|)^2. alpha = 1."""

    shape: ClassVar[str] = "soft_sign"

    @property
    def slope(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Erf(Surrogate):
    """alpha/sqrt(pi) * exp(-(alpha*z)^2). alpha = 2."""

    alpha: float = 2.0
    shape: ClassVar[str] = "erf"

    @property
    def height(self) -> float:
        return self.alpha / math.sqrt(math.pi)


SURROGATES: dict[str, type[Surrogate]] = {
    cls.__name__: cls
    for cls in (
        Sigmoid,
        Triangle,
        Rectangle,
        Rect,
        ATan,
        PiecewiseQuadratic,
        PiecewiseExp,
        SoftSign,
        SuperSpike,
        Erf,
    )
}


def coerce(surrogate: Any) -> Surrogate:
    """A fastsnn surrogate as it is, or SpikingJelly's object of the same class name and alpha.

    Raises TypeError for anything else, ValueError for SpikingJelly's `spiking=False`.
    """
    if isinstance(surrogate, Surrogate):
        return surrogate
    cls = SURROGATES.get(type(surrogate).__name__)
    if cls is None or not hasattr(surrogate, "alpha"):
        raise TypeError(
            f"surrogate_function is {surrogate!r}; allowed are fastsnn.surrogate's "
            f"{', '.join(SURROGATES)} and SpikingJelly's objects of the same names"
        )
    if not getattr(surrogate, "spiking", True):
        raise ValueError(
            f"surrogate_function {surrogate!r} has spiking=False and fastsnn neurons fire: set spiking=True"
        )
    return cls(float(surrogate.alpha))


def is_as(given: Any, surrogate: Surrogate) -> bool:
    """Whether `coerce(given)` still is `surrogate`: SpikingJelly's objects may change."""
    return bool(given.alpha == surrogate.alpha) and bool(getattr(given, "spiking", True))
