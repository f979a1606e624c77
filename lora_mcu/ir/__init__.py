# SPDX-License-Identifier: Apache-2.0
"""The typed graph between importer and code generator."""

from lora_mcu.ir.graph import Graph, Tensor
from lora_mcu.ir.ops import (
    Activation,
    Add,
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

__all__ = [
    "Activation", "Add", "AveragePool", "Conv2D", "Dense", "Depthwise", "Dequantize", "Graph", "MaxPool", "Mean",
    "Op", "Pad", "Quantize", "Requantize", "Reshape", "Softmax", "Tensor", "Window",
]  # fmt: skip
