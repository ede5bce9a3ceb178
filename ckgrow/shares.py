"""Dividing a weight among copies of its input channel so that the parts sum to it exactly.

A weight w of a format with p significant bits is a whole multiple m of ulp(w), with |m| < 2^p.
Each share is a whole multiple of the same ulp, and the last one is w minus the others: every share
is representable and the sum is w exactly, whatever the fractions, in every format and for
subnormal numbers too. (A plain division by 3 is not exact; 3/4 + 1/4 rounds as well.)
"""

from __future__ import annotations

import numpy as np

from ckgrow.header import numpy_dtype

_SIGNIFICANT_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
_SMALLEST_EXPONENT = {"float64": -1074, "float32": -149, "float16": -24, "bfloat16": -133}


def whole_multiples(weights: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights as (m, e) in float64 and int: w = m * 2^e, |m| < 2^p, 2^e the last place of w."""
    wide = weights.astype(np.float64)
    exponent = np.frexp(wide)[1] - _SIGNIFICANT_BITS[dtype]
    exponent = np.maximum(exponent, _SMALLEST_EXPONENT[dtype])
    return np.ldexp(wide, -exponent), exponent


def split_exactly(
    weights: np.ndarray, fractions: np.ndarray, dtype: str, noise: np.ndarray | None = None
) -> np.ndarray:
    """Shares of ``weights`` that sum to them exactly over the last axis.

    ``fractions`` broadcasts against "*weights share" and sums to 1 over shares; a share whose
    fraction is 0 gets nothing, unless ``noise`` (same shape as the result) adds to it. Noise is
    snapped to multiples of the weight's last place, kept where shares stay representable, and
    cancelled by the last share. Shares are returned in ``dtype``; shape "*weights share".
    """
    multiple, exponent = whole_multiples(weights, dtype)
    limit = 2.0 ** _SIGNIFICANT_BITS[dtype] - 1.0  # one more overflows for the largest weights
    count = fractions.shape[-1]
    wanted = np.trunc(multiple[..., None] * fractions)
    if noise is not None:
        wanted += np.rint(np.ldexp(noise, -exponent[..., None]))
    shares = np.empty((*multiple.shape, count))
    remaining = multiple.copy()
    for index in range(count - 1):
        low = np.maximum(-limit, remaining - limit)
        high = np.minimum(limit, remaining + limit)
        shares[..., index] = np.clip(wanted[..., index], low, high)
        remaining -= shares[..., index]
    shares[..., -1] = remaining
    return np.ldexp(shares, exponent[..., None]).astype(numpy_dtype(dtype))
