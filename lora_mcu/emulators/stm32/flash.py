# SPDX-License-Identifier: Apache-2.0
"""Flash controllers and the erase areas that the adapter store uses. They insist on the manuals' order of registers.

RM0090 section 3 (F4; RM0385 for F7), RM0433 section 4 (H7), RM0432 section 3 (L4+).
"""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap

from lora_mcu.emulators.stm32.core import Block, BusFault, Violation

KEYS = (0x45670123, 0xCDEF89AB)
Cells = bytearray | mmap
BUSY_READS = 3  # of the status register, after which an operation is over


class PowerCut(Exception):
    """The operation that the test chose began, and did not end."""


class Controller(Block):
    """What the families share: keys, busy, and cells that only an erase sets.

    ``cells`` are the bytes of the adapter region at ``origin``. ``cut_at`` counts operations down to a power cut.
    """

    ACR = 0x00
    unit = 4

    def __init__(self, base: int, origin: int, cells: Cells) -> None:
        super().__init__(base)
        self.origin, self.cells = origin, cells
        self.torn: set[int] = set()  # units whose ECC is wrong
        self.cut_at = -1
        self.on_cut: Callable[[], None] = lambda: None
        self.reset()

    def reset(self) -> None:
        self.registers = {}
        self._keys: list[int] = []
        self.locked = True
        self._busy = 0

    def wait_states(self) -> int:
        return self.registers.get(self.ACR, 0) & 15

    def key(self, value: int) -> None:
        self._keys.append(value)
        if tuple(self._keys) != KEYS[: len(self._keys)]:
            raise Violation("wrong key: the flash stays locked until the next reset")
        if tuple(self._keys) == KEYS:
            self.locked, self._keys = False, []

    def lock(self) -> None:
        self.locked, self._keys = True, []

    def busy(self) -> bool:
        """For the status register: each read brings the end nearer."""
        self._busy = max(0, self._busy - 1)
        return self._busy > 0

    def idle(self) -> None:
        if self._busy:
            raise Violation("the flash is busy: wait for the end of an operation before the next")
        if self.locked:
            raise Violation("the flash is locked")

    def _cut(self) -> bool:
        self.cut_at -= self.cut_at >= 0
        return self.cut_at == 0

    def erase(self, offset: int, size: int) -> None:
        """Erase from ``offset`` in the region, which must be an erase area of it."""
        if not 0 <= offset < len(self.cells) or offset % size:
            raise Violation(f"an erase at 0x{self.origin + offset:08x}: that is not the adapter region")
        cut = self._cut()
        done = size // 2 if cut else size
        self.cells[offset : offset + done] = b"\xff" * done
        self.torn = {unit for unit in self.torn if not offset <= unit < offset + done}
        self._busy = BUSY_READS
        if cut:
            self.on_cut()

    def burn(self, offset: int, data: bytes, once: bool) -> bool:
        """Program one unit; False where ``once`` forbids it because something was there."""
        before = bytes(self.cells[offset : offset + len(data)])
        self._busy = BUSY_READS
        if once and (before != b"\xff" * len(data) or offset in self.torn):
            return False
        cut = self._cut()
        keep = len(data) // 2 if cut else len(data)
        after = bytes(old & new for old, new in zip(before[:keep], data[:keep], strict=True)) + before[keep:]
        self.cells[offset : offset + len(data)] = after
        if cut:
            self.torn.add(offset)
            self.on_cut()
        return True

    def program(self, offset: int, size: int, value: int) -> None:
        """A write to the region."""
        raise NotImplementedError

    def fetch(self, offset: int, size: int) -> int:
        """A read from the region."""
        return int.from_bytes(bytes(self.cells[offset : offset + size]), "little")


class Sectored(Controller):
    """STM32F4 and F7: 32-bit programming, sectors by number."""

    _KEYR, _SR, _CR = 0x04, 0x0C, 0x10
    _PG, _SER, _STRT, _LOCK = 1 << 0, 1 << 1, 1 << 16, 1 << 31

    def __init__(self, base: int, origin: int, cells: Cells, sectors: tuple[int, ...]) -> None:
        self._sectors = sectors  # bytes of each
        super().__init__(base, origin, cells)

    def read(self, offset: int) -> int:
        if offset == self._SR:
            return self.registers.get(offset, 0) | (1 << 16 if self.busy() else 0)
        if offset == self._CR:
            return self.registers.get(offset, 0) & ~self._STRT | (self._LOCK if self.locked else 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self._KEYR:
            self.key(value)
        elif offset == self._SR:
            self.registers[offset] = self.registers.get(offset, 0) & ~value
        elif offset == self._CR and value & self._LOCK:
            self.registers[offset] = value & ~self._LOCK
            self.lock()
        elif offset == self._CR:
            self.idle()
            self.registers[offset] = value
            if value & self._STRT:
                self._start(value)
        else:
            super().write(offset, value)

    def _start(self, control: int) -> None:
        number = control >> 3 & 31
        if control & (self._PG | self._SER) != self._SER or control >> 8 & 3 != 2 or number >= len(self._sectors):
            raise Violation(f"STRT with control 0x{control:08x}")
        self.erase(0x08000000 + sum(self._sectors[:number]) - self.origin, self._sectors[number])

    def program(self, offset: int, size: int, value: int) -> None:
        control = self.registers.get(self._CR, 0)
        if control & (self._PG | self._SER) != self._PG:
            self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 7  # sequence error
            return
        self.idle()
        if size != 4 or control >> 8 & 3 != 2:
            raise Violation(f"a write of {size} bytes with PSIZE {control >> 8 & 3}")
        self.burn(offset, value.to_bytes(4, "little"), once=False)


class H7(Controller):
    """STM32H7, bank 2: words of 32 bytes with ECC."""

    _KEYR, _CR, _SR, _CCR = 0x104, 0x10C, 0x110, 0x114
    _LOCK, _PG, _SER, _START = 1 << 0, 1 << 1, 1 << 2, 1 << 7
    _BANK = 0x08100000
    unit = 32

    def reset(self) -> None:
        super().reset()
        self._word: dict[int, bytes] = {}

    def wait_states(self) -> int:
        return self.registers.get(self.ACR, 0x37) & 0x3F

    def read(self, offset: int) -> int:
        if offset == self._SR:
            state = 0b101 if self.busy() else 0  # BSY, QW
            return self.registers.get(offset, 0) | state | (0b010 if self._word else 0)
        if offset == self._CR:
            return self.registers.get(offset, 0) & ~self._START | (self._LOCK if self.locked else 0)
        return self.registers.get(offset, 0x37 if offset == self.ACR else 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self._KEYR:
            self.key(value)
        elif offset == self._CCR:
            self.registers[self._SR] = self.registers.get(self._SR, 0) & ~value
        elif offset == self._CR and value & self._LOCK:
            self.registers[offset] = value & ~self._LOCK
            self.lock()
        elif offset == self._CR:
            self.idle()
            self.registers[offset] = value
            if value & self._START:
                if value & (self._PG | self._SER) != self._SER:
                    raise Violation(f"START with control 0x{value:08x}")
                self.erase(self._BANK + (value >> 8 & 7) * 0x20000 - self.origin, 0x20000)
        else:
            super().write(offset, value)

    def program(self, offset: int, size: int, value: int) -> None:
        if self.locked or not self.registers.get(self._CR, 0) & self._PG or size != 4:
            self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 18  # sequence error
            return
        self.idle()
        start = offset & ~31
        if self._word and min(self._word) & ~31 != start:
            self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 21  # inconsistency
            return
        self._word[offset] = value.to_bytes(4, "little")
        if len(self._word) == 8:
            data, self._word = b"".join(self._word[at] for at in sorted(self._word)), {}
            if not self.burn(start, data, once=True):
                self.torn.add(start)  # programmed twice: the ECC fits neither

    def fetch(self, offset: int, size: int) -> int:
        if offset & ~31 in self.torn:
            self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 26
            raise BusFault
        return super().fetch(offset, size)


class L4(Controller):
    """STM32L4+: double words with ECC, pages by number, two banks of 4 KB pages (or one of 8 KB).

    A torn double word sets the flag in ECCR; the NMI that comes with it on the part does not come here.
    """

    _KEYR, _SR, _CR, _ECCR, _OPTR = 0x08, 0x10, 0x14, 0x18, 0x20
    _PG, _PER, _STRT, _LOCK = 1 << 0, 1 << 1, 1 << 16, 1 << 31
    unit = 8

    def __init__(self, base: int, origin: int, cells: Cells, dual: bool = True) -> None:
        self.dual = dual
        super().__init__(base, origin, cells)

    def reset(self) -> None:
        super().reset()
        self._low: tuple[int, int] | None = None

    def read(self, offset: int) -> int:
        if offset == self._SR:
            return self.registers.get(offset, 0) | (1 << 16 if self.busy() else 0)
        if offset == self._CR:
            return self.registers.get(offset, 0) & ~self._STRT | (self._LOCK if self.locked else 0)
        return 1 << 22 if offset == self._OPTR and self.dual else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self._KEYR:
            self.key(value)
        elif offset in (self._SR, self._ECCR):
            self.registers[offset] = self.registers.get(offset, 0) & ~value
        elif offset == self._CR and value & self._LOCK:
            self.registers[offset] = value & ~self._LOCK
            self.lock()
        elif offset == self._CR:
            self.idle()
            self.registers[offset] = value
            if value & self._STRT:
                self._start(value)
        else:
            super().write(offset, value)

    def _start(self, control: int) -> None:
        if control & (self._PG | self._PER) != self._PER:
            raise Violation(f"STRT with control 0x{control:08x}")
        if self.registers.get(self._SR, 0) & 0xC3FA:
            raise Violation("STRT with error flags set: the operation would not start")
        number, bank = control >> 3 & 255, control >> 11 & 1
        size = 0x1000 if self.dual else 0x2000
        address = 0x08000000 + number * size + (bank * 0x100000 if self.dual else 0)
        self.erase(address - self.origin, size)

    def program(self, offset: int, size: int, value: int) -> None:
        if self.locked or not self.registers.get(self._CR, 0) & self._PG:
            self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 7
            return
        self.idle()
        if size != 4:
            self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 6
        elif self._low is None:
            if offset % 8:
                self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 5
            else:
                self._low = (offset, value)
        else:
            (start, low), self._low = self._low, None
            data = low.to_bytes(4, "little") + value.to_bytes(4, "little")
            if offset != start + 4 or not self.burn(start, data, once=data != bytes(8)):
                self.registers[self._SR] = self.registers.get(self._SR, 0) | 1 << 3

    def fetch(self, offset: int, size: int) -> int:
        if offset & ~7 in self.torn:
            self.registers[self._ECCR] = self.registers.get(self._ECCR, 0) | 1 << 31
        return super().fetch(offset, size)


class Region(Block):
    """The adapter region on the bus: its reads and writes are the controller's."""

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller.origin)
        self.size, self._controller = len(controller.cells), controller

    def load(self, offset: int, size: int) -> int:
        return self._controller.fetch(offset, size)

    def store(self, offset: int, size: int, value: int) -> None:
        self._controller.program(offset, size, value)
