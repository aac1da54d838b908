"""torch's functions, methods and properties by what they do to traced spikes. Any other raises TraceError."""

from __future__ import annotations

import torch
from torch import Tensor

# linear in each of several operands: a plain one stands in for its own trace
SUMS = (
    "add __add__ __radd__ sub subtract __sub__ __rsub__ rsub cat concat concatenate stack hstack vstack dstack "
    "row_stack column_stack where masked_fill masked_scatter index_add index_copy index_fill index_put scatter "
    "scatter_add slice_scatter select_scatter diagonal_scatter broadcast_tensors block_diag"
).split()
# linear in the one operand
STRUCTURE = (
    "reshape flatten unflatten squeeze unsqueeze permute transpose swapaxes swapdims movedim moveaxis contiguous "
    "adjoint clone detach float double half bfloat16 type cpu cuda xpu ipu expand broadcast_to sum_to_size repeat "
    "repeat_interleave tile narrow narrow_copy select index_select __getitem__ chunk split split_with_sizes unbind "
    "tensor_split hsplit vsplit dsplit roll flip fliplr flipud rot90 unfold fold pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle neg negative __neg__ positive __pos__ t unsafe_chunk unsafe_split "
    "unsafe_split_with_sizes atleast_1d atleast_2d atleast_3d ravel take take_along_dim gather masked_select diag "
    "diagonal diag_embed diagflat tril triu cumsum diff trace resolve_conj resolve_neg conj conj_physical alias_copy "
    "detach_copy expand_copy permute_copy select_copy slice_copy squeeze_copy t_copy transpose_copy unbind_copy "
    "unfold_copy unsqueeze_copy deg2rad rad2deg pin_memory record_stream __reversed__ view_copy diagonal_copy "
    "split_copy split_with_sizes_copy slice_inverse"
).split()
POOLING = (
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample "
    "interpolate upsample_nearest upsample_bilinear"
).split()
# with a plain operand a synapse
PRODUCTS = (
    "mm bmm mv addmm addmv addbmm baddbmm addr einsum tensordot bilinear dot vdot vecdot inner outer ger kron "
    "__rmatmul__ conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc chain_matmul"
).split()
# value and spatial gradient, no trace
CURRENTS = (
    "max min amax amin aminmax maximum minimum topk kthvalue sort msort median nanmedian quantile nanquantile mode "
    "std var std_mean var_mean norm softmax log_softmax softmin logsumexp abs absolute __abs__ cosine_similarity "
    "pairwise_distance cdist pdist dist cov corrcoef scaled_dot_product_attention"
).split()
LOSSES = (
    "cross_entropy mse_loss l1_loss smooth_l1_loss huber_loss nll_loss gaussian_nll_loss poisson_nll_loss kl_div "
    "binary_cross_entropy binary_cross_entropy_with_logits multi_margin_loss multilabel_margin_loss "
    "multilabel_soft_margin_loss soft_margin_loss hinge_embedding_loss margin_ranking_loss cosine_embedding_loss "
    "triplet_margin_loss triplet_margin_with_distance_loss ctc_loss"
).split()
CREATION = (
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty "
    "new_full new_empty_strided"
).split()
# of the tensor where gradients meet
AT_GRAPH = "backward register_hook register_post_accumulate_grad_hook retain_grad grad".split()
# a plain result
INSPECT = frozenset(
    (
        "size sym_size dim ndimension numel sym_numel nelement stride sym_stride storage_offset sym_storage_offset "
        "element_size data_ptr const_data_ptr untyped_storage storage storage_type get_device dim_order __len__ "
        "__bool__ __float__ __int__ __index__ __complex__ __repr__ __str__ __format__ __contains__ __hash__ __dir__ "
        "item tolist numpy __array__ __dlpack_device__ bool int long short byte char eq ne gt lt ge le not_equal "
        "greater greater_equal less less_equal __eq__ __ne__ __gt__ __lt__ __ge__ __le__ logical_and logical_or "
        "logical_xor logical_not equal allclose isclose isnan isinf isfinite isposinf isneginf isreal isin signbit "
        "any all argmax argmin argsort argwhere count_nonzero nonzero unique unique_consecutive histc histogram "
        "histogramdd bincount bucketize searchsorted one_hot has_names result_type can_cast"
    ).split()
    + CREATION
).union(name for name in (*dir(Tensor), *dir(torch)) if name.startswith(("is_", "_is_")))
OF_GRAPH = frozenset(
    (
        "requires_grad grad _grad grad_fn _grad_fn is_leaf output_nr retains_grad _backward_hooks "
        "_post_accumulate_grad_hooks"
    ).split()
)
PROPERTIES = frozenset(
    (
        "__cuda_array_interface__ __weakref__ _cdata _has_symbolic_sizes_strides _python_dispatch _version device "
        "dtype grad_dtype is_cpu is_cuda is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_nested is_quantized "
        "is_sparse is_sparse_csr is_vulkan is_xla is_xpu itemsize layout name names nbytes ndim shape volatile"
    ).split()
)
