# SPDX-License-Identifier: Apache-2.0
"""compile(): from a .tflite file and a board to a Program that can be reported, written, built and run as a twin."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_mcu import boards
from lora_mcu.boards import Board
from lora_mcu.codegen import model_c
from lora_mcu.codegen.model_c import MemorySymbol
from lora_mcu.errors import BoardError, ModelError
from lora_mcu.importer import load
from lora_mcu.info import LayerInfo, ModelInfo, TensorInfo
from lora_mcu.ir import Embedding, Graph
from lora_mcu.link.auth import KEY_BYTES
from lora_mcu.passes import adapters, auto, cut, estimate, gradient, memory, normalize, residents, stripes, tail
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.blocks import NUMERICS
from lora_mcu.passes.cut import Cut
from lora_mcu.passes.gradient import BackwardOp
from lora_mcu.passes.memory import MemoryPlan
from lora_mcu.passes.residents import Residents
from lora_mcu.passes.tail import Split
from lora_mcu.random_bits import initial_a
from lora_mcu.report import Report
from lora_mcu.sram import allocate

if TYPE_CHECKING:
    from lora_mcu.twin import Twin

FORMS = ("project", "library")
UNLIMITED = 1 << 62


@dataclass(frozen=True)
class _Options:
    """What does not depend on the choice of layers."""

    numerics: str
    seed: int
    cache: str
    momentum: bool
    max_batch: int
    depth_first: bool
    weights: str
    key: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Program:
    """A compiled model: everything that the project's files are made from. Made by :func:`compile`."""

    graph: Graph
    board: Board
    split: Split
    adaptation: Adaptation
    backward: list[BackwardOp]
    plan: MemoryPlan
    cut: Cut
    info: ModelInfo
    memory: list[MemorySymbol]
    seed: int
    ring_bytes: int
    need: auto.Need  # without stored samples
    residents: Residents  # weights in SRAM
    note: str = ""
    key: bytes | None = field(default=None, repr=False)  # that the device asks for; 32 bytes, only ever in key.c

    @cached_property
    def _generated(self) -> model_c.Generated:
        r = self.adaptation.rank
        parts = [initial_a(self.seed, x.a_offset, r * x.k, x.k) for x in self.adaptation.layers]
        bits = np.concatenate(parts) if parts else np.zeros(0, np.uint16)
        return model_c.generate(
            self.graph, self.split, self.backward, self.adaptation, self.plan, self.cut, self.info, bits,
            self.board.pointer_bytes, self.residents,
        )  # fmt: skip

    @cached_property
    def _fields(self) -> list[tuple[str, str]]:
        return model_c.model_fields(
            self.graph, self.split, self.adaptation, self.plan, self.cut, self.info, self.memory
        )

    @cached_property
    def _report(self) -> Report:
        constants = {c.name: c.nbytes for c in self._generated.constants}
        if self.key is not None:
            constants["lmcu_key"] = len(self.key)
        constants["lmcu_model"] = model_c.model_bytes(self._fields, self.board.pointer_bytes)
        return Report.make(self, constants)

    def report(self) -> Report:
        """Layers, bytes of flash and SRAM by symbol, estimated instructions. No C compiler is needed."""
        return self._report

    def files(self) -> dict[str, bytes]:
        """The project as {relative path: content}. Equal inputs give equal bytes."""
        from lora_mcu.codegen.library import render_library_files
        from lora_mcu.codegen.platformio import render_project_files

        # the image may have all of the board's SRAM: what a limited plan leaves is for code of one's own
        whole = boards.load(self.board.identity)
        arrays = {region.name: [s.name for s in self.memory if s.region == region.name] for region in whole.sram}
        files = render_library_files(self) if self.board.is_library else render_project_files(whole, self.key, arrays)
        header = next(name for name in files if name.endswith("/lmcu_config.h"))
        files[header] = _configured(files[header], {
            "RX_RING_BYTES": self.ring_bytes, "KEYED": self.key is not None,
            "SRAM_WEIGHTS": bool(self.residents.layers),
            "NUMERICS_I16": self.info.numerics == "i16" and bool(self.adaptation.layers),
        })  # fmt: skip
        files["src/model.c"] = model_c.render(
            self.info, self._generated, self.memory, self._fields, self._report.sram_bytes, self.board.pointer_bytes
        )
        content = {"format": 1, "info": json.loads(self.info.to_json()), "report": self._report.to_dict()}
        files["lora_mcu.json"] = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
        return dict(sorted(files.items()))

    def write(self, folder: str | Path, force: bool = False) -> Path:
        """Write the PlatformIO project into ``folder``, whole or not at all; an existing one only with ``force``."""
        from lora_mcu.project import write_project

        return write_project(Path(folder), self.files(), force)

    def twin(self) -> Twin:
        """The generated C of this board's plan, built for this computer and loaded."""
        from lora_mcu.twin import Twin

        return Twin.from_files(self.files(), self.info)


def compile(
    model: str | Path, *, board: str, adapt: str = "auto", rank: int | None = None, alpha: float | None = None,
    rslora: bool = False, loss: str = "auto", numerics: str = "i16", seed: int = 0, output: str | None = None,
    cache: str = "auto", form: str = "project", sram: int | None = None, momentum: bool = True, max_batch: int = 0,
    depth_first: bool = True, key: bytes | None = None, max_step_macs: int | None = None,
    weights: str | None = None,
) -> Program:  # fmt: skip
    """Compile an int8 .tflite model for a board.

    ``adapt`` is auto (all layers if they fit, else those that :mod:`lora_mcu.passes.auto` finds) | all | none |
    last:N | name,name, where a name may be a pattern (:func:`lora_mcu.passes.adapters.matching`). ``rank`` None is 4,
    of auto a smaller one where that makes room for more layers; ``max_step_macs`` bounds the multiply-accumulates of a
    step on one sample; ``alpha`` None is 2 * rank; ``output`` names
    the output to train of a model with several. ``cache`` keeps the features from behind the frozen prefix in the
    sample store instead of the input, so that epochs over it skip the prefix: auto (where they are no larger than the
    input) | on | off; the adapter's bytes are the same. ``form`` is project (a firmware) or library (a part of a
    program); ``sram`` is the most that the plan may use, in bytes (None: all that the board has). ``key`` (32 bytes)
    makes a device that serves only hosts with the same key (docs/security.md). ``weights`` sram keeps the adapted
    layers' weights in SRAM, where the device can merge the adapter into them (docs/data.md); flash does not; None is
    the board's own way, and flash where the SRAM is too small.

    Memory: without ``momentum`` its buffer of 4 bytes a parameter is left out; ``max_batch`` 1 (0: any batch size) lets
    the gradients share memory with the forward pass; ``depth_first`` allows frozen operators to run row by row, which
    changes no result. Raises ModelError or BoardError, in one line that names what to change.
    """
    if numerics not in NUMERICS:
        raise ModelError(f"numerics {numerics!r} is unknown; this version has {', '.join(NUMERICS)}")
    if not 0 <= seed < 2**32:
        raise ModelError(f"seed {seed} is outside 0..{2**32 - 1}")
    if max_batch not in (0, 1):
        raise ModelError(f"max_batch {max_batch} is neither 0 (any batch size) nor 1")
    if key is not None and len(key) != KEY_BYTES:
        raise ModelError(f"the key has {len(key)} bytes instead of {KEY_BYTES}")
    if weights not in (None, *boards.WEIGHTS):
        raise ModelError(f"weights {weights!r} is unknown; there are {' and '.join(boards.WEIGHTS)}")
    options = _Options(numerics, seed, cache, momentum, max_batch, depth_first, weights or "flash", key)
    target = _target(board, form, sram)
    graph = normalize.normalize(load(model, output))
    split = tail.split(graph, loss)
    names = adapters.select(graph, list(split.forward), adapt)
    known: stripes.Schedules = {}

    def build(names: Sequence[str], rank: int, place: bool = True, options: _Options = options) -> Program:
        scale = 2.0 * rank if alpha is None else alpha
        adaptation = adapters.layout(graph, list(names), rank, scale, rslora)
        backward = gradient.differentiate(graph, split, adaptation)
        return _program(graph, target, split, adaptation, backward, options, known, place)

    if adapt == "auto":
        program = _choose(build, graph, target, split, names, rank, max_step_macs)
    else:
        program = build(names, auto.RANK if rank is None else rank)
    _check_fits(program, adapt, max_step_macs)
    if weights is None and target.weights == "sram" and program.adaptation.layers:
        program = _residing(program, functools.partial(build, options=replace(options, weights="sram")))
    return program


def _residing(program: Program, build: Callable[..., Program]) -> Program:
    """The same layers with their weights in SRAM, if they fit there."""
    names = [x.name for x in program.adaptation.layers]
    moved, limit = build(names, program.adaptation.rank), program.board.sram_bytes
    nbytes, note = moved.residents.nbytes, f"{program.note}; " if program.note else ""
    if moved.need.sram <= limit:
        return replace(moved, note=f"{note}the weights of adapted layers lie in SRAM, {nbytes:,} bytes")
    short = moved.need.sram - limit
    return replace(
        program, note=f"{note}all weights lie in flash: for those of adapted layers {short:,} bytes are missing"
    )


def _choose(
    build: Callable[..., Program], graph: Graph, board: Board, split: Split, names: list[str], rank: int | None,
    max_step_macs: int | None,
) -> Program:  # fmt: skip
    """The program of auto's choice, with a note that explains it."""
    every = adapters.layout(graph, names, auto.RANK if rank is None else rank, 1.0, False)
    layers = [x for x in every.layers if gradient.reaches(graph, split, replace(every, layers=(x,)))]
    if not layers:
        raise ModelError("no adaptable layer has a gradient path to the output; use adapt='none' for inference only")

    build([layers[-1].name], auto.RANK if rank is None else rank, place=False)  # refuses other wrong arguments

    def needs(names: tuple[str, ...], rank: int) -> auto.Need | None:
        try:
            return build(names, rank, place=False).need
        except ModelError:  # features are wanted (cache="on") and nothing runs before the first of these layers
            return None

    limit = auto.Need(board.sram_bytes, UNLIMITED if max_step_macs is None else max_step_macs)
    names, light = [x.name for x in layers], {x.name for x in layers if x.is_light}
    search = auto.Search(names, light, rank, needs, limit)
    for _ in range(4):
        choice = search.run()
        program = build(choice.names, choice.rank)
        over = program.need.sram - board.sram_bytes
        if over <= 0 or choice.need.sram > search.limit.sram:
            break
        search.limit = replace(search.limit, sram=choice.need.sram - 1)  # its plan is above the bound it was chosen by
    choice = replace(choice, need=program.need)
    return replace(program, note=auto.explain(choice, names, limit))


def _target(board: str, form: str, sram: int | None) -> Board:
    if form not in FORMS:
        raise BoardError(f"form {form!r} is unknown; there are {' and '.join(FORMS)}")
    target = boards.load(board)
    if form == "library":
        target = target.as_library()
    elif target.is_library:
        raise BoardError(f"{board} runs programs of Arduino or ESP-IDF: compile with --as library and add it to yours")
    return target if sram is None else target.limited(sram)


def _check_fits(program: Program, adapt: str, max_step_macs: int | None) -> None:
    report, board = program.report(), program.board
    over = program.need.sram - board.sram_bytes
    if over > 0 and report.sram_bytes <= board.sram_bytes:
        largest = max(program.memory, key=lambda symbol: symbol.nbytes)
        raise BoardError(
            f"{program.info.name} needs {report.sram_bytes} bytes of SRAM, {largest.nbytes} of them in one piece "
            f"({largest.name}), and the regions of {board.identity} are too small for that by about {over} bytes; "
            "adapt fewer layers, or choose a board with more SRAM in one region"
        )
    if over > 0:
        layers = len(program.adaptation.layers)
        hint = (
            "adapt='auto' picks the layers that fit"
            if adapt not in ("auto", "none")
            else "choose a board with more SRAM or a smaller model"
        )
        if adapt == "auto" and layers == 1:
            lower = "lower the rank, " if program.adaptation.rank > 1 else ""
            hint = f"even one layer does not fit: {lower}choose a board with more SRAM, or adapt='none'"
        raise BoardError(
            f"{program.info.name} needs {report.sram_bytes} bytes of SRAM with {layers} adapted layers at rank "
            f"{program.adaptation.rank}, {over} more than the {board.sram_bytes} of {board.identity}; {hint}"
        )
    if max_step_macs is not None and program.need.macs > max_step_macs:
        hint = "the forward pass is part of it" if adapt == "auto" else "adapt='auto' picks the layers that fit"
        raise ModelError(
            f"max_step_macs {max_step_macs:,}: {program.info.name} takes {program.need.macs:,} a step with "
            f"{len(program.adaptation.layers)} adapted layers at rank {program.adaptation.rank}; {hint}"
        )
    over = report.flash_bytes - board.flash_bytes
    if over > 0:
        raise BoardError(
            f"{program.info.name} needs about {report.flash_bytes} bytes of flash, {over} more than the "
            f"{board.flash_bytes} of {board.identity}; choose a board with more flash or a smaller model"
        )


def _program(
    graph: Graph,
    board: Board,
    split: Split,
    adaptation: Adaptation,
    backward: list[BackwardOp],
    options: _Options,
    known: stripes.Schedules,
    place: bool,
) -> Program:
    costs = estimate.costs(graph, split, backward, adaptation, options.numerics)
    at = cut.choose(graph, split, adaptation, costs, options.cache)
    plan = memory.plan(
        graph, split, backward, adaptation, gradients_in_arena=options.max_batch == 1, depth_first=options.depth_first,
        cut_at=at.at, known=known, place=place, numerics=options.numerics,
    )  # fmt: skip
    info = _info(graph, board, split, adaptation, options, at, plan.state_bytes)
    resident = residents.place(graph, adaptation) if options.weights == "sram" else Residents()
    sram = allocate(board, plan, adaptation, info, resident, options.key)
    info = replace(info, store_capacity=sram.store_capacity)
    need = auto.Need(sram.need, sum(c.macs_forward + c.macs_backward for c in costs))
    return Program(
        graph, board, split, adaptation, backward, plan, at, info, sram.symbols, options.seed, sram.ring_bytes,
        need, resident, key=options.key,
    )  # fmt: skip


def _configured(header: bytes, values: dict[str, int]) -> bytes:
    """The project's own lmcu_config.h."""
    for name, value in values.items():
        header = re.sub(rb"(#define LMCU_%s) \d+" % name.encode(), rb"\1 %d" % value, header)
    return header


def _edge(graph: Graph, tensor: int) -> TensorInfo:
    t = graph.tensors[tensor]
    shape = t.shape[1:] if len(t.shape) > 1 and t.shape[0] == 1 else t.shape
    if t.dtype == "float32" or (t.dtype == "int32" and tensor == graph.input):
        return TensorInfo(shape, t.dtype, None, 0)
    if t.dtype not in ("int8", "uint8") or not t.quantized:
        raise ModelError(f"{t.name!r} is {t.dtype}; the model's input and output must be int8, uint8 or float32")
    return TensorInfo(shape, t.dtype, float(t.s), t.z)


def _info(
    graph: Graph, board: Board, split: Split, adaptation: Adaptation, options: _Options, at: Cut, state_bytes: int
) -> ModelInfo:  # fmt: skip
    layers = tuple(LayerInfo(x.name, x.m, x.k, x.kernel) for x in adaptation.layers)
    layout = {"rank": adaptation.rank, "alpha": adaptation.alpha, "rslora": adaptation.rslora,
              "layers": [[x.name, x.m, x.k, list(x.kernel) if x.kernel else None] for x in layers]}  # fmt: skip
    digest = hashlib.sha256(json.dumps(layout, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return ModelInfo(
        name=graph.name, board=board.identity, numerics=options.numerics, loss=split.loss, model_sha256=graph.sha256,
        layout_sha256=digest, input=_edge(graph, graph.input), output=_edge(graph, graph.output),
        logit_count=graph.tensors[split.logits].elements, rank=adaptation.rank, alpha=adaptation.alpha,
        rslora=adaptation.rslora, layers=layers, store_capacity=0, cached=at.cached,
        data_bytes=at.nbytes if at.cached else memory.align4(graph.tensors[graph.input].nbytes),
        state_bytes=state_bytes, momentum=options.momentum, max_batch=options.max_batch,
        index_rows=min((op.rows(graph) for op in graph.ops if isinstance(op, Embedding)), default=0),
    )  # fmt: skip
