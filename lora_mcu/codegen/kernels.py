# SPDX-License-Identifier: Apache-2.0
"""One emitter an operator: its constants for the image, and the calls of its forward and backward kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.codegen import quantmath, rounding
from lora_mcu.codegen.cdata import Constant, Fields, array, c_float, c_type, struct, table
from lora_mcu.codegen.emitter import CLAMP, Context, Emitted, clamp_values, emits, ints, shared_backward, simple
from lora_mcu.ir import (
    AveragePool,
    Conv2D,
    Dense,
    Depthwise,
    Dequantize,
    Graph,
    MaxPool,
    Mean,
    Pad,
    Quantize,
    Requantize,
    Softmax,
    TransposeConv,
)
from lora_mcu.passes import blocks
from lora_mcu.passes.adapters import AdaptedLayer

CONV: Fields = ["i"] * 16 + [CLAMP, "pp", "p", "p", "p"]
BLOCK: Fields = "piii"


def weight_scales(graph: Graph, tensor: int, channels: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [channels]: per-tensor scales repeated."""
    return np.broadcast_to(graph.tensors[tensor].scale, (channels,)).astype(np.float32)


def effective_scales(op: Conv2D | Depthwise | Dense | TransposeConv, graph: Graph, channels: int) -> list[float]:
    """double(s_x) * double(s_w[o]) / double(s_y), as the oracle computes it."""
    sx, sy = float(graph.tensors[op.inputs[0]].s), float(graph.tensors[op.output].s)
    return [sx * float(s) / sy for s in weight_scales(graph, op.weights, channels)]


def _numbers(
    op: Conv2D | Depthwise | Dense | TransposeConv, ctx: Context, prefix: str, multiplier: NDArray[Any],
    shift: NDArray[Any],
) -> tuple[list[Constant], dict[str, str]]:  # fmt: skip
    """Weights, bias and rounding, whose shifts may be empty: constants, and an expression for each; in SRAM where the
    layer is resident there."""
    w, bias = ctx.graph.tensors[op.weights].data, None if op.bias is None else ctx.graph.tensors[op.bias].data
    assert w is not None
    arrays: dict[str, NDArray[Any]] = {"weights": w.astype(np.int8)}
    if bias is not None:
        arrays["bias"] = bias.astype(np.int32)
    arrays |= {"multiplier": multiplier, "shift": shift}
    resident = ctx.residents.of(op)
    if resident is None:
        names = {key: f"{prefix}_{key[0] if key in ('weights', 'bias') else key}" for key in arrays if arrays[key].size}
        made = [array(names[key], arrays[key], in_words=key == "weights") for key in names]
        return made, {"bias": "NULL", "shift": "NULL", **names}
    places = {"bias": "NULL"}
    for key, values in arrays.items():
        at, raw = getattr(resident, key), np.frombuffer(values.tobytes(), np.uint8)
        ctx.image[at : at + len(raw)] = raw
        places[key] = f"(const {c_type(values)} *)(const void *)(lmcu_weights + {at})"
    return [], places


def _lora(op: Conv2D | Dense, ctx: Context, layer: AdaptedLayer | None, prefix: str) -> tuple[list[Constant], str]:
    if layer is None:
        return [], "NULL"
    gamma = np.float32(ctx.adaptation.gamma)
    with np.errstate(over="ignore"):  # of scales below the normal float32: as large as c can be
        c = np.minimum(gamma / weight_scales(ctx.graph, op.weights, layer.m), np.finfo(np.float32).max)
    input_scale = ctx.graph.tensors[op.inputs[0]].s
    layout = ints(ctx.adaptation.rank, layer.a_offset, layer.b_offset, _fits(op, ctx.graph))
    values = f"{layout}, {c_float(gamma)}, {c_float(input_scale)}, {prefix}_c"
    fields: Fields = "iiiiiip"
    constants = [array(f"{prefix}_c", c)]
    if ctx.random is not None:
        whole, exponents = blocks.output_factors(c)
        sizes = (layer.k, layer.m, blocks.table_offset(layer, ctx.adaptation))
        factors = (float(gamma), float(input_scale), float(gamma) * float(input_scale))
        numbers = ints(*sizes, *(n for factor in factors for n in blocks.whole(factor)))
        values, fields = f"{layout}, {prefix}_c, {prefix}_c_order, {numbers}", "iiiipp" + "i" * 9
        rows = [f"{{{w}, {e}}}" for w, e in zip(whole.tolist(), exponents.tolist(), strict=True)]
        order = np.argsort(-exponents.astype(np.int32), kind="stable").astype(np.uint16)
        constants = [table(f"{prefix}_c", "lmcu_scaled_t", ["ii"] * layer.m, rows, ctx.pointer_bytes),
                     array(f"{prefix}_c_order", order)]  # fmt: skip
    constants.append(struct(f"{prefix}_lora", "lmcu_lora_t", fields, values, ctx.pointer_bytes))
    return constants, f"&{prefix}_lora"


def _fits(op: Conv2D | Dense, graph: Graph) -> int:
    """1: the bias, what an adapter adds (2^30) and the products with patch values, at most 255, stay below 2^31."""
    return int(graph.tensors[op.weights].z == 0 and int(_reach(op, graph).max()) < 2**30)


def _reach(op: Conv2D | Dense, graph: Graph) -> NDArray[np.int64]:
    """int64 [M]: no sum of an output's bias and its products with values x - z_x, at most 255, exceeds it."""
    w, bias = graph.tensors[op.weights], None if op.bias is None else graph.tensors[op.bias].data
    assert w.data is not None
    sums = 255 * np.abs(w.data.astype(np.int64) - w.z).reshape(w.shape[0], -1).sum(axis=1)
    return np.asarray(sums + (0 if bias is None else np.abs(bias.astype(np.int64))))


def block(
    op: Conv2D | Depthwise | Dense | TransposeConv, ctx: Context, channels: int
) -> tuple[list[Constant], str, Fields]:
    """Mode i16: constants of the backward pass, and the kernel's last field with its comma; nothing in mode f32."""
    if ctx.random is None:
        return [], "", []
    if op.index not in ctx.random.first:
        return [], ", NULL", ["p"]
    prefix = f"lmcu_op{op.index}"
    scales, exponent = blocks.weight_scales(weight_scales(ctx.graph, op.weights, channels))
    values = f"{prefix}_v, {exponent}, {ctx.random.first[op.index]}u, {ctx.random.words}u"
    made = [array(f"{prefix}_v", scales), struct(f"{prefix}_block", "lmcu_block_t", BLOCK, values, ctx.pointer_bytes)]
    return made, f", &{prefix}_block", ["p"]


@emits(Dense)
def _dense(op: Dense, ctx: Context) -> Emitted:
    graph, prefix = ctx.graph, f"lmcu_op{op.index}"
    w = graph.tensors[op.weights]
    m, k = w.shape
    scales = effective_scales(op, graph, m if len(w.scale) > 1 else 1)
    reach = _reach(op, graph) + (0 if ctx.adaptation.of(op) is None else 2**30)
    limits = np.minimum(reach if len(scales) > 1 else reach.max(keepdims=True), rounding.ACC_MAX)
    pairs = [rounding.pair(s, int(limit)) for s, limit in zip(scales, limits, strict=True)]
    shifts = np.array([p[1] for p in pairs], np.uint8)
    if ctx.residents.of(op) is None and not shifts.any():
        shifts = shifts[:0]
    constants, at = _numbers(op, ctx, prefix, np.array([p[0] for p in pairs], np.uint64), shifts)
    scale_name = "NULL"
    if ctx.backward_step >= 0 or ctx.residents.of(op):
        scale_name = f"{prefix}_s"
        constants.append(array(scale_name, weight_scales(graph, op.weights, m)))
    lora, lora_name = _lora(op, ctx, ctx.adaptation.of(op), prefix)
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    values = (
        f"{ints(op.batch(graph), k, m, x.z, w.z, y.z)}, {clamp_values(op, graph)}, "
        f"{{{at['multiplier']}, {at['shift']}, {int(len(scales) > 1)}}}, {at['weights']}, {at['bias']}, {scale_name}"
    )
    more, last, kinds = block(op, ctx, m)
    fields: Fields = [*"iiiiii", CLAMP, "ppi", "p", "p", "p", *kinds]
    constants += [*lora, *more, struct(prefix, "lmcu_dense_t", fields, values + last, ctx.pointer_bytes)]
    return _weighted_calls("dense", op, ctx, constants, prefix, lora_name)


def _weighted_calls(
    kernel: str, op: Conv2D | Dense, ctx: Context, constants: list[Constant], prefix: str, lora: str
) -> Emitted:
    x, y = ctx.x(op.inputs[0]), ctx.x(op.output)
    used = f"lmcu_is_merged() ? NULL : {lora}" if ctx.residents.of(op) else lora
    out = Emitted(constants, f"lmcu_{kernel}_forward(&{prefix}, {used}, {x}, {y}, {ctx.scratch(ctx.step)})")
    if ctx.backward_step >= 0:
        shared = "_shared" if op.output in ctx.plan.shared else ""
        out.backward = (f"lmcu_{kernel}_backward{shared}(&{prefix}, {lora}, {x}, {y}, {ctx.dy(op)}, "
                        f"{ctx.g(op.inputs[0])}, {ctx.scratch(ctx.backward_step)})")  # fmt: skip
    if ctx.bands:
        out.row = f"lmcu_{kernel}_row(&{prefix}{ctx.rows(op.inputs[0], op.output)}, {ctx.scratch(ctx.step)})"
    return out


def conv_values(op: Conv2D | Depthwise | TransposeConv, ctx: Context, prefix: str) -> tuple[list[Constant], str]:
    """Constants and initializer of lmcu_conv2d_t, shared by the convolutions."""
    graph = ctx.graph
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    channels, win = y.shape[3], op.window
    constants, at = _numbers(op, ctx, prefix, *quantmath.double_rounding(effective_scales(op, graph, channels)))
    scale_name = "NULL"
    if ctx.backward_step >= 0 or ctx.residents.of(op):
        scale_name = f"{prefix}_s"
        constants.append(array(scale_name, weight_scales(graph, op.weights, channels)))
    sizes = ints(
        *x.shape[1:], *y.shape[1:], *win.kernel, *win.stride, *win.dilation, win.pad_top, win.pad_left, x.z, y.z
    )
    values = (f"{sizes}, {clamp_values(op, graph)}, {{{at['multiplier']}, {at['shift']}}}, {at['weights']}, "
              f"{at['bias']}, {scale_name}")  # fmt: skip
    more, last, _ = block(op, ctx, channels)
    return [*constants, *more], values + last


def conv_fields(ctx: Context) -> Fields:
    """Of lmcu_conv2d_t."""
    return CONV if ctx.random is None else [*CONV, "p"]


@emits(Conv2D)
def _conv(op: Conv2D, ctx: Context) -> Emitted:
    prefix = f"lmcu_op{op.index}"
    constants, values = conv_values(op, ctx, prefix)
    lora, lora_name = _lora(op, ctx, ctx.adaptation.of(op), prefix)
    constants += [*lora, struct(prefix, "lmcu_conv2d_t", conv_fields(ctx), values, ctx.pointer_bytes)]
    return _weighted_calls("conv2d", op, ctx, constants, prefix, lora_name)


@emits(Depthwise)
def _depthwise(op: Depthwise, ctx: Context) -> Emitted:
    prefix = f"lmcu_op{op.index}"
    constants, values = conv_values(op, ctx, prefix)
    constants.append(
        struct(prefix, "lmcu_depthwise_t", [conv_fields(ctx), "i"], f"{{{values}}}, {op.multiplier}", ctx.pointer_bytes)
    )
    x, y = ctx.x(op.inputs[0]), ctx.x(op.output)
    out = Emitted(constants, f"lmcu_depthwise_forward(&{prefix}, {x}, {y})")
    if ctx.backward_step >= 0 and ctx.is_replaced(op, op.inputs[0]):
        out.backward = (f"lmcu_depthwise_backward_in_place(&{prefix}, {y}, {ctx.dy(op)}, "
                        f"{ctx.scratch(ctx.backward_step)})")  # fmt: skip
    elif ctx.backward_step >= 0:
        out.backward = f"lmcu_depthwise_backward(&{prefix}, {y}, {ctx.dy(op)}, {ctx.g(op.inputs[0])})"
    if ctx.bands:
        out.row = f"lmcu_depthwise_row(&{prefix}{ctx.rows(op.inputs[0], op.output)})"
    return out


@emits(AveragePool, MaxPool)
def _pool(op: AveragePool | MaxPool, ctx: Context) -> Emitted:
    x, y, win = ctx.graph.tensors[op.inputs[0]], ctx.graph.tensors[op.output], op.window
    values = (f"{ints(*x.shape[1:], *y.shape[1:3], *win.kernel, *win.stride, win.pad_top, win.pad_left)}, "
              f"{clamp_values(op, ctx.graph)}")  # fmt: skip
    kernel = "average_pool" if isinstance(op, AveragePool) else "max_pool"
    saved = (op.output,) if isinstance(op, AveragePool) else (op.inputs[0], op.output)
    out = simple(op, ctx, kernel, [*"i" * 11, CLAMP], values, backward=saved, ctype="lmcu_pool_t")
    if ctx.backward_step >= 0 and op.inputs[0] in ctx.plan.shared:
        share = np.float32(1.0) / np.float32(x.shape[1] * x.shape[2])
        out.backward = shared_backward(op, ctx, clamp_values(op, ctx.graph), share)
    return out


@emits(Mean)
def _mean(op: Mean, ctx: Context) -> Emitted:
    x, y = ctx.graph.tensors[op.inputs[0]], ctx.graph.tensors[op.output]
    outer, count, inner = op.split(ctx.graph)
    multiplier, shift = quantmath.mean_params(float(x.s), float(y.s), count)
    inverse = c_float(np.float32(1.0) / np.float32(count))
    values = f"{ints(outer, count, inner, x.z, y.z, multiplier, shift)}, {inverse}"
    out = simple(op, ctx, "mean", "i" * 8, values, backward=(op.output,))
    if ctx.backward_step >= 0 and op.inputs[0] in ctx.plan.shared:
        out.backward = shared_backward(op, ctx, "{-128, 127, 0, 0}", np.float32(1.0) / np.float32(count))
    return out


@emits(Pad)
def _pad(op: Pad, ctx: Context) -> Emitted:
    fill = 4 - len(op.before)
    shape = (1,) * fill + ctx.graph.tensors[op.inputs[0]].shape
    before, after = (0,) * fill + op.before, (0,) * fill + op.after
    values = f"{{{ints(*shape)}}}, {{{ints(*before)}}}, {{{ints(*after)}}}, {op.value}"
    return simple(op, ctx, "pad", "i" * 13, values, backward=())


@emits(Softmax)
def _softmax(op: Softmax, ctx: Context) -> Emitted:
    x = ctx.graph.tensors[op.inputs[0]]
    depth = x.shape[-1]
    params = quantmath.softmax_params(float(x.s), op.beta)
    values = f"{ints(x.elements // depth, depth, *params, -128)}, {c_float(op.beta)}"
    return simple(op, ctx, "softmax", "i" * 7, values, backward=(op.output,))


@emits(Quantize)
def _quantize(op: Quantize, ctx: Context) -> Emitted:
    y = ctx.graph.tensors[op.output]
    return simple(
        op, ctx, "quantize", "iii", f"{y.elements}, {c_float(y.s)}, {y.z}", ("float", "int8_t"), ctype="lmcu_affine_t"
    )


@emits(Dequantize)
def _dequantize(op: Dequantize, ctx: Context) -> Emitted:
    x = ctx.graph.tensors[op.inputs[0]]
    return simple(
        op, ctx, "dequantize", "iii", f"{x.elements}, {c_float(x.s)}, {x.z}", ("int8_t", "float"), ctype="lmcu_affine_t"
    )


@emits(Requantize)
def _requantize(op: Requantize, ctx: Context) -> Emitted:
    x, y = ctx.graph.tensors[op.inputs[0]], ctx.graph.tensors[op.output]
    multiplier, shift = quantmath.requantize_params(float(x.s), float(y.s))
    low, high = (0, 255) if y.dtype == "uint8" else (-128, 127)
    kinds = {"int8": "i8", "uint8": "u8"}
    out = simple(op, ctx, f"requantize_{kinds[x.dtype]}_{kinds[y.dtype]}", "i" * 7,
                   ints(x.elements, x.z, y.z, multiplier, shift, low, high), (f"{x.dtype}_t", f"{y.dtype}_t"),
                   ctype="lmcu_requantize_t")  # fmt: skip
    if ctx.backward_step >= 0:
        y_bytes, into = ctx.x(op.output), ctx.g(op.inputs[0])
        out.backward = f"lmcu_requantize_backward(&lmcu_op{op.index}, {y_bytes}, {ctx.dy(op)}, {into})"
    return out
