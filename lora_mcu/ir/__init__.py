# SPDX-License-Identifier: Apache-2.0
"""The typed graph between importer and code generator."""

from lora_mcu.ir.attention import ActivationDense, Matmul
from lora_mcu.ir.elementwise import (
    Add,
    Binary,
    Broadcast,
    FloatOp,
    Lookup,
    Maximum,
    Minimum,
    Mul,
    Prelu,
    SquaredDifference,
    Sub,
    Table,
)
from lora_mcu.ir.embedding import Embedding
from lora_mcu.ir.graph import Graph, Tensor
from lora_mcu.ir.log_softmax import LogSoftmax
from lora_mcu.ir.ops import (
    Activation,
    AveragePool,
    Conv2D,
    Dense,
    Depthwise,
    Dequantize,
    MaxPool,
    Mean,
    Op,
    Pad,
    Quantize,
    Requantize,
    Reshape,
    Softmax,
    Window,
)
from lora_mcu.ir.reduce import ReduceMax, ReduceMean, ReduceSum
from lora_mcu.ir.resize import ResizeBilinear
from lora_mcu.ir.shape import (
    Concat,
    DepthToSpace,
    MirrorPad,
    Pack,
    Partition,
    ResizeNearest,
    Slice,
    SpaceToDepth,
    StridedSlice,
    Take,
    Tile,
    Transpose,
    Unpack,
)
from lora_mcu.ir.state import AssignState, ReadState
from lora_mcu.ir.transpose_conv import TransposeConv

__all__ = [
    "Activation", "ActivationDense", "Add", "AssignState", "AveragePool", "Binary", "Broadcast", "Conv2D", "Dense",
    "Depthwise", "Dequantize", "Embedding", "FloatOp", "Graph", "Lookup", "Matmul", "MaxPool", "Maximum", "Mean",
    "Minimum", "Mul", "Op", "Pad", "Prelu", "Quantize", "Requantize", "Reshape", "Softmax", "SquaredDifference",
    "Sub", "Table", "Tensor", "Window", "Concat", "DepthToSpace", "LogSoftmax", "MirrorPad", "Pack", "Partition",
    "ReadState", "ReduceMax", "ReduceMean", "ReduceSum", "ResizeBilinear", "ResizeNearest", "Slice", "SpaceToDepth",
    "StridedSlice", "Take", "Tile", "Transpose", "TransposeConv", "Unpack",
]  # fmt: skip
