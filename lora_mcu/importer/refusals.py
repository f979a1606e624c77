# SPDX-License-Identifier: Apache-2.0
"""What cannot be served, and the way out where there is one: by operator, by dtype, by how the file was quantized."""

from __future__ import annotations

from lora_mcu.errors import ModelError
from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import ENTRIES, FLOAT_KINDS, SHAPE_INPUTS, IndexedBy, refuse
from lora_mcu.ir.elementwise import float_model
from lora_mcu.ir.graph import DTYPE_BYTES

_RECURRENT = ("a recurrent layer: build it with unroll=True (Keras), which gives FULLY_CONNECTED layers for a fixed "
              "number of steps, or replace it by dilated 1-D convolutions")  # fmt: skip
_CHOICE = "it picks indices, which nothing can be trained through"
WAYS = {
    **dict.fromkeys(
        ("LSTM", "RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM",
         "BIDIRECTIONAL_SEQUENCE_RNN"), _RECURRENT),
    **dict.fromkeys(("IF", "WHILE", "CALL", "STABLEHLO_WHILE"),
                    "control flow: unroll the loop (unroll=True in Keras' recurrent layers) or take the branch out "
                    "before converting"),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN", "TOPK_V2", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"), _CHOICE),
    "SVDF": "replace it by the depthwise and 1 x 1 convolutions that it factorizes",
    "CONV_3D": "replace it by 2-D convolutions, frame by frame (TimeDistributed) or with the frames as channels",
    "STABLEHLO_COMPOSITE": "convert again with a converter that decomposes composites (ai-edge-torch: its default)",
}  # fmt: skip


def check_kinds(raw: RawModel, live: list[RawOp]) -> None:
    """Raise ModelError for a float model, else naming the first operator that has no entry, and the other kinds."""
    for op in live:
        if op.kind in ENTRIES:
            _refuse_float(raw, op)
    unknown = [op for op in live if op.kind not in ENTRIES]
    if unknown:
        others = sorted({op.kind for op in unknown} - {unknown[0].kind})
        also = f" (nor are {', '.join(others)})" if others else ""
        ways = [way for way in (_way(unknown[0].kind), _cut(raw, live, unknown)) if way]
        raise refuse(raw, unknown[0], "; ".join([f"not supported{also}", *ways]))


def _way(kind: str) -> str:
    if kind.startswith("CUSTOM Flex"):
        return "convert again without SELECT_TF_OPS, so that built-in operators are used"
    if kind.startswith("CUSTOM"):
        return "custom operators have no definition here"
    return WAYS.get(kind, "replace it in the model, or leave it to the application")


def _cut(raw: RawModel, live: list[RawOp], unknown: list[RawOp]) -> str:
    """Where only the model's end is not served, the tensor in front of it can be the output."""
    first = live.index(unknown[0])
    made = {i for op in live[:first] for i in op.outputs}
    inputs = [raw.tensors[i] for i in unknown[0].inputs if i in made]
    names = [t.name for t in inputs if t.dtype in ("int8", "float32")]
    if not names or len(live) - first > 1 + len(unknown) + len(names):
        return ""
    return f"what lies before it compiles with --model-output {' or '.join(repr(n) for n in names)} (output= in Python)"


def _refuse_float(raw: RawModel, op: RawOp) -> None:
    if op.kind in FLOAT_KINDS or isinstance(op.options, IndexedBy):
        return
    tensors = [raw.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
    floats = [t.name for t in tensors if t.dtype == "float32"]
    if floats:
        raise float_model(op.index, op.kind, floats[0], any(t.dtype == "int8" and t.data is not None for t in tensors))


def check_tensors(raw: RawModel, live: list[RawOp]) -> None:
    """Raise ModelError for a dtype, a storage or a shape that cannot be served, by operator and tensor."""
    for op in live:
        for i in op.inputs[: SHAPE_INPUTS.get(op.kind, len(op.inputs))] + op.outputs:
            if i < 0:
                continue
            tensor = raw.tensors[i]
            where = f"operator {op.index} {op.kind}: tensor {tensor.name!r}"
            if -1 in tensor.shape:
                raise ModelError(
                    f"{where} has dynamic shape {list(tensor.shape)}; "
                    "convert with fixed shapes (a concrete function with input shape [1, ...])"
                )
            if i in raw.sparse:
                raise ModelError(f"{where} is stored sparse; convert again without EXPERIMENTAL_SPARSITY")
            if tensor.dtype not in DTYPE_BYTES or tensor.dtype == "int16":
                raise ModelError(f"{where} is {tensor.dtype}; {_dtype_way(tensor.dtype)}")
            if tensor.dtype == "uint8" and op.kind not in ("QUANTIZE", *SHAPE_INPUTS) and tensor.quantized:
                raise ModelError(
                    f"{where} is uint8, as TensorFlow 1 quantized; convert the float model again with supported_ops = "
                    "[TFLITE_BUILTINS_INT8] (uint8 input and output are fine)"
                )


def _dtype_way(dtype: str) -> str:
    if dtype == "int16":
        return "16-bit activations are not served: convert with supported_ops = [TFLITE_BUILTINS_INT8], without INT16"
    if dtype in ("int4", "int2", "uint4"):
        return "weights of fewer than 8 bits are not served: quantize to int8"
    if dtype == "float16":
        return "a float16 model: quantize it fully (`lora-mcu quantize` does it)"
    return "only full int8 models are served: convert with supported_ops = [TFLITE_BUILTINS_INT8]"
