# SPDX-License-Identifier: Apache-2.0
"""Operators as small dataclasses. ``inputs`` and ``outputs`` are tensor ids; constants (weights, bias) are tensors too.

Each operator knows its shape and quantization rules (``check``), its cost (``macs``) and what its backward pass reads
(``saved``), so that passes need no table of their own.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lora_mcu.errors import ModelError

if TYPE_CHECKING:
    from lora_mcu.ir.graph import Graph, Tensor


class Activation(enum.Enum):
    """Fused activation: the bounds in real units that it puts on an output (None: no bound on that side)."""

    NONE = (None, None)
    RELU = (0.0, None)
    RELU6 = (0.0, 6.0)
    RELU_N1_TO_1 = (-1.0, 1.0)

    @property
    def low(self) -> float | None:
        low: float | None = self.value[0]
        return low

    @property
    def high(self) -> float | None:
        high: float | None = self.value[1]
        return high


@dataclass(frozen=True)
class Window:
    """A sliding window over H and W; padding is explicit (SAME and VALID are resolved by the importer)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad_top: int
    pad_left: int
    dilation: tuple[int, int] = (1, 1)

    @property
    def is_point(self) -> bool:
        return (self.kernel, self.stride, self.pad_top, self.pad_left) == ((1, 1), (1, 1), 0, 0)

    def rows(self, row: int) -> tuple[int, int]:
        """Input rows [first, end) of an output row, the padding's included."""
        first = row * self.stride[0] - self.pad_top
        return first, first + (self.kernel[0] - 1) * self.dilation[0] + 1


@dataclass
class Op:
    """Base of all operators. ``index`` is the position in the .tflite file, for messages."""

    KIND: ClassVar[str] = "OP"
    DIFFERENTIABLE: ClassVar[bool] = True

    index: int
    inputs: list[int]
    outputs: list[int]

    @property
    def output(self) -> int:
        return self.outputs[0]

    def data_inputs(self) -> list[int]:
        """Inputs through which a gradient can flow (activations)."""
        return self.inputs[:1]

    def check(self, graph: Graph) -> None:
        """Raise ModelError when shapes or quantization do not fit the operator."""

    def macs(self, graph: Graph) -> int:
        return 0

    def saved(self, adapted: bool) -> list[int]:
        """Tensors that the backward pass reads."""
        return [self.output]

    def in_place(self, graph: Graph) -> list[int]:
        """Inputs whose memory the output may take, byte for byte from the same start (lmcu_ops.h says why)."""
        return []

    def gradient_in_place(self, graph: Graph) -> list[int]:
        """Inputs whose gradient may take the memory of the output's, if nothing was added to it before."""
        return []

    def input_rows(self, row: int) -> tuple[int, int] | None:
        """Rows [first, end) of each input, beyond its border too, that a row of the output reads; None: it does not
        run row by row."""
        return None

    def refuse(self, graph: Graph, what: str) -> ModelError:
        name = graph.tensors[self.output].name
        return ModelError(f"operator {self.index} {self.KIND} (output {name!r}): {what}")

    def require(self, graph: Graph, condition: bool, what: str) -> None:
        if not condition:
            raise self.refuse(graph, what)

    def require_int8(self, graph: Graph, *ids: int) -> None:
        for i in ids:
            tensor = graph.tensors[i]
            self.require(
                graph,
                tensor.dtype == "int8" and tensor.quantized,
                f"tensor {tensor.name!r} is {tensor.dtype}{'' if tensor.quantized else ' without quantization'}; int8 "
                "with a scale is needed: convert with full-integer quantization (optimizations = [DEFAULT], a "
                "representative_dataset, supported_ops = [TFLITE_BUILTINS_INT8])",
            )


def same_size(graph: Graph, op: Op, inputs: list[int]) -> list[int]:
    """Those inputs that have as many elements as the output."""
    return [i for i in inputs if graph.tensors[i].elements == graph.tensors[op.output].elements]


def _image(graph: Graph, op: Op, tensor: Tensor) -> tuple[int, int, int]:
    op.require(graph, len(tensor.shape) == 4 and tensor.shape[0] == 1,
               f"tensor {tensor.name!r} has shape {list(tensor.shape)}; [1, H, W, C] is needed: convert with batch 1 "
               "(a concrete function with input shape [1, ...])")  # fmt: skip
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def _check_window(graph: Graph, op: Op, window: Window) -> None:
    ih, iw, _ = _image(graph, op, graph.tensors[op.inputs[0]])
    oh, ow, _ = _image(graph, op, graph.tensors[op.output])
    for size, out, kernel, stride, dilation, pad in zip(
        (ih, iw),
        (oh, ow),
        window.kernel,
        window.stride,
        window.dilation,
        (window.pad_top, window.pad_left),
        strict=True,
    ):
        op.require(graph, min(kernel, stride, dilation) >= 1, "kernel, stride and dilation must be at least 1")
        last = (out - 1) * stride - pad
        op.require(
            graph, pad <= (kernel - 1) * dilation and last < size, "its output is larger than its window reaches"
        )


@dataclass
class _Weighted(Op):
    """inputs = [x, weights] or [x, weights, bias]."""

    activation: Activation = Activation.NONE

    @property
    def weights(self) -> int:
        return self.inputs[1]

    @property
    def bias(self) -> int | None:
        return self.inputs[2] if len(self.inputs) > 2 else None

    def saved(self, adapted: bool) -> list[int]:
        return [self.inputs[0], self.output] if adapted else [self.output]

    def _check_weights(self, graph: Graph, channels: int, axis: int) -> None:
        self.require_int8(graph, self.inputs[0], self.output, self.weights)
        weights = graph.tensors[self.weights]
        self.require(graph, weights.data is not None, f"weights {weights.name!r} are not constant")
        self.require(graph, len(weights.scale) in (1, channels),
                     f"weights {weights.name!r} have {len(weights.scale)} scales for {channels} outputs")  # fmt: skip
        if len(weights.scale) > 1:
            self.require(graph, weights.axis == axis,
                         f"weights {weights.name!r} have scales along axis {weights.axis}, not {axis}")  # fmt: skip
        if self.bias is not None:
            bias = graph.tensors[self.bias]
            self.require(graph, bias.dtype == "int32" and bias.data is not None and bias.data.size == channels,
                         f"bias {bias.name!r} must be {channels} constant int32 values")  # fmt: skip
        self._check_accumulator(graph, axis)

    def _check_accumulator(self, graph: Graph, axis: int) -> None:
        """The kernels sum in 32 bits: |bias| + 255 * sum |w - z_w| must fit for every output."""
        weights = graph.tensors[self.weights]
        assert weights.data is not None
        others = tuple(d for d in range(len(weights.shape)) if d != axis)
        reach = 255 * np.abs(weights.data.astype(np.int64) - weights.zero_point[0]).sum(axis=others)
        bias = graph.tensors[self.bias].data if self.bias is not None else None
        if bias is not None:
            reach = reach + np.abs(bias.astype(np.int64)).ravel()
        self.require(graph, int(reach.max()) < 2**31,
                     f"weights {weights.name!r} and bias can sum to {int(reach.max())}, beyond 32 bits; the bias does "
                     "not fit its scale: quantize the model again")  # fmt: skip


@dataclass
class Conv2D(_Weighted):
    """weights [M, kh, kw, C]."""

    KIND: ClassVar[str] = "CONV_2D"
    window: Window = field(default_factory=lambda: Window((1, 1), (1, 1), 0, 0))

    def check(self, graph: Graph) -> None:
        _check_window(graph, self, self.window)
        x, w, y = (graph.tensors[i] for i in (self.inputs[0], self.weights, self.output))
        self.require(graph, len(w.shape) == 4 and w.shape[0] == y.shape[3] and w.shape[1:3] == self.window.kernel,
                     f"weights {w.name!r} have shape {list(w.shape)}")  # fmt: skip
        self.require(graph, w.shape[3] == x.shape[3],
                     f"{w.shape[3]} of {x.shape[3]} channels a filter: groups are not supported")  # fmt: skip
        self._check_weights(graph, w.shape[0], 0)
        self.require(graph, not w.zero_point.any(), f"weights {w.name!r} have a zero point that is not 0")

    def in_place(self, graph: Graph) -> list[int]:
        """A position's patch is loaded before its outputs are written, which take no more room."""
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        return self.inputs[:1] if self.window.is_point and y.elements <= x.elements else []

    def gradient_in_place(self, graph: Graph) -> list[int]:
        """A position's gradient is read before the input's is written, which takes no more room."""
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        return self.inputs[:1] if self.window.is_point and x.elements <= y.elements else []

    def input_rows(self, row: int) -> tuple[int, int] | None:
        return self.window.rows(row)

    def macs(self, graph: Graph) -> int:
        y, w = graph.tensors[self.output], graph.tensors[self.weights]
        return y.shape[1] * y.shape[2] * w.elements


@dataclass
class Depthwise(_Weighted):
    """weights [1, kh, kw, C * multiplier]."""

    KIND: ClassVar[str] = "DEPTHWISE_CONV_2D"
    window: Window = field(default_factory=lambda: Window((1, 1), (1, 1), 0, 0))
    multiplier: int = 1

    def check(self, graph: Graph) -> None:
        _check_window(graph, self, self.window)
        x, w, y = (graph.tensors[i] for i in (self.inputs[0], self.weights, self.output))
        self.require(
            graph,
            len(w.shape) == 4 and w.shape[0] == 1 and w.shape[1:3] == self.window.kernel
            and w.shape[3] == y.shape[3] == x.shape[3] * self.multiplier,
            f"weights {w.name!r} have shape {list(w.shape)} for {x.shape[3]} channels times {self.multiplier}",
        )  # fmt: skip
        self._check_weights(graph, w.shape[3], 3)
        self.require(graph, not w.zero_point.any(), f"weights {w.name!r} have a zero point that is not 0")

    def gradient_in_place(self, graph: Graph) -> list[int]:
        """Channel by channel, where a map keeps its size."""
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        return self.inputs[:1] if self.multiplier == 1 and x.shape == y.shape else []

    def input_rows(self, row: int) -> tuple[int, int] | None:
        return self.window.rows(row)

    def macs(self, graph: Graph) -> int:
        y, w = graph.tensors[self.output], graph.tensors[self.weights]
        return y.shape[1] * y.shape[2] * w.elements


@dataclass
class Dense(_Weighted):
    """weights [M, K]; x is any shape with a multiple of K elements."""

    KIND: ClassVar[str] = "FULLY_CONNECTED"

    def check(self, graph: Graph) -> None:
        x, w, y = (graph.tensors[i] for i in (self.inputs[0], self.weights, self.output))
        self.require(graph, len(w.shape) == 2, f"weights {w.name!r} have shape {list(w.shape)}; [M, K] is needed")
        m, k = w.shape
        self.require(graph, x.elements % k == 0 and y.elements == x.elements // k * m,
                     f"input {list(x.shape)}, weights [{m}, {k}] and output {list(y.shape)} do not fit")  # fmt: skip
        self._check_weights(graph, m, 0)

    def in_place(self, graph: Graph) -> list[int]:
        """A row's patch is loaded before its outputs are written."""
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        return self.inputs[:1] if self.batch(graph) == 1 or y.elements <= x.elements else []

    def batch(self, graph: Graph) -> int:
        return graph.tensors[self.inputs[0]].elements // graph.tensors[self.weights].shape[1]

    def macs(self, graph: Graph) -> int:
        return self.batch(graph) * graph.tensors[self.weights].elements


@dataclass
class _Pool(Op):
    activation: Activation = Activation.NONE
    window: Window = field(default_factory=lambda: Window((1, 1), (1, 1), 0, 0))

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        _check_window(graph, self, self.window)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.shape[3] == y.shape[3], "channels of input and output differ")
        self.require(graph, x.same_quantization(y), "input and output are quantized differently")

    def in_place(self, graph: Graph) -> list[int]:
        """Without padding in front no window reaches back before its own output."""
        return self.inputs[:1] if (self.window.pad_top, self.window.pad_left) == (0, 0) else []

    def input_rows(self, row: int) -> tuple[int, int] | None:
        return self.window.rows(row)


@dataclass
class AveragePool(_Pool):
    KIND: ClassVar[str] = "AVERAGE_POOL_2D"

    def whole(self, graph: Graph) -> bool:
        """One output position, made of all of the input."""
        (_, h, w, _), y, win = graph.tensors[self.inputs[0]].shape, graph.tensors[self.output].shape, self.window
        return y[1:3] == (1, 1) and win.kernel[0] - win.pad_top >= h and win.kernel[1] - win.pad_left >= w


@dataclass
class MaxPool(_Pool):
    KIND: ClassVar[str] = "MAX_POOL_2D"

    def saved(self, adapted: bool) -> list[int]:
        return [self.inputs[0], self.output]


@dataclass
class Mean(Op):
    """Mean over a contiguous run of axes: x viewed as [outer, count, inner]."""

    KIND: ClassVar[str] = "MEAN"
    axes: tuple[int, ...] = ()

    def split(self, graph: Graph) -> tuple[int, int, int]:
        shape = graph.tensors[self.inputs[0]].shape
        first, last = min(self.axes), max(self.axes)
        return math.prod(shape[:first]), math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :])

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        rank = len(graph.tensors[self.inputs[0]].shape)
        self.require(graph, bool(self.axes) and all(0 <= a < rank for a in self.axes), "its axes are out of range")
        self.require(graph, len(set(self.axes)) == max(self.axes) - min(self.axes) + 1,
                     f"axes {list(self.axes)} are not neighbours; transpose before the mean")  # fmt: skip
        outer, _, inner = self.split(graph)
        self.require(graph, graph.tensors[self.output].elements == outer * inner, "its output has the wrong size")


@dataclass
class Pad(Op):
    KIND: ClassVar[str] = "PAD"
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    value: int = 0  # in the quantized domain

    def input_rows(self, row: int) -> tuple[int, int] | None:
        """Of images whose rows, columns and channels are padded."""
        if len(self.before) != 4 or self.before[0] or self.after[0]:
            return None
        return row - self.before[1], row - self.before[1] + 1

    def saved(self, adapted: bool) -> list[int]:
        return []

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, len(x.shape) <= 4 and len(self.before) == len(x.shape), "more than 4 dimensions are padded")
        grown = tuple(b + d + a for b, d, a in zip(self.before, x.shape, self.after, strict=True))
        self.require(graph, min(*self.before, *self.after) >= 0 and grown == y.shape, "its output has the wrong shape")
        self.require(graph, x.same_quantization(y), "input and output are quantized differently")


@dataclass
class Reshape(Op):
    """The same bytes under another shape: input and output share their memory."""

    KIND: ClassVar[str] = "RESHAPE"

    def saved(self, adapted: bool) -> list[int]:
        return []

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.elements == y.elements,
                     f"{list(x.shape)} has {x.elements} elements, {list(y.shape)} has {y.elements}")  # fmt: skip
        self.require(graph, x.dtype == y.dtype, "it changes the dtype")


@dataclass
class Softmax(Op):
    KIND: ClassVar[str] = "SOFTMAX"
    beta: float = 1.0

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.shape == y.shape, "input and output shapes differ")
        self.require(graph, float(y.scale[0]) == 1 / 256 and int(y.zero_point[0]) == -128,
                     "its output must be quantized with scale 1/256 and zero point -128")  # fmt: skip


@dataclass
class Quantize(Op):
    """float32 -> int8."""

    KIND: ClassVar[str] = "QUANTIZE"
    DIFFERENTIABLE: ClassVar[bool] = False

    def in_place(self, graph: Graph) -> list[int]:
        return self.inputs[:1]

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.dtype == "float32" and x.elements == y.elements, "float32 of the same size is expected")
        self.require_int8(graph, self.output)


@dataclass
class Requantize(Op):
    """int8 or uint8 -> int8 or uint8 with another scale."""

    KIND: ClassVar[str] = "QUANTIZE"

    def in_place(self, graph: Graph) -> list[int]:
        return self.inputs[:1]

    def gradient_in_place(self, graph: Graph) -> list[int]:
        return self.inputs[:1]

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        pair = (x.dtype, y.dtype)
        self.require(graph, pair in (("int8", "int8"), ("uint8", "int8"), ("int8", "uint8")),
                     f"{x.dtype} -> {y.dtype} is not supported")  # fmt: skip
        self.require(graph, x.quantized and y.quantized and x.elements == y.elements, "a scale is missing")


@dataclass
class Dequantize(Op):
    """int8 -> float32."""

    KIND: ClassVar[str] = "DEQUANTIZE"
    DIFFERENTIABLE: ClassVar[bool] = False

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require_int8(graph, self.inputs[0])
        self.require(graph, y.dtype == "float32" and x.elements == y.elements, "float32 of the same size is expected")
