# SPDX-License-Identifier: Apache-2.0
"""Where training ends: the int8 tensor that the loss sees, and the operators behind it that only inference runs."""

from __future__ import annotations

from dataclasses import dataclass

from lora_mcu.errors import ModelError
from lora_mcu.ir import Dequantize, Graph, LogSoftmax, Lookup, Op, Requantize, Reshape, Softmax

LOSSES = ("auto", "cross_entropy", "mse")


@dataclass(frozen=True)
class Split:
    """``forward`` computes ``logits``; ``tail`` turns logits into the model's output (softmax, dequantize, ...)."""

    loss: str  # cross_entropy | mse
    logits: int
    forward: list[Op]
    tail: list[Op]


def split(graph: Graph, loss: str = "auto") -> Split:
    """Strip the final softmax and the output's conversions for training, keep them for inference.

    ``auto`` is cross_entropy where the model ends in a softmax or has several outputs, mse where it returns one
    number, its input's shape (an autoencoder) or ends in LOGISTIC or TANH, whose values are no logits: targets of a
    binary classifier are then 0 and 1, and the gradient passes the table. Raises ModelError when the loss does not
    fit the model.
    """
    if loss not in LOSSES:
        raise ModelError(f"loss {loss!r} is unknown; use one of {', '.join(LOSSES)}")
    logits, tail, softmax = _walk_back(graph)
    tensor = graph.tensors[logits]
    if tensor.dtype != "int8" or not tensor.quantized:
        raise ModelError(f"the output {tensor.name!r} is not computed in int8; quantize the model fully")
    if loss == "auto":
        like_input = tensor.shape == graph.tensors[graph.input].shape
        last = graph.producer(logits)
        bounded = isinstance(last, Lookup) and last.function in ("LOGISTIC", "TANH")
        loss = "mse" if not softmax and (tensor.elements == 1 or like_input or bounded) else "cross_entropy"
    if loss == "mse" and softmax:
        raise ModelError("the model ends in SOFTMAX, so mse has no gradient here; use loss='cross_entropy'")
    if loss == "cross_entropy" and (tensor.elements < 2 or tensor.shape[-1] != tensor.elements):
        raise ModelError(f"cross_entropy needs one row of at least 2 outputs, not {list(tensor.shape)}; use loss='mse'")
    kept = {id(op) for op in tail}
    return Split(loss, logits, [op for op in graph.ops if id(op) not in kept], tail)


def _walk_back(graph: Graph) -> tuple[int, list[Op], bool]:
    current, softmax = graph.output, False
    tail: list[Op] = []
    while (op := graph.producer(current)) is not None:
        strip = isinstance(op, Dequantize | Requantize | Reshape) or (
            isinstance(op, Softmax | LogSoftmax) and not softmax
        )
        used_elsewhere = any(current in other.inputs for other in graph.ops if other not in tail)
        if not strip or used_elsewhere:
            break
        softmax = softmax or isinstance(op, Softmax | LogSoftmax)
        tail.insert(0, op)
        current = op.inputs[0]
    while tail and isinstance(tail[0], Reshape):  # a view that training can keep: the loss sees the model's own shape
        current = tail.pop(0).output
    return current, tail, softmax
