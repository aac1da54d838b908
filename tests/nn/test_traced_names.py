"""Every function, method and property of torch is listed by what it does to traced spikes; torch 2.11 to 2.14."""

import inspect

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import get_ignored_functions

from fastsnn import TracedSpikes, TraceError
from fastsnn.nn import traced
from fastsnn.nn import traced_names as names

SPACES = {"torch": torch, "Tensor": Tensor, "functional": F}
BOTH = {*names.STRUCTURE, *names.POOLING, *names.SUMS, *traced.BOTH_PROPERTIES}
BOTH |= set("to expand_as view_as reshape_as type_as view mul multiply __mul__ __rmul__ grid_sample lerp pad".split())
BOTH |= set("div divide true_divide __truediv__ __div__ dropout dropout1d dropout2d dropout3d sum mean".split())
SYNAPSE = {*names.PRODUCTS, *"linear conv1d conv2d conv3d matmul __matmul__".split()}
INSPECTION = {*names.INSPECT, *names.CURRENTS, *names.LOSSES, *names.PROPERTIES, *names.OF_GRAPH, *names.AT_GRAPH}
INSPECTION |= {"requires_grad_", "_base", "new_tensor"}
WRITES = set(traced.WRITTEN)
REFUSED = set(
    """
    __all_and_float_types __and__ __array_wrap__ __deepcopy__ __dlpack__ __floordiv__ __getattr__ __getstate__ __iand__
    __idiv__ __ifloordiv__ __ilshift__ __imod__ __invert__ __ior__ __ipow__ __irshift__ __ixor__ __long__ __lshift__
    __mod__ __nonzero__ __or__ __pow__ __rand__ __rdiv__ __reduce__ __reduce_ex__ __rfloordiv__ __rlshift__ __rmod__
    __ror__ __rpow__ __rrshift__ __rshift__ __rtruediv__ __rxor__ __setstate__ __sizeof__ __xor__ acos acosh
    adaptive_max_pool1d adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices
    adaptive_max_pool3d adaptive_max_pool3d_with_indices addcdiv addcmul affine_grid affine_grid_generator align_as
    align_to alpha_dropout angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh as_strided as_strided_copy
    as_strided_scatter asin asinh atan atan2 atanh batch_norm batch_norm_backward_elemt batch_norm_backward_reduce
    batch_norm_elemt batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats
    batch_norm_update_stats bernoulli binomial bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor cartesian_prod ccol_indices ccol_indices_copy cdouble ceil celu cfloat chalf cholesky cholesky_inverse
    cholesky_solve choose_qparams_optimized clamp clamp_max clamp_min classproperty clip coalesce col_indices
    col_indices_copy combinations compiled_with_cxx11_abi complex constant_pad_nd convolution copysign cos cosh cross
    crow_indices crow_indices_copy cummax cummin cumprod cumulative_trapezoid dense_dim dequantize det digamma dsmm eig
    elu embedding embedding_bag erf erfc erfinv exp exp2 expm1 fake_quantize_per_channel_affine
    fake_quantize_per_tensor_affine fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation
    fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight
    fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix feature_alpha_dropout feature_dropout fix float_power
    floor floor_divide fmax fmin fmod frac fractional_max_pool2d fractional_max_pool2d_with_indices
    fractional_max_pool3d fractional_max_pool3d_with_indices frexp frobenius_norm from_dlpack
    fused_moving_avg_obs_fake_quant gcd gelu geqrf get_file_path glu gradient grid_sampler grid_sampler_2d
    grid_sampler_3d group_norm gru gru_cell gumbel_softmax hardshrink hardtanh hash_tensor heaviside hsmm hspmm hypot i0
    igamma igammac imag index index_reduce indices indices_copy instance_norm int_repr inverse istft layer_norm lcm
    ldexp leaky_relu lgamma linear_cross_entropy lobpcg local_response_norm log log10 log1p log2 logaddexp logaddexp2
    logcumsumexp logdet logit logsigmoid lp_pool1d lp_pool2d lp_pool3d lstm lstm_cell lstsq lu lu_solve lu_unpack
    matrix_exp matrix_power matrix_rank max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices max_unpool1d max_unpool2d max_unpool3d meshgrid miopen_batch_norm miopen_convolution
    miopen_convolution_add_relu miopen_convolution_relu miopen_convolution_transpose miopen_depthwise_convolution
    miopen_rnn mish module_load mtia multi_head_attention_forward multinomial mvlgamma nan_to_num nanmean nansum
    native_batch_norm native_dropout native_group_norm native_layer_norm native_norm nextafter nonzero_static
    norm_except_dim normalize nuclear_norm orgqr ormqr pca_lowrank pinverse poisson polar polygamma pow prelu
    prepare_multiprocessing_environment prod profiler_allow_cudagraph_cupti_lazy_reinit_cuda12 put q_per_channel_axis
    q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qr qscheme quantize_per_channel
    quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell quantized_lstm_cell
    quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d quantized_rnn_relu_cell quantized_rnn_tanh_cell
    reciprocal refine_names relu relu6 remainder rename renorm resize resize_as rms_norm rnn_relu rnn_relu_cell rnn_tanh
    rnn_tanh_cell round row_indices row_indices_copy rrelu rsqrt saddmm scatter_reduce segment_reduce selu
    set_default_dtype sgn sigmoid sign silu sin sinc sinh slogdet smm softplus softshrink softsign solve sparse_dim
    sparse_mask spmm sqrt square sspaddmm stft svd svd_lowrank sym_float sym_int sym_ite sym_max sym_min sym_not
    sym_sqrt sym_sum symeig tan tanh tanhshrink threshold to_dense to_dlpack to_mkldnn to_sparse trapezoid trapz
    triangular_solve trunc unravel_index values values_copy view_as_complex view_as_complex_copy view_as_real
    view_as_real_copy while_loop xlogy
    """.split()
)
KINDS = {"both": BOTH, "synapse": SYNAPSE, "inspection": INSPECTION, "written": WRITES, "refused": REFUSED}


def functions():
    """(name, function) of all that could be handed traced spikes."""
    ignored = get_ignored_functions()
    for space in SPACES.values():
        for name in dir(space):
            function = getattr(space, name, None)
            of_tensor = space is Tensor and inspect.isdatadescriptor(function)
            if (inspect.isroutine(function) or of_tensor) and function not in ignored:
                yield name, function


def refused_by_form(name):
    """What torch keeps for itself, and what changes its tensor in place."""
    private = name.startswith("_") and not name.startswith("__")
    return private or traced._writes(name)


def test_each_is_listed_once():
    listed = {name: [kind for kind, members in KINDS.items() if name in members] for name, _ in functions()}
    assert {name for name, kinds in listed.items() if not kinds and not refused_by_form(name)} == set()
    assert {name: kinds for name, kinds in listed.items() if len(kinds) > 1} == {}


def test_what_is_listed_has_a_rule_and_what_is_refused_has_none():
    ruled = {*traced.RULES, *names.INSPECT, *names.PROPERTIES, *names.OF_GRAPH, *traced.BOTH_PROPERTIES, "_base"}
    assert ruled == BOTH | SYNAPSE | INSPECTION | WRITES
    assert not ruled & REFUSED


def test_every_refused_function_raises():
    s = TracedSpikes.of(torch.ones(2, 3), torch.ones(2, 3))
    raised = 0
    for name, function in functions():
        if (name in REFUSED or refused_by_form(name)) and name not in WRITES | INSPECTION:
            with pytest.raises(TraceError, match=r"s\.spikes"):
                TracedSpikes.__torch_function__(function, (TracedSpikes,), (s,))
            raised += 1
    assert raised > 900


def test_a_function_that_torch_has_not_yet_is_refused():
    def coming(x):
        return torch.overrides.handle_torch_function(coming, (x,), x)

    with pytest.raises(TraceError, match=r"coming\(\) has no meaning"):
        coming(TracedSpikes.of(torch.ones(2), torch.ones(2)))
