# SPDX-License-Identifier: Apache-2.0
"""From a .tflite file to a Graph. TensorFlow is not needed and not imported."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

from lora_mcu.errors import ModelError
from lora_mcu.importer import embedding, state
from lora_mcu.importer.dilation import merge_dilations
from lora_mcu.importer.flatbuffer import RawModel, RawOp, read
from lora_mcu.importer.folding import fold
from lora_mcu.importer.refusals import check_kinds, check_tensors
from lora_mcu.importer.registry import ENTRIES, SHAPE_INPUTS, convert
from lora_mcu.ir.graph import Graph

__all__ = ["ENTRIES", "load", "loads"]

# each module registers the entries of one group of operators
for _group in ("operators", "elementwise", "attention", "shape", "reduce", "state"):
    importlib.import_module(f"lora_mcu.importer.{_group}")


def load(path: str | Path, output: str | None = None) -> Graph:
    """Read a quantized .tflite model. Raises ModelError (one line with a way out) on anything that cannot be served.

    ``output`` names the tensor to keep of a model with several outputs, or one inside the model where it is to end;
    what only the others need is dropped.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return loads(content, Path(path).stem, output)
    except ModelError as error:
        raise ModelError(f"{Path(path).name}: {error}") from None


def loads(content: bytes, name: str = "model", output: str | None = None) -> Graph:
    """Like :func:`load`, from the bytes of a file."""
    try:
        return _loads(content, name, output)
    except ModelError:
        raise
    except Exception as error:  # flatbuffers reads lazily and signals broken offsets by whatever struct or NumPy raise
        raise ModelError(
            f"the .tflite file is truncated or damaged ({type(error).__name__}); convert it again"
        ) from error


def _loads(content: bytes, name: str, output: str | None) -> Graph:
    raw = read(content)
    if len(raw.inputs) != 1:
        raise ModelError(f"it has {len(raw.inputs)} inputs; export the model with one input")
    raw.outputs = [_choose_output(raw, output)]
    fold(raw)
    embedding.resolve(raw)
    state.resolve(raw, lambda index: read(content, index))
    merge_dilations(raw)
    live = _live(raw)
    check_kinds(raw, live)
    check_tensors(raw, live)
    ops = [convert(raw, op) for op in live]
    used = {raw.inputs[0], raw.outputs[0]} | {i for op in ops for i in (*op.inputs, *op.outputs)}
    tensors = {i: raw.tensors[i] for i in sorted(used)}
    states = {i: initial for i, initial in raw.states.items() if i in used}
    graph = Graph(name, raw.sha256, tensors, ops, raw.inputs[0], raw.outputs[0], states)
    graph.verify()
    return graph


def _choose_output(raw: RawModel, wanted: str | None) -> int:
    """The only output, the one called ``wanted``, or a tensor of that name inside the model."""
    names = {raw.tensors[i].name: i for i in raw.outputs}
    listed = ", ".join(f"{n!r} {list(raw.tensors[i].shape)}" for n, i in names.items())
    if wanted is None:
        if len(raw.outputs) != 1:
            way = f"name the one to train: output='...' of {listed}" if names else "export the model with one output"
            raise ModelError(f"it has {len(raw.outputs)} outputs; {way}")
        return raw.outputs[0]
    inside = {raw.tensors[i].name: i for op in raw.ops for i in op.outputs}
    if wanted not in names | inside:
        near = difflib.get_close_matches(wanted, inside, 3)
        raise ModelError(f"it has no output {wanted!r}; its outputs are {listed}"
                         + (f"; near in name: {', '.join(map(repr, near))}" if near else ""))  # fmt: skip
    return names.get(wanted, inside.get(wanted, -1))


def _live(raw: RawModel) -> list[RawOp]:
    """Operators that the output depends on, now or through a state that is read in a later inference.

    A reshape's target shape is known from its output tensor.
    """
    needed, before = {raw.outputs[0]}, 0
    live: list[RawOp] = []
    while len(needed) > before:  # a state read early needs what is assigned to it later
        live, before = [], len(needed)
        for op in reversed(raw.ops):
            if needed.intersection(op.outputs):
                live.append(op)
                skipped = SHAPE_INPUTS.get(op.kind, len(op.inputs))
                needed.update(i for i in op.inputs[:skipped] if i >= 0)
    return live[::-1]
