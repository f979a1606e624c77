# SPDX-License-Identifier: Apache-2.0
"""The memory and cost report: every byte of SRAM and of constant data by symbol, before any C compiler runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_mcu import boards
from lora_mcu.boards import SAMPLES_HEAD
from lora_mcu.codegen.model_c import stored_tensors
from lora_mcu.passes import estimate
from lora_mcu.passes.estimate import LayerCost
from lora_mcu.passes.memory import align4
from lora_mcu.passes.ring import sample_line_bytes
from lora_mcu.sram import STORE_SYMBOLS, needed, runtime_config, runtime_memory, tag_bytes

if TYPE_CHECKING:
    from lora_mcu.program import Program

# bytes of code of the runtime, protocol and port without kernels, and of each kernel, measured on Cortex-M4 at -O3
_CODE_BASE = 26000
_CODE_KERNEL = {"FULLY_CONNECTED": 5500, "CONV_2D": 5000, "DEPTHWISE_CONV_2D": 4200, "SOFTMAX": 1300,
                "ADD": 1600, "SUB": 1600, "MUL": 1400, "SQUARED_DIFFERENCE": 1600, "MAXIMUM": 950, "MINIMUM": 950,
                "PRELU": 1000, "LOOKUP": 200}  # fmt: skip
_CODE_OTHER = 500
_CODE_KEY = 2600  # of auth.c, sha256.c and what calls them
_CODE_MERGE = 5900  # of merge.c and the double arithmetic that it needs


@dataclass(frozen=True)
class BoardTotal:
    """What a program would take of a board, without stored samples; flash with the estimate of its code."""

    board: str
    sram_bytes: int
    sram_limit: int
    flash_bytes: int
    flash_limit: int

    @property
    def fits(self) -> bool:
        return self.sram_bytes <= self.sram_limit and self.flash_bytes <= self.flash_limit


@dataclass(frozen=True)
class Report:
    """``sram`` and ``constants`` are exact, symbol -> bytes; code is an estimate until the project is built."""

    model: str
    board: str
    numerics: str
    adapt: list[str]
    rank: int
    parameters: int
    sram: dict[str, int]
    sram_limit: int
    regions: list[dict[str, Any]]  # of SRAM: name, bytes, bytes used, and symbol -> bytes
    constants: dict[str, int]
    code_estimate: int
    flash_limit: int
    store_capacity: int
    record_bytes: int
    adapter_slots: int  # adapters that fit the flash store
    saved_samples: int  # of store_capacity, that fit the flash store without an adapter
    slots_beside_samples: int  # adapters that fit beside them
    arena_lower_bound: int
    layers: list[LayerCost]
    update_instructions: int
    buffers: list[dict[str, Any]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    note: str = ""  # why these layers
    line: dict[str, int] = field(default_factory=dict)  # window, and bytes on the line of one sample to train on
    record: list[dict[str, Any]] = field(default_factory=list)  # of one stored sample: name and bytes, in order
    cached: bool = False  # the record holds features, and epochs over the store skip the frozen prefix
    prefix_instructions: int = 0  # estimate of what they skip of each sample
    states: list[dict[str, Any]] = field(default_factory=list)  # variables of a streaming model: name, shape, bytes
    stripes: list[dict[str, Any]] = field(default_factory=list)  # runs of operators made row by row
    boards: list[BoardTotal] = field(default_factory=list)  # the same layers and rank on every board

    @property
    def sram_bytes(self) -> int:
        """All SRAM, the sample store and the stack reserve included."""
        return sum(self.sram.values())

    @property
    def training_sram_bytes(self) -> int:
        """SRAM without the stored samples and their order."""
        return sum(size for name, size in self.sram.items() if name not in STORE_SYMBOLS)

    @property
    def constant_bytes(self) -> int:
        return sum(self.constants.values())

    @property
    def flash_bytes(self) -> int:
        return self.constant_bytes + self.code_estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the totals."""
        out = {**vars(self), "layers": [layer.to_dict() for layer in self.layers]}
        out["boards"] = [{**vars(total), "fits": total.fits} for total in self.boards]
        out["sram_bytes"] = self.sram_bytes
        out["training_sram_bytes"] = self.training_sram_bytes
        out["constant_bytes"] = self.constant_bytes
        out["flash_bytes_estimate"] = self.flash_bytes
        out["macs"] = sum(layer.macs_forward for layer in self.layers)
        out["macs_step"] = out["macs"] + sum(layer.macs_backward for layer in self.layers)
        out["instructions_inference_estimate"] = self.inference_instructions
        out["instructions_step_estimate"] = self.step_instructions(1)
        out["instructions_stored_step_estimate"] = self.step_instructions_stored
        return out

    def step_instructions(self, batch: int) -> int:
        """Estimated instructions of one training step on ``batch`` samples, update included."""
        sample = self.inference_instructions + sum(layer.instructions_backward for layer in self.layers)
        return batch * sample + self.update_instructions

    @property
    def step_instructions_stored(self) -> int:
        """Estimated instructions of one step on one sample of the store."""
        return self.step_instructions(1) - (self.prefix_instructions if self.cached else 0)

    @property
    def inference_instructions(self) -> int:
        """Estimated instructions of one inference; rows that stripes move are part of it."""
        moving: int = sum(s["instructions"] for s in self.stripes)
        return moving + sum(layer.instructions_forward for layer in self.layers)

    @classmethod
    def make(cls, program: Program, constants: dict[str, int]) -> Report:
        layers = estimate.costs(
            program.graph, program.split, program.backward, program.adaptation, program.info.numerics
        )
        kinds = {layer.kind for layer in layers}
        config = runtime_config()
        sram = {symbol.name: symbol.nbytes for symbol in program.memory}
        sram |= runtime_memory(program.board, program.ring_bytes, program.key)
        sample_bytes = sample_line_bytes(program.info, config["MAX_PAYLOAD"], tag_bytes(program.key))
        info, plan = program.info, program.plan
        code = _CODE_BASE + sum(_CODE_KERNEL.get(k, _CODE_OTHER) for k in kinds)
        classes = info.classes if info.loss == "cross_entropy" else 0
        saved = min(info.store_capacity, program.board.saved_samples(info.record_bytes, classes))
        saved_bytes = SAMPLES_HEAD + 4 * classes + saved * info.record_bytes if saved else 0
        code += (_CODE_KEY if program.key else 0) + (_CODE_MERGE if program.residents.layers else 0)
        return cls(
            model=info.name, board=info.board, numerics=info.numerics,
            adapt=[x.name for x in info.layers], rank=info.rank,
            parameters=info.parameters, sram=sram, sram_limit=program.board.sram_bytes,
            regions=_regions(program), constants=constants,
            code_estimate=code, flash_limit=program.board.flash_bytes,
            store_capacity=info.store_capacity, record_bytes=info.record_bytes,
            adapter_slots=program.board.adapter_slots(2 * info.parameters), saved_samples=saved,
            slots_beside_samples=program.board.adapter_slots(2 * info.parameters, saved_bytes),
            arena_lower_bound=plan.lower_bound, layers=layers,
            update_instructions=estimate.update_instructions(program.adaptation, program.info.numerics),
            record=_record(program), cached=info.cached, prefix_instructions=program.cut.skipped,
            states=[{"name": t.name, "shape": list(t.shape), "bytes": t.nbytes}
                    for t in map(program.graph.tensors.__getitem__, program.graph.states)],
            buffers=[{k: v for k, v in vars(b).items() if k != "fixed"} for b in plan.buffers],
            steps=plan.steps, note=program.note,
            line={"window": config["WINDOW"], "sample_bytes": sample_bytes},
            stripes=[
                {"first": s.first, "last": s.last, "operators": [op.index for op in s.ops],
                 "moved_bytes": s.schedule.moved_bytes, "instructions": estimate.moving_instructions(s)}
                for s in plan.stripes
            ],
            boards=_totals(program, sum(constants.values()) + code),
        )  # fmt: skip


def _totals(program: Program, flash: int) -> list[BoardTotal]:
    """On every board but the host; a ring of the smallest size, as where SRAM is short."""
    own = [s for s in program.memory if s.name not in STORE_SYMBOLS]
    ring = runtime_config()["RX_RING_BYTES"]
    totals = []
    for board in (b for b in map(boards.load, boards.names()) if not b.is_native):
        sram = needed(board, own, program.key, ring)
        totals.append(BoardTotal(board.identity, sram, board.sram_bytes, flash, board.flash_bytes))
    return totals


def _regions(program: Program) -> list[dict[str, Any]]:
    """What lies in each region that the plan may use; the runtime's and the port's objects lie in the first."""
    found = []
    for i, region in enumerate(program.board.sram):
        runtime = runtime_memory(program.board, program.ring_bytes, program.key) if i == 0 else {}
        symbols = {s.name: s.nbytes for s in program.memory if s.region == region.name} | runtime
        found.append({"name": region.name, "bytes": region.size, "used": sum(symbols.values()), "symbols": symbols})
    return found


def _record(program: Program) -> list[dict[str, Any]]:
    """The layout of one stored sample, in order; every part is rounded up to 4 bytes."""
    graph, info = program.graph, program.info
    tensors = stored_tensors(graph, program.cut)
    parts = [(graph.tensors[i].name if info.cached else "input", align4(graph.tensors[i].nbytes)) for i in tensors]
    parts.append(("label", 4))
    if info.loss != "cross_entropy":
        parts.append(("target", info.label_bytes))
    return [{"name": name, "bytes": nbytes} for name, nbytes in parts]
