"""The vocabulary of a graph: roles of parameters, roles of their axes, kinds of nodes."""

ROLES: dict[str, str] = {
    # Matrices: they mix the entries of an axis.
    "linear": "weight of a linear map, (out, in) or, as in GPT-2's Conv1D, (in, out)",
    "conv": "weight of a convolution, (out, in / groups, *spatial)",
    "conv_transpose": "weight of a transposed convolution, (in, out / groups, *spatial)",
    "recurrent_input": "input-to-hidden weight of an RNN, GRU or LSTM, (gates * out, in)",
    "recurrent_hidden": "hidden-to-hidden weight of an RNN, GRU or LSTM, (gates * out, in)",
    "bilinear": "weight of a bilinear map, (out, in, in)",
    "expert": "bank of linear maps of which every token uses a few, (expert, out, in) or (expert, in, out)",
    "matrix": "any other operand of a matrix product or einsum",
    # Tables: rows are looked up or added.
    "embedding": "table of token vectors that indices look up, (table, channel)",
    "position": "table of vectors added to (or looked up for) each position, (..., table, channel)",
    "relative_bias": "table of attention biases by relative position",
    "token": "vector(s) that join the sequence: class token, register, query, mask token",
    # Vectors and scalars.
    "bias": "added to the output of a linear map, convolution or recurrent block",
    "norm_weight": "multiplies a normalized activation (batch, layer, group, instance or RMS norm)",
    "norm_bias": "added to a normalized activation",
    "layer_scale": "multiplies a residual branch just before it is added",
    "scale": "multiplies an activation or a derived weight anywhere else",
    "shift": "added to an activation anywhere else",
    "log_scale": "exponentiated, then multiplies (logit scales, temperatures, state-space decays)",
    "slope": "negative slope of a parametric activation (PReLU)",
    "weight_norm_scale": "length of a weight-normalized row",
    "unknown": "used in a way none of the others describes, or not used",
}
"""Role of a parameter in the operation that consumes it, and what it means."""

AXES: dict[str, str] = {
    "out": "output channels (of the whole layer, or of one group for conv_transpose)",
    "in": "input channels that one output reads (already divided by the groups)",
    "spatial": "kernel extent along one spatial axis",
    "expert": "experts of a bank",
    "head": "attention heads",
    "table": "rows of a look-up or position table, tokens of a sequence",
    "channel": "channels that pass through elementwise",
    "one": "an axis of size 1 that broadcasts",
    "unknown": "anything else",
}
"""Role of one axis of a parameter, and what it means."""

KINDS: tuple[str, ...] = (
    *("input", "output", "parameter"),
    *(
        "linear",
        "conv",
        "conv_transpose",
        "matmul",
        "bilinear",
        "einsum",
        "attention",
        "recurrent",
        "embedding",
    ),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_norm"),
    *(
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "elu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "sigmoid",
        "tanh",
    ),
    *("hardswish", "hardsigmoid", "hardtanh", "glu", "softmax", "log_softmax", "rope", "elementwise"),
    *(
        "add",
        "sub",
        "mul",
        "div",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "pow",
        "abs",
        "neg",
        "clamp",
        "where",
        "compare",
    ),
    *(
        "sin",
        "cos",
        "erf",
        "floor",
        "sign",
        "logical",
        "mean",
        "sum",
        "max",
        "min",
        "var",
        "norm",
        "cumsum",
        "sort",
    ),
    *(
        "max_pool",
        "avg_pool",
        "adaptive_avg_pool",
        "adaptive_max_pool",
        "interpolate",
        "pad",
        "pixel_shuffle",
        "unfold",
    ),
    *(
        "grid_sample",
        "roll",
        "fft",
        "concat",
        "stack",
        "index",
        "gather",
        "scatter",
        "one_hot",
        "copy",
        "dropout",
    ),
    *(
        "shape",
        "constant",
        "loss",
        "detection",
        "weight_norm",
        "flip",
        "triangular",
        "solve",
        "random",
        "scan",
    ),
    "other",
)
"""Kinds of nodes; the order is part of the checkpoint format, so new ones go before 'other' only with a new version."""

_SPELLINGS: dict[str, str] = {
    "linear": "linear addmm mm addmv mv addbmm _addmm_activation",
    "matmul": "matmul bmm baddbmm dot _grouped_mm _scaled_mm cdist outer inner tensordot chain_matmul",
    "conv": "conv1d conv2d conv3d convolution _convolution cudnn_convolution mkldnn_convolution thnn_conv2d",
    "conv_transpose": "conv_transpose1d conv_transpose2d conv_transpose3d",
    "attention": "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu",
    "recurrent": "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    "embedding": "embedding embedding_bag _embedding_bag embedding_renorm",
    "batch_norm": "batch_norm native_batch_norm _native_batch_norm_legit cudnn_batch_norm _batch_norm_impl_index",
    "layer_norm": "layer_norm native_layer_norm",
    "group_norm": "group_norm native_group_norm",
    "rms_norm": "rms_norm _fused_rms_norm",
    "elu": "elu celu",
    "softplus": "softplus log_sigmoid",
    "hardtanh": "hardtanh threshold",
    "softmax": "softmax _softmax special_softmax _safe_softmax",
    "log_softmax": "log_softmax _log_softmax logsumexp",
    "add": "add addcmul addcdiv lerp",
    "sub": "sub rsub",
    "mul": "mul multiply",
    "div": "div true_divide floor_divide remainder fmod reciprocal",
    "exp": "exp expm1 exp2",
    "log": "log log1p log2 log10",
    "pow": "pow square",
    "clamp": "clamp clamp_min clamp_max",
    "where": "where masked_fill",
    "compare": "eq ne lt le gt ge isnan isinf isfinite equal allclose isclose isin maximum minimum fmax fmin",
    "sin": "sin asin sinh",
    "cos": "cos acos cosh",
    "erf": "erf erfc erfinv",
    "floor": "floor ceil round trunc frac",
    "logical": "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor any all",
    "mean": "mean",
    "sum": "sum prod nansum",
    "max": "max amax argmax",
    "min": "min amin argmin median",
    "var": "var std var_mean std_mean",
    "norm": "norm linalg_vector_norm linalg_norm frobenius_norm normalize renorm",
    "cumsum": "cumsum cumprod cummax cummin",
    "sort": "sort argsort topk kthvalue unique unique_consecutive _unique2 unique_dim searchsorted bucketize",
    "max_pool": "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices",
    "avg_pool": "avg_pool1d avg_pool2d avg_pool3d",
    "adaptive_avg_pool": "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d",
    "adaptive_max_pool": "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    "interpolate": "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d upsample_linear1d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_nearest_exact2d",
    "pad": "pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
    "replication_pad3d _pad_enum",
    "pixel_shuffle": "pixel_shuffle pixel_unshuffle channel_shuffle",
    "unfold": "im2col col2im unfold_backward",
    "grid_sample": "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator deform_conv2d",
    "fft": "fft_fft fft_ifft fft_rfft fft_irfft fft_fftn fft_ifftn fft_rfft2 fft_irfft2 fft_fft2 fft_ifft2 fft_rfftn "
    "fft_irfftn stft istft _fft_c2c _fft_r2c _fft_c2r",
    "concat": "cat concat concatenate hstack vstack",
    "index": "index index_select take take_along_dim masked_select nonzero nonzero_numpy argwhere",
    "scatter": "scatter scatter_add index_put _index_put_impl index_add index_copy index_fill masked_scatter "
    "scatter_reduce select_scatter slice_scatter",
    "copy": "copy clone lift_fresh_copy fake_quantize_per_tensor_affine fake_quantize_per_channel_affine "
    "fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask "
    "fused_moving_avg_obs_fake_quant _fused_moving_avg_obs_fq_helper",
    "dropout": "dropout feature_dropout alpha_dropout native_dropout bernoulli",
    "shape": "view _unsafe_view reshape permute transpose t mT mH numpy_T matrix_H adjoint unsqueeze squeeze flatten "
    "unflatten expand expand_as view_as reshape_as contiguous slice select narrow split split_with_sizes chunk "
    "tensor_split unsafe_chunk unsafe_split unsafe_split_with_sizes unbind detach alias to _to_copy type_as float half "
    "bfloat16 double long int bool movedim swapaxes swapdims diagonal unfold repeat tile repeat_interleave "
    "broadcast_to as_strided view_as_real view_as_complex real imag lift lift_fresh ravel squeeze_copy positive "
    "moveaxis atleast_1d broadcast_tensors expand_copy conj _conj resolve_conj resolve_neg data requires_grad_ set_ "
    "resize_ squeeze_ unsqueeze_ transpose_ t_ meshgrid hsplit vsplit dsplit rename refine_names align_to "
    "_autocast_to_reduced_precision _autocast_to_full_precision _reshape_alias detach_ to_dense pin_memory",
    "loss": "cross_entropy_loss nll_loss nll_loss2d nll_loss_nd mse_loss l1_loss smooth_l1_loss huber_loss kl_div "
    "binary_cross_entropy binary_cross_entropy_with_logits ctc_loss cosine_embedding_loss margin_ranking_loss",
    "detection": "nms roi_align roi_pool ps_roi_align ps_roi_pool",
    "weight_norm": "_weight_norm _weight_norm_interface _weight_norm_differentiable_backward",
    "flip": "flip fliplr flipud rot90",
    "triangular": "tril triu",
    "solve": "linalg_solve linalg_inv inverse linalg_cholesky linalg_qr linalg_svd linalg_eigh linalg_solve_triangular "
    "linalg_matrix_exp matrix_exp cholesky linalg_pinv linalg_householder_product",
    "random": "rand randn rand_like randn_like randint normal uniform multinomial randperm random exponential",
    "constant": "arange zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full "
    "new_empty eye linspace scalar_tensor tensor fill zero empty_strided new_empty_strided",
}

_KIND_OF: dict[str, str] = {kind: kind for kind in KINDS} | {
    spelling: kind for kind, spellings in _SPELLINGS.items() for spelling in spellings.split()
}

MIXING_ROLES = frozenset(
    "linear conv conv_transpose recurrent_input recurrent_hidden bilinear expert matrix".split()
)
"""Roles of parameters whose entries are summed over an axis, so that variance follows the fan."""

MIXERS = frozenset("linear conv conv_transpose matmul bilinear einsum attention recurrent".split())
"""Kinds of operations that mix channels or positions."""

PRODUCTS = frozenset({"matmul", "einsum"})
"""Kinds of operations that multiply activations with each other."""

ELEMENTWISE = frozenset(
    "relu relu6 leaky_relu elu selu gelu silu mish softplus sigmoid tanh hardswish hardsigmoid hardtanh elementwise "
    "add sub mul div exp log sqrt rsqrt pow abs neg clamp where compare sin cos erf floor sign logical dropout "
    "copy".split()
)
"""Kinds that read and write entry by entry (with broadcasting)."""

ACTIVATIONS = frozenset(
    "relu relu6 leaky_relu prelu elu selu gelu silu mish softplus sigmoid tanh hardswish hardsigmoid hardtanh".split()
)

NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_norm"})


def kind_of(operation: str) -> str:
    """Kind of an aten operation's base name; trailing underscores (in-place variants) don't matter."""
    return _KIND_OF.get(operation) or _KIND_OF.get(operation.rstrip("_"), "other")
