# SPDX-License-Identifier: Apache-2.0
"""All SRAM of a program before any C compiler runs: the model's arrays, runtime and port, stored samples."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lora_mcu import resources
from lora_mcu.boards import Board
from lora_mcu.codegen.model_c import MemorySymbol
from lora_mcu.info import ModelInfo
from lora_mcu.link.auth import TAG_BYTES
from lora_mcu.passes import blocks, memory, regions, ring
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.memory import MemoryPlan
from lora_mcu.passes.residents import Residents

MAX_STORE = 65535  # the order of an epoch is kept as uint16
STORE_SYMBOLS = ("lmcu_store", "lmcu_order", "lmcu_class_seen")  # what the sample store takes


@dataclass(frozen=True)
class Sram:
    """``symbols`` are the model's arrays, each with its region; ``ring_bytes`` of the line; samples that fit; bytes
    that are needed without them, more than the board has where the arrays do not fit its regions."""

    symbols: list[MemorySymbol]
    ring_bytes: int
    store_capacity: int
    need: int


def allocate(
    board: Board, plan: MemoryPlan, adaptation: Adaptation, info: ModelInfo, resident: Residents, key: bytes | None
) -> Sram:
    """Choose regions, the ring's size and the store's capacity, which takes what is left of one region."""
    fixed = _fixed(plan, adaptation, info, resident)
    ring_bytes = _ring_bytes(board, info, fixed, key) if adaptation.layers else runtime_config()["RX_RING_BYTES"]
    layout = place(board, fixed, key, ring_bytes)
    names = [region.name for region in board.sram]
    symbols = [replace(s, region=names[layout.where[s.name]]) for s in fixed]
    stores = adaptation.layers and not info.streaming and not layout.over  # sequences of frames are streamed
    free = layout.left[layout.roomiest] - _class_seen(info)
    capacity = _store_capacity(info, free) if stores else 0
    store = _store(info, capacity, names[layout.roomiest])
    return Sram(symbols + store, ring_bytes, capacity, needed(board, fixed, key, ring_bytes))


def needed(board: Board, symbols: Sequence[MemorySymbol], key: bytes | None, ring_bytes: int) -> int:
    """Bytes of SRAM that these arrays, runtime and port take; more than the board's where they do not fit."""
    over = place(board, symbols, key, ring_bytes).over
    total = sum(s.nbytes for s in symbols) + sum(runtime_memory(board, ring_bytes, key).values())
    return board.sram_bytes + over if over else total


def place(board: Board, symbols: Iterable[MemorySymbol], key: bytes | None, ring_bytes: int) -> regions.Layout:
    """Regions of the model's arrays on ``board``; runtime and port lie in its first."""
    runtime = sum(runtime_memory(board, ring_bytes, key).values())
    return regions.place(runtime, {s.name: s.nbytes for s in symbols}, [region.size for region in board.sram])


def _symbol(name: str, ctype: str, size: int, count: int, region: str = "") -> MemorySymbol:
    padded = memory.align(size * count)
    return MemorySymbol(name, ctype, padded // size, padded, region)


def _fixed(plan: MemoryPlan, adaptation: Adaptation, info: ModelInfo, resident: Residents) -> list[MemorySymbol]:
    symbols = [_symbol("lmcu_arena", "uint8_t", 1, plan.arena_bytes)]
    if plan.state_bytes:
        symbols.append(_symbol("lmcu_state", "uint8_t", 1, plan.state_bytes))
    if adaptation.layers:
        n = adaptation.parameters
        symbols.append(_symbol("lmcu_factors", "uint16_t", 2, n))
        if not plan.gradients_in_arena:
            symbols.append(_symbol("lmcu_gradients", "float", 4, n))
        if info.momentum:
            symbols.append(_symbol("lmcu_momentum", "float", 4, n))
        if info.numerics == "i16":
            symbols.append(_symbol("lmcu_tables", "int16_t", 2, blocks.tables_elements(adaptation)))
    if resident.layers:
        symbols.append(_symbol("lmcu_weights", "uint8_t", 1, resident.nbytes))
    if info.loss == "mse":
        symbols.append(_symbol("lmcu_target", "float", 4, info.logit_count))
    return symbols


def _store(info: ModelInfo, capacity: int, region: str) -> list[MemorySymbol]:
    if not capacity:
        return []
    symbols = [
        _symbol("lmcu_store", "uint8_t", 1, capacity * info.record_bytes, region),
        _symbol("lmcu_order", "uint16_t", 2, capacity, region),
    ]
    if seen := _class_seen(info):
        symbols.append(_symbol("lmcu_class_seen", "uint32_t", 4, seen // 4, region))
    return symbols


def _class_seen(info: ModelInfo) -> int:
    """Bytes of one counter a class."""
    return memory.align(4 * info.classes) if info.loss == "cross_entropy" else 0


def _ring_bytes(board: Board, info: ModelInfo, fixed: list[MemorySymbol], key: bytes | None) -> int:
    """The receive ring's size; its smallest where a larger one would take SRAM that the model needs."""
    config = runtime_config()
    smallest = config["RX_RING_BYTES"]
    wanted = ring.ring_bytes(info, config["MAX_PAYLOAD"], smallest, board.sram_bytes, tag_bytes(key))
    return smallest if place(board, fixed, key, wanted).over else wanted


def _store_capacity(info: ModelInfo, free: int) -> int:
    """Samples that fit into ``free`` bytes."""
    capacity = max(0, min(MAX_STORE, free // (info.record_bytes + 2)))
    while capacity and memory.align(capacity * info.record_bytes) + memory.align(2 * capacity) > free:
        capacity -= 1
    return capacity


@functools.cache
def runtime_config() -> dict[str, int]:
    """The numbers of firmware/runtime/lmcu_config.h."""
    text = (resources.path("firmware") / "runtime" / "lmcu_config.h").read_text(encoding="utf-8")
    return {name: int(value) for name, value in re.findall(r"^#define LMCU_(\w+) (\d+)", text, re.M)}


def runtime_memory(board: Board, ring_bytes: int, key: bytes | None) -> dict[str, int]:
    """SRAM of the runtime's and the port's own objects by symbol, bytes."""
    config = runtime_config() | {"RX_RING_BYTES": ring_bytes}
    sizes = {"lmcu_context": config["CONTEXT_BYTES"], "lmcu_link": config["LINK_BYTES"]}
    ports = {"lmcu_port_state": "PORT_BYTES", "lmcu_rx_ring": "RX_RING_BYTES", "lmcu_stack": "STACK_BYTES",
             "lmcu_ram_code": "RAM_CODE_BYTES"}  # fmt: skip
    sizes |= {name: config[ports[name]] for name in board.port_symbols}
    return sizes if key is None else {**sizes, "lmcu_auth": config["AUTH_BYTES"]}


def tag_bytes(key: bytes | None) -> int:
    """Bytes of every request that a key takes."""
    return 0 if key is None else TAG_BYTES
