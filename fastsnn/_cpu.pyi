from collections.abc import Sequence

from torch import Tensor

Operand = Tensor | None
Where = int | tuple[int, int]  # threads, or a device and its stream

version: str
openmp: bool

class LifParams:
    def __init__(
        self,
        leak: float,
        gain: float,
        bias: float,
        threshold: float,
        v_reset: float,
        reset_grad: float,
        height: float,
        slope: float,
        reset: int,
        rule: int,
        surrogate: int,
        of_rule: Sequence[float],
    ) -> None: ...

# by name, in the order of their codes: slots as (name, drives, every_step), and the number of parameters
rules: dict[str, tuple[tuple[tuple[str, bool, bool], ...], int]]

# operands: in the order in which csrc/core declares them; errors name operand, what was given and what is needed
def lif_forward(
    p: LifParams, where: Where, T: int, n: int, dtype: int, first: bool, potential_is_v: bool, *operands: Operand
) -> None: ...
def lif_backward(
    p: LifParams, where: Where, bptt: bool, T: int, n: int, dtype: int, potential_is_v: bool, *operands: Operand
) -> None: ...
def mpdr_forward(
    p: LifParams, where: Where, T: int, n: int, dtype: int, first: bool, potential_is_v: bool, *operands: Operand
) -> None: ...
def mpdr_backward(
    p: LifParams,
    where: Where,
    bptt: bool,
    T: int,
    n: int,
    dtype: int,
    potential_is_v: bool,
    *operands: Operand,
) -> None: ...
def standardize_forward(where: Where, rows: int, cols: int, dtype: int, eps: float, *operands: Operand) -> None: ...
def standardize_backward(where: Where, rows: int, cols: int, dtype: int, eps: float, *operands: Operand) -> None: ...
def stgr_sgd(
    where: Where,
    n: int,
    dtype: int,
    first: bool,
    nesterov: bool,
    lam: float,
    gam: float,
    rho: float,
    lr: float,
    momentum: float,
    undamped: float,
    decay: float,
    *operands: Operand,
) -> None: ...
def empf_forward(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def empf_backward(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def empf_potential(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def empf_norm_forward(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def empf_norm_sums(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def empf_norm_backward(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def binarize_forward(where: Where, rows: int, cols: int, dtype: int, scaled: bool, *operands: Operand) -> None: ...
def binarize_backward(where: Where, rows: int, cols: int, dtype: int, *operands: Operand) -> None: ...
def packed_product(
    where: Where,
    batch: int,
    channels: int,
    outputs: int,
    in_: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    bits: int,
    dtype: int,
    *operands: Operand,
) -> None: ...
def osr_forward(
    where: Where,
    sizes: list[int],
    dtypes: list[int],
    eps: float,
    limit: float,
    strict: bool,
    pooled: bool,
    ends: bool,
    share: float,
    step: int,
    *operands: Operand,
) -> None: ...
def osr_lif_forward(
    p: LifParams,
    where: Where,
    sizes: list[int],
    dtypes: list[int],
    eps: float,
    limit: float,
    strict: bool,
    pooled: bool,
    ends: bool,
    share: float,
    step: int,
    first: bool,
    potential_is_v: bool,
    *operands: Operand,
) -> None: ...
def osr_reduce(where: Where, sizes: list[int], dtypes: list[int], *operands: Operand) -> None: ...
def osr_lif_reduce(p: LifParams, where: Where, sizes: list[int], dtypes: list[int], *operands: Operand) -> None: ...
def osr_gradient(where: Where, sizes: list[int], dtype: int, *operands: Operand) -> None: ...
def ots_charge(p: LifParams, where: Where, n: int, dtype: int, *operands: Operand) -> None: ...
def ots_fire(p: LifParams, where: Where, n: int, dtype: int, *operands: Operand) -> None: ...
def ots_backward(p: LifParams, where: Where, n: int, dtype: int, *operands: Operand) -> None: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def choose_isa(isa: str) -> bool: ...

class checks:
    """The calls above, which check their operands and run nothing. where: DLPack's type of the device, its index."""
