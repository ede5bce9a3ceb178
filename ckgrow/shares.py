"""Dividing a weight among copies of its input channel so that the parts sum to it exactly.

A weight w of a format with p significant bits is a whole multiple m of ulp(w), with |m| < 2^p.
Each share is a whole multiple of the same ulp, and the last one is w minus the others: every share
is representable and the sum is w exactly, whatever the fractions, in every format and for subnormal
numbers too. (A plain division by 3 is not exact; 3/4 + 1/4 rounds as well.)

For a fraction f in [0, 1) the sum w + w f lies between w and 2 w, where floating-point numbers are
whole multiples of ulp(w), so fl(w + w f) - w is such a share after three operations. 16-bit formats
do this in float32, at a multiple M of w whose last place there is that of w here. Where M is too
large, or w subnormal, shares are counted in units of ulp(w) instead (:func:`split_exactly`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ckgrow.header import numpy_dtype

_SIGNIFICANT_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
_SMALLEST_EXPONENT = {"float64": -1074, "float32": -149, "float16": -24, "bfloat16": -133}
_EXPONENT_BITS = np.uint64(0x7FF0_0000_0000_0000)
_SMALLEST_NORMAL = {"float16": 0x0400, "bfloat16": 0x0080}
_LARGEST_QUICK = {"float16": 0x7BFF, "bfloat16": 0x7000}
"""Bits of the numbers between which w + w f neither overflows nor loses its last place."""


def divide(weights: np.ndarray, fractions: Sequence[np.ndarray], dtype: str) -> list[np.ndarray]:
    """Shares of ``weights`` (of ``dtype``), one more than ``fractions``: the last has what is left.

    Fractions are float32 (float64 for float64 weights), broadcast against the weights, are not
    negative and sum to less than one. Every weight is divided for itself, whatever others stand
    beside it.
    """
    shares: list[np.ndarray] = []
    with np.errstate(over="ignore", invalid="ignore"):  # of what is mended in the end
        wide = _widened(weights, dtype)
        base = _base(wide, dtype)
        left = wide
        for fraction in fractions:
            share = np.multiply(wide, fraction)
            share += base
            share -= base
            left = np.subtract(left, share, out=None if left is wide else left)
            shares.append(_narrowed(share, dtype))
        shares.append(_narrowed(left, dtype))
    return _mended(shares, weights, fractions, dtype)


def divide_evenly(weights: np.ndarray, count: int, dtype: str) -> list[np.ndarray]:
    """``count`` equal shares where they are exact: halves, quarters and so on of normal numbers.

    Otherwise they differ by what cannot be divided, as in :func:`divide`.
    """
    fraction = np.asarray(1.0 / count, "float64" if dtype == "float64" else "float32")
    if count & (count - 1):
        return divide(weights, [fraction] * (count - 1), dtype)
    with np.errstate(invalid="ignore"):
        wide = _widened(weights, dtype)
        share = _narrowed(wide * fraction, dtype)
        exact = _widened(share, dtype) * np.asarray(count, wide.dtype) == wide
    if exact.all():
        return [share] * count
    shares = [share.copy() for _ in range(count)]
    return _replaced(shares, ~exact, weights, [fraction] * (count - 1), dtype)


def split_exactly(
    weights: np.ndarray,
    fractions: Sequence[np.ndarray],
    dtype: str,
    noise: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """As :func:`divide` for any weights, and with noise on all shares but the last.

    Noise is snapped to multiples of the weight's last place, kept where shares stay representable,
    and cancelled by the last share. A weight that is not finite stays whole, in the last share.
    """
    with np.errstate(invalid="ignore"):
        wide = weights.astype(np.float64)
    finite = np.isfinite(wide)
    whole = np.where(finite, wide, 0.0)
    place = last_places(whole, dtype)
    whole /= place
    limit = 2.0 ** _SIGNIFICANT_BITS[dtype] - 1.0  # one more overflows for the largest weights
    stored = numpy_dtype(dtype)
    left = whole.copy()
    shares: list[np.ndarray] = []
    for number, fraction in enumerate(fractions):
        wanted = whole * fraction
        if noise:
            with np.errstate(over="ignore"):
                wanted += noise[number] / place
        np.rint(wanted, out=wanted)
        np.maximum(wanted, np.maximum(-limit, left - limit), out=wanted)
        np.minimum(wanted, np.minimum(limit, left + limit), out=wanted)
        left -= wanted
        shares.append((wanted * place).astype(stored))
    last = (left * place).astype(stored)
    shares.append(last if finite.all() else np.where(finite, last, weights))
    return shares


def last_places(wide: np.ndarray, dtype: str) -> np.ndarray:
    """The last place of numbers of ``dtype``, given in float64."""
    power = (wide.view(np.uint64) & _EXPONENT_BITS).view(np.float64)  # 0 for subnormal numbers
    power *= 2.0 ** (1 - _SIGNIFICANT_BITS[dtype])
    return np.maximum(power, 2.0 ** _SMALLEST_EXPONENT[dtype], out=power)


def _widened(weights: np.ndarray, dtype: str) -> np.ndarray:
    """In the format that is computed in; the weights themselves where that is their own."""
    if dtype == "bfloat16":  # the upper half of a float32
        bits = weights.view(np.uint16).astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    return weights.astype(np.float32) if dtype == "float16" else weights


def _narrowed(wide: np.ndarray, dtype: str) -> np.ndarray:
    """Back in the stored format, which holds these numbers."""
    if dtype == "bfloat16":
        bits = wide.view(np.uint32)
        return (bits >> np.uint32(16)).astype(np.uint16).view(numpy_dtype(dtype))
    return wide.astype(np.float16) if dtype == "float16" else wide


def _base(wide: np.ndarray, dtype: str) -> np.ndarray:
    """M, a power of two times the weights, whose last place is that of the stored weights."""
    if dtype in ("float32", "float64"):
        return wide
    base: np.ndarray = wide * np.float32(2.0 ** (24 - _SIGNIFICANT_BITS[dtype]))
    return base


def _mended(
    shares: list[np.ndarray], weights: np.ndarray, fractions: Sequence[np.ndarray], dtype: str
) -> list[np.ndarray]:
    """With the shares of weights that the quick way does not fit."""
    if not weights.size or _all_quick(weights, dtype):
        return shares
    return _replaced(shares, ~_quick(weights, dtype), weights, fractions, dtype)


def _replaced(
    shares: list[np.ndarray],
    where: np.ndarray,
    weights: np.ndarray,
    fractions: Sequence[np.ndarray],
    dtype: str,
) -> list[np.ndarray]:
    chosen = [np.broadcast_to(each, weights.shape)[where] for each in fractions]
    careful = split_exactly(weights[where], chosen, dtype)
    for share, mended in zip(shares, careful, strict=True):
        share[where] = mended
    return shares


def _all_quick(weights: np.ndarray, dtype: str) -> bool:
    """As :func:`_quick` for all of them, without an array of answers."""
    if dtype in _SMALLEST_NORMAL:
        sizes = weights.view(np.uint16) & np.uint16(0x7FFF)
        if sizes.max() > _LARGEST_QUICK[dtype]:
            return False
        sizes -= np.uint16(1)  # 0, which is quick, becomes the largest
        return bool(sizes.min() >= _SMALLEST_NORMAL[dtype] - 1)
    largest = np.finfo(dtype).max / 2
    return bool(weights.max() <= largest and weights.min() >= -largest)  # not so for NaN


def _quick(weights: np.ndarray, dtype: str) -> np.ndarray:
    if dtype in _SMALLEST_NORMAL:
        sizes = weights.view(np.uint16) & np.uint16(0x7FFF)
        normal = (sizes == 0) | (sizes >= _SMALLEST_NORMAL[dtype])
        return normal & (sizes <= _LARGEST_QUICK[dtype])
    with np.errstate(invalid="ignore"):
        quick: np.ndarray = np.abs(weights) <= np.finfo(dtype).max / 2
    return quick
