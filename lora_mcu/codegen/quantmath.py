# SPDX-License-Identifier: Apache-2.0
"""Fixed-point parameters of the integer kernels, equal to those of ai-edge-litert 2.3.0's reference kernels.

Scales are the float32 values of the model file, given as Python floats (binary64); every product and quotient here is
one binary64 operation, as in the oracle. docs/numerics.md says how the kernels use the results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ADD_LEFT_SHIFT = 20
SOFTMAX_INTEGER_BITS = 5


def quantize_multiplier(value: float) -> tuple[int, int]:
    """``value >= 0`` as (multiplier, shift): multiplier * 2^(shift - 31), multiplier in [2^30, 2^31) or 0.

    The mantissa is rounded half away from zero; values below about 2^-32 become (0, 0). Raises ValueError for a
    negative or non-finite value.
    """
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"scale ratio {value} is not a finite number >= 0")
    if value == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(value)
    fixed = math.floor(mantissa * 2.0**31 + 0.5)
    if fixed == 1 << 31:
        fixed, shift = fixed // 2, shift + 1
    return (0, 0) if shift < -31 else (fixed, shift)


def double_rounding(values: Sequence[float]) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """(fraction, right) of lmcu_requant_t: 2 * multiplier in 32 bits and -1 - shift, of quantize_multiplier's."""
    pairs = [quantize_multiplier(v) for v in values]
    fraction = np.array([2 * multiplier for multiplier, _ in pairs], np.uint32).view(np.int32)
    return fraction, np.array([-1 - shift for _, shift in pairs], np.int8)


def requantize_params(input_scale: float, output_scale: float) -> tuple[int, int]:
    """(multiplier, shift) of lmcu_requantize_t: s_x / s_y."""
    return quantize_multiplier(input_scale / output_scale)


def mean_params(input_scale: float, output_scale: float, count: int) -> tuple[int, int]:
    """(multiplier, shift) of lmcu_mean_t: s_x / (s_y * count), ``count >= 1`` elements averaged.

    The oracle divides the multiplier by the count in integers, after shifting it left by floor(log2(count)).
    """
    multiplier, shift = quantize_multiplier(input_scale / output_scale)
    left = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << left) // count, shift - left


def add_params(a_scale: float, b_scale: float, output_scale: float) -> tuple[int, int, int, int, int, int, int]:
    """(a_multiplier, a_shift, b_multiplier, b_shift, output_multiplier, output_shift, left_shift) of lmcu_add_t.

    Both inputs are brought to 2 * max(s_a, s_b) / 2^20. Raises ValueError where the oracle refuses too: an output scale
    so fine that the last factor would reach 1.
    """
    twice_max = 2.0 * max(a_scale, b_scale)
    a = quantize_multiplier(a_scale / twice_max)
    b = quantize_multiplier(b_scale / twice_max)
    output = quantize_multiplier(twice_max / ((1 << ADD_LEFT_SHIFT) * output_scale))
    if output[1] > 0:
        raise ValueError(f"output scale {output_scale} of ADD is too small for inputs of scale {a_scale} and {b_scale}")
    return (*a, *b, *output, ADD_LEFT_SHIFT)


def squared_difference_params(
    a_scale: float, b_scale: float, output_scale: float
) -> tuple[int, int, int, int, int, int]:
    """(a_multiplier, a_shift, b_multiplier, b_shift, output_multiplier, output_shift) of lmcu_squared_difference_t.

    Both inputs are brought to 2 * max(s_a, s_b) / 2^7. Raises ValueError where the oracle refuses: an output scale
    so fine that the last factor would reach 1.
    """
    twice_max = 2.0 * max(a_scale, b_scale)
    a = quantize_multiplier(a_scale / twice_max)
    b = quantize_multiplier(b_scale / twice_max)
    output = quantize_multiplier(twice_max * twice_max / ((1 << 14) * output_scale))
    if output[1] > 0:
        raise ValueError(
            f"output scale {output_scale:.6g} is too small for inputs of scale {a_scale:.6g} and {b_scale:.6g}"
        )
    return (*a, *b, *output)


def softmax_params(input_scale: float, beta: float) -> tuple[int, int, int]:
    """(input_multiplier, input_left_shift, diff_min) of lmcu_softmax_t.

    Differences to the row's maximum below ``diff_min`` give probability 0. Where beta * input_scale <= 2^-26, which the
    oracle refuses to run, the same rule gives equal probabilities.
    """
    real = min(beta * input_scale * 2.0 ** (31 - SOFTMAX_INTEGER_BITS), 2.0**31 - 1.0)
    multiplier, left_shift = quantize_multiplier(real) if real > 1.0 else (math.floor(real * 2.0**31 + 0.5) // 2, 1)
    integers = (1 << SOFTMAX_INTEGER_BITS) - 1
    radius = math.floor(integers * 2.0 ** (31 - SOFTMAX_INTEGER_BITS) / 2.0**left_shift)
    return multiplier, left_shift, -radius


def matmul_params(a_scale: np.float32, b_scale: np.float32, output_scale: np.float32) -> tuple[int, int]:
    """(multiplier, shift) of lmcu_matmul_t for BATCH_MATMUL, whose oracle multiplies the two scales in float32."""
    return quantize_multiplier(float(np.float32(a_scale * b_scale)) / float(output_scale))


def log_softmax_params(input_scale: float) -> tuple[int, int, int, int, int]:
    """(input_multiplier, input_shift, reverse_multiplier, reverse_shift, diff_min) of lmcu_log_softmax_t.

    The first pair is softmax's with beta 1; the reverse pair undoes it. Raises ValueError as softmax does.
    """
    multiplier, shift, diff_min = softmax_params(input_scale, 1.0)
    return (multiplier, shift, *quantize_multiplier(2.0 ** (31 - shift) / multiplier), diff_min)
