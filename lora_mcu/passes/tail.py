# SPDX-License-Identifier: Apache-2.0
"""Where training ends: the int8 tensor that the loss sees, and the operators behind it that only inference runs."""

from __future__ import annotations

from dataclasses import dataclass

from lora_mcu.errors import ModelError
from lora_mcu.ir import Dequantize, Graph, LogSoftmax, Lookup, Op, Requantize, Reshape, Softmax, Tensor

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

    ``auto`` is cross_entropy where the model ends in one row of a softmax, has several outputs, or is a binary
    classifier: one output through LOGISTIC, which is stripped like a softmax. It is mse where the model returns another
    one number, several rows (a mask, a grid of cells), its input's shape (an autoencoder) or several values through
    LOGISTIC or TANH, which are no logits: the gradient passes the table, as it passes a softmax that mse keeps.
    Raises ModelError when the loss does not fit the model.
    """
    if loss not in LOSSES:
        raise ModelError(f"loss {loss!r} is unknown; use one of {', '.join(LOSSES)}")
    logits, tail, softmax = _walk_back(graph)
    stripped = _with_sigmoid(graph, logits, tail)
    if stripped and loss != "mse":
        loss, logits, tail = "cross_entropy", stripped[0].inputs[0], stripped
    tensor = graph.tensors[logits]
    if tensor.dtype != "int8" or not tensor.quantized:
        raise ModelError(f"the output {tensor.name!r} is not computed in int8; quantize the model fully")
    if loss == "auto":
        like_input = tensor.shape == graph.tensors[graph.input].shape
        last = graph.producer(logits)
        bounded = isinstance(last, Lookup) and last.function in ("LOGISTIC", "TANH")
        no_class = not softmax and (tensor.elements == 1 or like_input or bounded)
        loss = "mse" if no_class or not _one_row(tensor) else "cross_entropy"
    if loss == "mse" and softmax:  # its targets are probabilities
        logits, tail, _ = _walk_back(graph, through_softmax=False)
    if loss == "cross_entropy" and not _one_row(tensor):
        raise ModelError(f"cross_entropy needs one row of outputs, not {list(tensor.shape)}; use loss='mse'")
    kept = {id(op) for op in tail}
    return Split(loss, logits, [op for op in graph.ops if id(op) not in kept], tail)


def _with_sigmoid(graph: Graph, current: int, tail: list[Op]) -> list[Op]:
    """``tail`` from the LOGISTIC of a binary classifier on, if nothing else reads its one value; else empty."""
    while not any(current in other.inputs for other in graph.ops if other not in tail):
        op = graph.producer(current)
        if not isinstance(op, Reshape | Lookup) or graph.tensors[current].elements != 1:
            break
        tail, current = [op, *tail], op.inputs[0]
        if isinstance(op, Lookup):
            return tail if op.function == "LOGISTIC" else []
    return []


def _one_row(tensor: Tensor) -> bool:
    return bool(tensor.shape) and tensor.shape[-1] == tensor.elements


def _walk_back(graph: Graph, through_softmax: bool = True) -> tuple[int, list[Op], bool]:
    current, softmax = graph.output, False
    tail: list[Op] = []
    while (op := graph.producer(current)) is not None:
        strip = isinstance(op, Dequantize | Requantize | Reshape) or (
            isinstance(op, Softmax | LogSoftmax) and through_softmax and not softmax
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
