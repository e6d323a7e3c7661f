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
