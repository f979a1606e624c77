# SPDX-License-Identifier: Apache-2.0
"""The straight-through graph in TensorFlow: float64 operators on dequantized weights, each result replaced by the int8
activation that the device has (x + stop_gradient(q - x)). TensorFlow's autodiff is then the oracle of the gradients.

Windows are taken apart into strided slices, so that unequal strides and dilations need nothing special.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from conformance.oracle import Array

from lora_mcu import Adapter
from lora_mcu.ir import (
    Activation,
    ActivationDense,
    Add,
    AveragePool,
    Conv2D,
    Dense,
    Depthwise,
    Graph,
    Lookup,
    Matmul,
    Maximum,
    MaxPool,
    Mean,
    Minimum,
    Mul,
    Op,
    Pad,
    Prelu,
    ReduceMax,
    ReduceMean,
    Requantize,
    Reshape,
    ResizeBilinear,
    Softmax,
    SquaredDifference,
    Sub,
    Take,
    Tensor,
    TransposeConv,
    Window,
)
from lora_mcu.ir.reduce import Reduction
from lora_mcu.ir.shape import Copy
from lora_mcu.program import Program
from lora_mcu.reference import shape

F64 = tf.float64


def real(tensor: Tensor, q: Array) -> Array:
    """Dequantized float64 values, per tensor or per channel."""
    if len(tensor.scale) == 1:
        return (q.astype(np.float64) - tensor.z) * float(tensor.s)
    shape = [1] * q.ndim
    shape[tensor.axis] = -1
    return (q.astype(np.float64) - tensor.zero_point.reshape(shape)) * tensor.scale.astype(np.float64).reshape(shape)


def straight_through(x: tf.Tensor, q: Array, tensor: Tensor, activation: Activation) -> tf.Tensor:
    """The value of q; the gradient of x, stopped at an activation's bound and, at a bare rail, where it pushes out."""
    low, high = tensor.clamp(activation)
    value = tf.constant(real(tensor, q), F64)
    at_low, at_high = tf.constant(q <= low), tf.constant(q >= high)

    @tf.custom_gradient
    def gate(x: tf.Tensor) -> Any:
        def gradient(g: tf.Tensor) -> tf.Tensor:
            up = tf.logical_and(at_high, tf.logical_or(activation.high is not None, g < 0))
            down = tf.logical_and(at_low, tf.logical_or(activation.low is not None, g > 0))
            return tf.where(tf.logical_or(up, down), tf.zeros_like(g), g)

        return tf.identity(x), gradient

    x = gate(x)
    return x + tf.stop_gradient(value - x)


def window_slices(x: tf.Tensor, window: Window, out: tuple[int, ...], fill: float) -> tf.Tensor:
    """[taps, 1, OH, OW, C]: for each tap of the window what it sees; ``fill`` in the padding."""
    pads = []
    for axis, before in ((0, window.pad_top), (1, window.pad_left)):
        reach = (out[axis + 1] - 1) * window.stride[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1
        pads.append([before, max(0, reach - before - int(x.shape[axis + 1]))])
    padded = tf.pad(x, [[0, 0], *pads, [0, 0]], constant_values=tf.constant(fill, x.dtype))
    taps = []
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            y, x0 = ky * window.dilation[0], kx * window.dilation[1]
            ends = y + (out[1] - 1) * window.stride[0] + 1, x0 + (out[2] - 1) * window.stride[1] + 1
            taps.append(padded[:, y : ends[0] : window.stride[0], x0 : ends[1] : window.stride[1]])
    return tf.stack(taps)


def _softmax(x: tf.Tensor, p: Array | None) -> tf.Tensor:
    """Softmax whose derivative is taken at the probabilities ``p`` that the device kept (None: at its own)."""

    @tf.custom_gradient
    def at_p(x: tf.Tensor) -> Any:
        y = tf.nn.softmax(x)
        kept = y if p is None else tf.constant(p, F64)
        return y, lambda g: kept * (g - tf.reduce_sum(g * kept, axis=-1, keepdims=True))

    return at_p(x)


_FUNCTIONS = {
    "LOGISTIC": tf.sigmoid, "TANH": tf.tanh, "EXP": tf.exp, "RSQRT": tf.math.rsqrt,
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3) / 6,
}  # fmt: skip


def _by_slopes(op: Lookup, graph: Graph, x: tf.Tensor) -> tf.Tensor:
    """The table and its slopes: of functions with parameters, and of bounds that hold for the rounded value."""
    at = np.rint(x.numpy() / float(graph.tensors[op.inputs[0]].s)).astype(int) + graph.tensors[op.inputs[0]].z + 128
    y = real(graph.tensors[op.output], op.table.values[at])

    @tf.custom_gradient
    def looked_up(_: tf.Tensor) -> Any:
        return tf.constant(y, F64), lambda g: g * op.table.slopes[at].astype(np.float64)

    return looked_up(x)


def _half_away(x: Array) -> Array:
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def rounded(op: Op, graph: Graph, y: tf.Tensor) -> Array:
    """The int8 activation that float64 results ``y`` stand for, rounded where LiteRT rounds.

    Accumulators are integers of scale s_x s_w. Convolution and MEAN round twice: first to multiples of 2^shift, shift
    the binary exponent of the rescaling factor (that is gemmlowp's doubling high multiplication), then to integers.
    """
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    unit = np.float64(x.s)
    if isinstance(op, Conv2D | Dense | Depthwise):
        unit = unit * graph.tensors[op.weights].scale.astype(np.float64)
    ratio = unit / float(out.s)
    if isinstance(op, Mean):
        count = op.split(graph)[1]
        coarse = np.exp2(np.frexp(ratio)[1] - (count.bit_length() - 1))
        steps = _half_away(y.numpy() * count / unit) * ratio / count
    else:
        coarse = np.exp2(np.frexp(ratio)[1])
        steps = _half_away(y.numpy() / unit) * ratio
    if not isinstance(op, Dense):
        steps = np.floor(steps / coarse + 0.5) * coarse
    low, high = out.clamp(getattr(op, "activation", Activation.NONE))
    return np.clip(_half_away(steps) + out.z, low, high).astype(np.int8)


def _interpolation(table: tuple[tuple[int, int, int], ...], size: int) -> tf.Tensor:
    """[outputs, inputs]: a line of weights an output row."""
    lines = np.zeros((len(table), size))
    for line, (first, second, weight) in zip(lines, table, strict=True):
        line[first] += 1 - weight / 1024
        line[second] += weight / 1024
    return tf.constant(lines, F64)


class StraightThrough:
    """One program's training graph. ``quantized=False`` leaves the activations in floats (for finite differences).

    Activations that the caller does not give are computed here, by rounding TensorFlow's own results (weighted
    operators and MEAN only).
    """

    def __init__(self, program: Program, quantized: bool = True) -> None:
        self._program, self._graph, self._quantized = program, program.graph, quantized

    def gradients(
        self, activations: Mapping[int, Array], adapter: Adapter, label: Any
    ) -> tuple[float, dict[str, Array]]:
        """Loss, and gradients by the twin's keys, of one sample whose int8 activations are given by tensor id."""
        factors = {
            f"{name}.lora_{part}": tf.constant(value.astype(np.float64), F64)
            for name, pair in adapter.layers.items()
            for part, value in zip("AB", pair, strict=True)
        }
        with tf.GradientTape() as tape:
            tape.watch(factors)
            loss = self.loss(activations, factors, label)
        found = tape.gradient(loss, factors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return float(loss), {key: value.numpy() for key, value in found.items()}

    def loss(self, activations: Mapping[int, Array], factors: dict[str, tf.Tensor], label: Any) -> tf.Tensor:
        """Cross entropy or mean squared error of one sample; ``factors`` as float64 tensors."""
        values: dict[int, tf.Tensor] = {}

        def value(i: int) -> tf.Tensor:
            """Constants and what stands before the first differentiable operator enter as dequantized values."""
            if i not in values:
                tensor = self._graph.tensors[i]
                q = tensor.data if tensor.data is not None else activations[i]
                values[i] = tf.constant(real(tensor, q), F64)
            return values[i]

        for op in self._program.split.forward:
            if not op.DIFFERENTIABLE:
                continue
            if isinstance(op, Copy | Take):
                values.update(self._moved(op, value))
                continue
            tensor = self._graph.tensors[op.output]
            y = tf.reshape(self._apply(op, value, factors, activations), tensor.shape)
            if self._quantized and not isinstance(op, Pad | ReduceMax | Reshape | Maximum | Minimum):
                activation = getattr(op, "activation", Activation.NONE)
                q = activations[op.output] if op.output in activations else rounded(op, self._graph, y)
                y = straight_through(y, q, tensor, activation)
            values[op.output] = y
        logits = tf.reshape(values[self._program.split.logits], [-1])
        if self._program.info.loss == "mse":
            return tf.reduce_mean((logits - tf.constant(np.ravel(label), F64)) ** 2)
        if logits.shape[-1] == 1:  # a binary classifier's logit
            return tf.nn.sigmoid_cross_entropy_with_logits(tf.constant([float(label)], F64), logits)[0]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(int(label), logits)

    def _apply(self, op: Op, value: Any, factors: dict[str, tf.Tensor], activations: Mapping[int, Array]) -> tf.Tensor:
        out = self._graph.tensors[op.output].shape
        x = value(op.inputs[0])
        match op:
            case Conv2D():
                taps = window_slices(x, op.window, out, 0.0)
                return self._weighted(
                    op, tf.reshape(tf.transpose(taps, [1, 2, 3, 0, 4]), [out[1] * out[2], -1]), factors
                )
            case Dense():
                return self._weighted(op, tf.reshape(x, [op.batch(self._graph), -1]), factors)
            case Depthwise():
                weights = self._graph.tensors[op.weights]
                assert weights.data is not None
                w = real(weights, weights.data).reshape(op.window.kernel[0] * op.window.kernel[1], 1, 1, 1, -1)
                taps = tf.repeat(window_slices(x, op.window, out, 0.0), op.multiplier, axis=-1)
                return tf.reduce_sum(taps * tf.constant(w, F64), axis=0) + self._bias(op)
            case TransposeConv():
                return self._transposed(op, x, out)
            case Reduction():
                return self._reduced(op, x, activations)
            case AveragePool():
                inside = window_slices(tf.ones_like(x), op.window, out, 0.0)
                return tf.reduce_sum(window_slices(x, op.window, out, 0.0), axis=0) / tf.reduce_sum(inside, axis=0)
            case MaxPool():
                q = tf.constant(activations[op.inputs[0]].astype(np.float64), F64)
                first = window_slices(q, op.window, out, -1e9).numpy().argmax(axis=0)  # the first of the largest
                chosen = tf.one_hot(first, op.window.kernel[0] * op.window.kernel[1], axis=0, dtype=F64)
                return tf.reduce_sum(window_slices(x, op.window, out, 0.0) * chosen, axis=0)
            case Mean():
                return tf.reduce_mean(x, axis=op.axes)
            case Add():
                return x + value(op.inputs[1])
            case Sub():
                return x - value(op.inputs[1])
            case Mul():
                return x * value(op.inputs[1])
            case SquaredDifference():
                return tf.math.squared_difference(x, value(op.inputs[1]))
            case Maximum():
                return tf.maximum(x, value(op.inputs[1]))
            case Minimum():
                return tf.minimum(x, value(op.inputs[1]))
            case Prelu():
                return tf.where(x > 0, x, x * value(op.inputs[1]))
            case Lookup():
                return _FUNCTIONS[op.function](x) if op.function in _FUNCTIONS else _by_slopes(op, self._graph, x)
            case Pad():
                tensor = self._graph.tensors[op.inputs[0]]
                fill = (op.value - tensor.z) * float(tensor.s)
                return tf.pad(x, list(zip(op.before, op.after, strict=True)), constant_values=tf.constant(fill, F64))
            case ResizeBilinear():
                down, across = (_interpolation(t, n) for t, n in zip((op.rows, op.columns), x.shape[1:3], strict=True))
                return tf.einsum("yi,bijc,xj->byxc", down, x, across)
            case Matmul():
                return self._matmul(op, x, value(op.inputs[1]))
            case Softmax():
                p = real(self._graph.tensors[op.output], activations[op.output]) if self._quantized else None
                return _softmax(op.beta * x, p)
            case Reshape() | Requantize():
                return x
        raise NotImplementedError(op.KIND)

    def _transposed(self, op: TransposeConv, x: tf.Tensor, out: tuple[int, ...]) -> tf.Tensor:
        """The whole scatter, cut to the output or filled up with zeros."""
        weights, win = self._graph.tensors[op.weights], op.window
        assert weights.data is not None
        w = tf.constant(real(weights, weights.data).transpose(1, 2, 0, 3), F64)
        whole = [1, *((n - 1) * s + k for n, s, k in zip(x.shape[1:3], win.stride, win.kernel, strict=True)), out[3]]
        y = tf.nn.conv2d_transpose(x, w, whole, win.stride, "VALID")[:, win.pad_top :, win.pad_left :]
        y = y[:, : out[1], : out[2]]
        return tf.pad(y, [[0, 0], [0, out[1] - y.shape[1]], [0, out[2] - y.shape[2]], [0, 0]]) + self._bias(op)

    def _reduced(self, op: Reduction, x: tf.Tensor, activations: Mapping[int, Array]) -> tf.Tensor:
        axes = list(op.axes)
        if not isinstance(op, ReduceMax):
            return tf.reduce_mean(x, axes) if isinstance(op, ReduceMean) else tf.reduce_sum(x, axes)
        order = [*(a for a in range(len(x.shape)) if a not in axes), *axes]
        rows = self._graph.tensors[op.output].elements
        q = activations[op.inputs[0]].transpose(order).reshape(rows, -1)
        return tf.gather(tf.reshape(tf.transpose(x, order), [rows, -1]), q.argmax(axis=1), batch_dims=1)

    def _moved(self, op: Copy | Take, value: Any) -> dict[int, tf.Tensor]:
        """Outputs gathered from the inputs, laid end to end, by where the NumPy reference moves their indices."""
        flat = [tf.reshape(value(i), [-1]) for i in op.inputs]
        starts = np.cumsum([0, *(int(x.shape[0]) for x in flat)])
        indices = [
            np.arange(a, b).reshape(self._graph.tensors[i].shape)
            for i, a, b in zip(op.inputs, starts, starts[1:], strict=False)
        ]
        moved = shape.forward(op, self._graph, indices)
        return {
            i: tf.reshape(tf.gather(tf.concat(flat, 0), index.ravel()), self._graph.tensors[i].shape)
            for i, index in zip(op.outputs, moved, strict=True)
        }

    def _matmul(self, op: Matmul, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        shape_a, shape_b = op.shapes(self._graph)
        y = tf.matmul(tf.reshape(a, shape_a), tf.reshape(b, shape_b), op.adj_x, op.adj_y)
        return y + self._bias(op) if isinstance(op, ActivationDense) else y

    def _bias(self, op: Conv2D | Dense | Depthwise | ActivationDense | TransposeConv) -> Array | float:
        if op.bias is None:
            return 0.0
        x, w, b = (self._graph.tensors[i] for i in (*op.inputs[:2], op.bias))
        assert b.data is not None
        return b.data.ravel().astype(np.float64) * float(x.s) * w.scale.astype(np.float64)

    def _weighted(self, op: Conv2D | Dense, patches: tf.Tensor, factors: dict[str, tf.Tensor]) -> tf.Tensor:
        """patches [P, K] times W^T, plus gamma * (patches A^T) B^T."""
        weights = self._graph.tensors[op.weights]
        assert weights.data is not None
        w = real(weights, weights.data).reshape(weights.shape[0], -1)
        y = tf.matmul(patches, tf.constant(w.T.copy(), F64)) + self._bias(op)
        layer = self._program.adaptation.of(op)
        if layer is None:
            return y
        a, b = factors[f"{layer.name}.lora_A"], factors[f"{layer.name}.lora_B"]
        low = tf.matmul(patches, a, transpose_b=True)
        return y + self._program.adaptation.gamma * tf.matmul(low, b, transpose_b=True)
