# SPDX-License-Identifier: Apache-2.0
"""Boards: data files ``boards/<name>.toml``, read and validated here and nowhere else.

Plain dataclasses and the standard library only, because every command of the tool loads this module.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_mcu import board_checks, resources
from lora_mcu.errors import BoardError

CORES = ("cortex-m4f", "cortex-m7f", "cortex-m55", "rv32imc", "xtensa-lx6", "xtensa-lx7", "host")
FEATURES = ("dsp", "fpu", "mve")
FAMILIES = ("esp32c3", "library", "mps2", "native", "stm32f4", "stm32f7", "stm32h7", "stm32l4")
MEMORY_KINDS = ("sram", "flash")
WEIGHTS = ("flash", "sram")
UPLOADS = ("dfu", "stlink", "esptool", "none")
EMULATORS = ("qemu", "unicorn", "renode", "native")
_PERIPHERALS = {
    "esp32c3": ("UART0",),
    "library": ("stream",),
    "mps2": ("UART0",),
    "native": ("pty",),
    "stm32f4": ("USART1", "USART2", "USART3", "USART6"),
    "stm32f7": ("USART1", "USART2", "USART3", "USART6"),
    "stm32h7": ("USART1", "USART2", "USART3", "USART6"),
    "stm32l4": ("USART1", "USART2", "USART3", "LPUART1"),
}
STORE_HEAD, STORE_RECORD = 64, 96  # bytes: FIRST_RECORD and a record's header of firmware/runtime/store.c
SAMPLES_HEAD = 32  # bytes: lmcu_samples_head_t of firmware/runtime/samples.h
_WITHOUT_PINS = ("esp32c3", "library", "mps2", "native")
PROGRAM_BYTES = 0x8000  # of SRAM that a library leaves to the program around it


@dataclass(frozen=True)
class Memory:
    """One region: addresses and sizes in bytes; ``use`` says whether the firmware may lie in it."""

    name: str
    kind: str
    origin: int
    size: int
    use: bool


@dataclass(frozen=True)
class Serial:
    """The port that carries the protocol, 8N1; pins are like "PB6", empty where there are none."""

    peripheral: str
    tx: str
    rx: str
    baud: int


@dataclass(frozen=True)
class AdapterRegion:
    """Flash kept for saved adapters: ``areas`` erase areas of ``erase_bytes`` from ``origin``."""

    origin: int
    erase_bytes: int
    areas: int
    program_bytes: int

    @property
    def size(self) -> int:
        return self.erase_bytes * self.areas

    @property
    def half_bytes(self) -> int:
        """Bytes of one of the two logs of the adapter store."""
        return self.size // 2


@dataclass(frozen=True)
class PlatformIO:
    """How PlatformIO builds for the board: its board id, the compiler's prefix and flags, who ships the compiler."""

    board: str
    toolchain: str
    debian_package: str
    registry_package: str
    cpu_flags: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """One board. ``memory`` keeps the file's order; sizes are in bytes, clocks in Hz.

    ``bypass`` says that ``crystal_hz`` is a clock signal from another chip, not a crystal.
    """

    identity: str
    description: str
    mcu: str
    core: str
    features: tuple[str, ...]
    pointer_bytes: int
    family: str
    upload: str
    emulators: tuple[str, ...]
    clock_hz: int
    crystal_hz: int
    bypass: bool
    serial: Serial
    memory: tuple[Memory, ...]
    weights: str  # where adapted layers' weights lie unless the user says: flash, or sram where they fit
    adapter_region: AdapterRegion | None
    platformio: PlatformIO

    def region(self, kind: str) -> Memory:
        """The first region of that kind that the firmware uses; the first "sram" holds the stack and the line."""
        return next(region for region in self.memory if region.kind == kind and region.use)

    @property
    def sram(self) -> tuple[Memory, ...]:
        """The SRAM regions that a plan may use, in the file's order."""
        return tuple(region for region in self.memory if region.kind == "sram" and region.use)

    @property
    def sram_bytes(self) -> int:
        """Bytes of SRAM that a plan may use."""
        return sum(region.size for region in self.sram)

    @property
    def flash_bytes(self) -> int:
        """Bytes of flash that code and constants may use: what the adapter region leaves."""
        return self.region("flash").size - (self.adapter_region.size if self.adapter_region else 0)

    def adapter_slots(self, adapter_bytes: int, samples_bytes: int = 0) -> int:
        """How many adapters of so many bytes the flash store keeps, as ``lmcu_slot_capacity`` counts (store.c).

        ``samples_bytes``: beside saved samples of that size.
        """
        if self.adapter_region is None or adapter_bytes == 0:
            return 0
        samples = self._store_record(samples_bytes) if samples_bytes else 0
        return max(0, self.adapter_region.half_bytes - STORE_HEAD - self._store_record(0) - samples) // (
            self._store_record(adapter_bytes)
        )

    def saved_samples(self, record_bytes: int, classes: int) -> int:
        """How many samples the flash store keeps where no adapter is saved (``lmcu_store_save``)."""
        if self.adapter_region is None or record_bytes == 0:
            return 0
        unit = self.adapter_region.program_bytes
        free = self.adapter_region.half_bytes - STORE_HEAD - 2 * self._store_record(0)
        return max(0, free // unit * unit - SAMPLES_HEAD - 4 * classes) // record_bytes

    def _store_record(self, nbytes: int) -> int:
        """Bytes that a payload takes in the flash store."""
        unit = self.adapter_region.program_bytes if self.adapter_region else 1
        return STORE_RECORD + -(-nbytes // unit) * unit + unit

    @property
    def is_native(self) -> bool:
        """True for the process on this computer: it has no linker script and no stack of its own."""
        return self.family == "native"

    @property
    def is_library(self) -> bool:
        """True where start-up, serial line and stack are those of the program that lora_mcu is a part of."""
        return self.family == "library"

    def as_library(self) -> Board:
        """The same part when lora_mcu is a library there; the program around it keeps ``PROGRAM_BYTES`` of the SRAM."""
        if self.is_library:
            return self
        part = replace(self, family="library", upload="none", emulators=(), adapter_region=None, weights="flash")
        return part.limited(self.region("sram").size - PROGRAM_BYTES)

    def limited(self, sram_bytes: int) -> Board:
        """The same board when a plan may use that much of its SRAM, the first regions first.

        Raises BoardError when it has less.
        """
        if not 0 < sram_bytes <= self.sram_bytes:
            raise BoardError(f"{self.identity} has {self.sram_bytes} bytes of SRAM to use, not {sram_bytes}")
        memory, left = [], sram_bytes // 8 * 8
        for region in self.memory:
            if region in self.sram:
                region = replace(region, size=min(region.size, left), use=left > 0)
                left -= region.size
            memory.append(region)
        return replace(self, memory=tuple(memory))

    @property
    def port_symbols(self) -> tuple[str, ...]:
        """Names of the RAM objects that the port adds to an image."""
        if self.is_library:
            return ("lmcu_port_state",)
        ring = ("lmcu_port_state", "lmcu_rx_ring")
        if self.is_native:
            return ring
        return (*ring, "lmcu_stack", "lmcu_ram_code") if self.family == "esp32c3" else (*ring, "lmcu_stack")


class _Table:
    """A TOML table that is read key by key and complains with file, key and what is allowed."""

    def __init__(self, file: str, where: str, raw: Any) -> None:
        self._file, self._where = file, where
        if not isinstance(raw, dict):
            raise BoardError(f"{file}: {where.rstrip('.') or 'file'} must be a table")
        self._raw = dict(raw)

    def fail(self, key: str, allowed: str) -> BoardError:
        found = f", found {self._raw[key]!r}" if key in self._raw else ", but it is missing"
        return BoardError(f"{self._file}: {self._where}{key} must be {allowed}{found}")

    def _typed(self, key: str, kind: type, allowed: str) -> Any:
        value = self._raw.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, allowed)
        return value

    def text(self, key: str, choices: tuple[str, ...] = ()) -> str:
        allowed = f"one of {', '.join(choices)}" if choices else "a text"
        value: str = self._typed(key, str, allowed)
        if choices and value not in choices:
            raise self.fail(key, allowed)
        return value

    def texts(self, key: str, choices: tuple[str, ...] = ()) -> tuple[str, ...]:
        allowed = f"a list of {', '.join(choices)}" if choices else "a list of texts"
        value = self._typed(key, list, allowed)
        if any(not isinstance(item, str) or (choices and item not in choices) for item in value):
            raise self.fail(key, allowed)
        return tuple(value)

    def number(self, key: str, low: int, high: int) -> int:
        value: int = self._typed(key, int, f"an integer from {low} to {high}")
        if not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}")
        return value

    def flag(self, key: str) -> bool:
        value: bool = self._typed(key, bool, "true or false")
        return value

    def table(self, key: str) -> _Table:
        return _Table(self._file, f"{key}.", self._raw.get(key))

    def tables(self, key: str) -> list[_Table]:
        items = self._typed(key, list, "a list of tables")
        return [_Table(self._file, f"{key}[{i}].", raw) for i, raw in enumerate(items)]

    def has(self, key: str) -> bool:
        return key in self._raw

    def only(self, *keys: str) -> None:
        for key in self._raw:
            if key not in keys:
                raise BoardError(f"{self._file}: {self._where}{key} is not known; allowed are {', '.join(keys)}")


def _memory(table: _Table) -> Memory:
    table.only("name", "kind", "origin", "size", "use")
    return Memory(
        name=table.text("name"),
        kind=table.text("kind", MEMORY_KINDS),
        origin=table.number("origin", 0, 2**32 - 1),
        size=table.number("size", 8, 2**31),
        use=table.flag("use"),
    )


def _serial(table: _Table, family: str) -> Serial:
    table.only("peripheral", "tx", "rx", "baud")
    return Serial(
        peripheral=table.text("peripheral", _PERIPHERALS[family]),
        tx=_pin(table, "tx", family),
        rx=_pin(table, "rx", family),
        baud=table.number("baud", 1200, 4_000_000),
    )


def _pin(table: _Table, key: str, family: str) -> str:
    pin = table.text(key)
    good = len(pin) in (3, 4) and pin[0] == "P" and pin[1] in "ABCDEFGHI" and pin[2:].isdigit() and int(pin[2:]) < 16
    if (pin != "") if family in _WITHOUT_PINS else not good:
        raise table.fail(key, "empty" if family in _WITHOUT_PINS else 'a pin like "PB6"')
    return pin


def _adapter_region(table: _Table, flash: Memory) -> AdapterRegion:
    table.only("origin", "erase_bytes", "areas", "program_bytes")
    region = AdapterRegion(
        origin=table.number("origin", flash.origin, flash.origin + flash.size - 1),
        erase_bytes=table.number("erase_bytes", 1024, 2**20),
        areas=table.number("areas", 2, 16),
        program_bytes=table.number("program_bytes", 4, 32),
    )
    if region.areas % 2:
        raise table.fail("areas", "an even number: the store has two halves")
    if region.program_bytes not in (4, 8, 16, 32):
        raise table.fail("program_bytes", "one of 4, 8, 16, 32")
    if region.origin + region.size != flash.origin + flash.size:
        raise table.fail("origin", f"{region.areas} erase areas before the end of flash")
    return region


def _platformio(table: _Table) -> PlatformIO:
    table.only("board", "toolchain", "debian_package", "registry_package", "cpu_flags")
    return PlatformIO(
        board=table.text("board"),
        toolchain=table.text("toolchain"),
        debian_package=table.text("debian_package"),
        registry_package=table.text("registry_package"),
        cpu_flags=table.texts("cpu_flags"),
    )


def _used_regions(table: _Table, memory: tuple[Memory, ...]) -> None:
    used = [region.kind for region in memory if region.use]
    if used.count("flash") != 1:
        raise table.fail("memory", "a list with exactly one region of kind flash and use = true")
    if "sram" not in used:
        raise table.fail("memory", "a list with a region of kind sram and use = true")


def parse(text: str, file: str) -> Board:
    """Read a board from TOML ``text``; ``file`` names it in messages. Raises BoardError."""
    try:
        table = _Table(file, "", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BoardError(f"{file}: not TOML: {error}") from None
    table.only(
        *("identity", "description", "mcu", "core", "features", "pointer_bytes", "family", "upload", "emulators"),
        *("clock", "serial", "memory", "weights", "adapter_region", "platformio"),
    )
    family = table.text("family", FAMILIES)
    clock = table.table("clock")
    clock.only("hz", "crystal_hz", "bypass")
    memory = tuple(_memory(item) for item in table.tables("memory"))
    _used_regions(table, memory)
    flash = next(region for region in memory if region.kind == "flash" and region.use)
    board = Board(
        identity=table.text("identity"),
        description=table.text("description"),
        mcu=table.text("mcu"),
        core=table.text("core", CORES),
        features=table.texts("features", FEATURES),
        pointer_bytes=table.number("pointer_bytes", 4, 8),
        family=family,
        upload=table.text("upload", UPLOADS),
        emulators=table.texts("emulators", EMULATORS),
        clock_hz=clock.number("hz", 1_000_000, 2_000_000_000),
        crystal_hz=clock.number("crystal_hz", 0, 50_000_000),
        bypass=clock.flag("bypass") if clock.has("bypass") else False,
        serial=_serial(table.table("serial"), family),
        memory=memory,
        weights=table.text("weights", WEIGHTS) if table.has("weights") else "flash",
        adapter_region=_adapter_region(table.table("adapter_region"), flash) if table.has("adapter_region") else None,
        platformio=_platformio(table.table("platformio")),
    )
    board_checks.refuse_impossible(board, file)
    return board


def _files() -> dict[str, Path]:
    """The boards that lora_mcu brings, and those of the folder that LORA_MCU_BOARDS names. Raises BoardError."""
    found = {file.stem: file for file in Path(resources.path("boards")).glob("*.toml")}
    own = os.environ.get("LORA_MCU_BOARDS")
    if own and not Path(own).is_dir():
        raise BoardError(f"LORA_MCU_BOARDS names {own!r}, which is no folder")
    for file in Path(own).glob("*.toml") if own else ():
        if file.stem in found:
            raise BoardError(f"{file}: lora_mcu brings a board {file.stem}: give yours another name")
        found[file.stem] = file
    return found


def names() -> list[str]:
    """Return the names of all boards, sorted."""
    return sorted(_files())


def load(name: str) -> Board:
    """Return the board ``name``: a file ``boards/<name>.toml``, or ``<name>.toml`` in the folder LORA_MCU_BOARDS.

    Raises:
        BoardError: no such board (with near matches), or its file is wrong (with file, key and allowed values).
    """
    known = _files()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known boards: {', '.join(sorted(known))}"
        raise BoardError(f"unknown board {name!r}; {hint}")
    file = known[name]
    where = f"{file.parent.name}/{name}.toml"
    try:
        board = parse(file.read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError):
        raise BoardError(f"{where} cannot be read as text") from None
    if board.identity != name:
        raise BoardError(f"{where}: identity must be {name!r} like the file, found {board.identity!r}")
    return board
