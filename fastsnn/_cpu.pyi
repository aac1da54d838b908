from collections.abc import Sequence

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
        trace: int,
        surrogate: int,
    ) -> None: ...

def lif_forward(
    p: LifParams,
    threads: int,
    T: int,
    n: int,
    dtype: int,
    first: bool,
    potential_is_v: bool,
    x: int,
    potential: int,
    trace: int,
    ratio: int,
    keep: int,
    spikes: int,
    u_last: int,
    u_seq: int,
    v_last: int,
    v_seq: int,
    trace_seq: int,
    ratio_last: int,
) -> None: ...
def lif_backward(
    p: LifParams,
    threads: int,
    bptt: bool,
    T: int,
    n: int,
    dtype: int,
    potential_is_v: bool,
    g_spikes: int,
    keep: int,
    u: int,
    x: int,
    potential: int,
    g_v_last: int,
    g_v_seq: int,
    g_x: int,
    g_v_first: int,
) -> None: ...
def standardize_forward(threads: int, rows: int, cols: int, dtype: int, eps: float, *pointers: int) -> None: ...
def standardize_backward(threads: int, rows: int, cols: int, dtype: int, eps: float, *pointers: int) -> None: ...
def mpdr_forward(p: LifParams, threads: int, T: int, n: int, dtype: int, first: bool, *more: int) -> None: ...
def mpdr_backward(p: LifParams, threads: int, bptt: bool, T: int, n: int, dtype: int, *more: float) -> None: ...
def stgr_sgd(threads: int, n: int, dtype: int, first: bool, nesterov: bool, *more: float) -> None: ...
def empf_forward(threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def empf_backward(threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def empf_potential(threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def empf_norm_forward(threads: int, sizes: list[int], dtype: int, operands: list[int], *pointers: int) -> None: ...
def empf_norm_sums(threads: int, sizes: list[int], dtype: int, operands: list[int], *pointers: int) -> None: ...
def empf_norm_backward(threads: int, sizes: list[int], dtype: int, operands: list[int], *pointers: int) -> None: ...
def binarize_forward(threads: int, rows: int, cols: int, dtype: int, scaled: bool, *pointers: int) -> None: ...
def binarize_backward(threads: int, rows: int, cols: int, dtype: int, *pointers: int) -> None: ...
def packed_product(
    threads: int,
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
    *pointers: int,
) -> None: ...
def osr_forward(threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def osr_reduce(threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def osr_gradient(threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def osr_lif_forward(p: LifParams, threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def osr_lif_reduce(p: LifParams, threads: int, sizes: list[int], dtype: int, *pointers: int) -> None: ...
def ots_charge(p: LifParams, threads: int, n: int, dtype: int, *pointers: int) -> None: ...
def ots_fire(p: LifParams, threads: int, n: int, dtype: int, *pointers: int) -> None: ...
def ots_backward(p: LifParams, threads: int, n: int, dtype: int, *pointers: int) -> None: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def choose_isa(isa: str) -> bool: ...
