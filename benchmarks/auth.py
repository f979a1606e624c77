# SPDX-License-Identifier: Apache-2.0
"""What a key costs a device: bytes of code and SRAM, and instructions of one request's tag on a Cortex-M4 (Unicorn).

python benchmarks/auth.py
"""

from __future__ import annotations

import subprocess
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from lora_mcu import resources
from lora_mcu.link.auth import TAG_BYTES
from lora_mcu.sram import runtime_config

RUNTIME = resources.path("firmware") / "runtime"
_GCC = ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
_FLAGS = ("-std=c99", "-ffreestanding", "-DLMCU_FREESTANDING", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
_CODE, _DATA, _STACK_TOP, _BYTES = 0x0, 0x20000000, 0x20080000, 0x80000
_MESSAGE, _KEY, _DIGEST, _STATE = _DATA, _DATA + 0x60000, _DATA + 0x61000, _DATA + 0x62000


class CortexM4:
    """firmware/runtime/sha256.c as the firmware has it, on an emulated Cortex-M4; counts instructions."""

    def __init__(self) -> None:
        unicorn: Any = import_module("unicorn")
        self._arm: Any = import_module("unicorn.arm_const")
        with tempfile.TemporaryDirectory() as name:
            elf, image = Path(name) / "sha256.elf", Path(name) / "sha256.bin"
            sources = [str(RUNTIME / "sha256.c"), str(RUNTIME / "mem.c")]
            link = ("-nostdlib", "-Wl,-Ttext=0", "-Wl,-e,lmcu_hmac_begin", "-lgcc")
            subprocess.run([*_GCC, *_FLAGS, "-O3", *sources, *link, "-o", str(elf)], check=True)
            subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", str(elf), str(image)], check=True)
            listing = subprocess.run(["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True).stdout
            code = image.read_bytes()
        rows = [line.split() for line in listing.splitlines()]
        self._symbols = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
        self._core = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self._core.mem_map(_CODE, 0x10000)
        self._core.mem_map(_DATA, _BYTES)
        self._core.mem_write(_CODE, code)
        self._core.hook_add(unicorn.UC_HOOK_CODE, self._count)
        self.instructions = 0

    def _count(self, *_: Any) -> None:
        self.instructions += 1

    def _call(self, function: str, *arguments: int) -> None:
        registers = [getattr(self._arm, f"UC_ARM_REG_R{n}") for n in range(len(arguments))]
        for register, value in zip(registers, arguments, strict=True):
            self._core.reg_write(register, value)
        self._core.reg_write(self._arm.UC_ARM_REG_SP, _STACK_TOP)
        end = 0xF000
        self._core.reg_write(self._arm.UC_ARM_REG_LR, end | 1)
        self._core.emu_start(self._symbols[function] | 1, end)

    def sha256(self, message: bytes) -> bytes:
        """Return the digest of up to 256 KB."""
        self._core.mem_write(_MESSAGE, message)
        self._call("lmcu_sha256_begin", _STATE)
        self._call("lmcu_sha256_add", _STATE, _MESSAGE, len(message))
        self._call("lmcu_sha256_end", _STATE, _DIGEST)
        return bytes(self._core.mem_read(_DIGEST, 32))

    def hmac(self, key: bytes, message: bytes) -> bytes:
        """Return HMAC-SHA-256 of up to 256 KB."""
        self._core.mem_write(_MESSAGE, message)
        self._core.mem_write(_KEY, key)
        self._call("lmcu_hmac_begin", _STATE, _KEY, len(key))
        self._call("lmcu_hmac_add", _STATE, _MESSAGE, len(message))
        self._call("lmcu_hmac_end", _STATE, _DIGEST)
        return bytes(self._core.mem_read(_DIGEST, 32))


def code_bytes() -> dict[str, int]:
    """Code and constants of the files that only a build with a key has, compiled as a project's build compiles them."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for file, level in (("auth", "-Os"), ("sha256", "-O3")):
            target = Path(name) / f"{file}.o"
            command = [*_GCC, *_FLAGS, "-O3", level, "-c", str(RUNTIME / f"{file}.c"), "-o", str(target)]
            subprocess.run(command, check=True)
            said = subprocess.run(["arm-none-eabi-size", str(target)], capture_output=True, text=True, check=True)
            found[f"{file}.c"] = int(said.stdout.splitlines()[1].split()[0])
    return found


def main() -> None:
    core = CortexM4()
    for name, size in code_bytes().items():
        print(f"{name}: {size:,} bytes of code and constants")
    print(f"lmcu_key: 32 bytes of constants; lmcu_auth: {runtime_config()['AUTH_BYTES']} bytes of SRAM")
    print(f"each request: {TAG_BYTES} bytes more on the line")
    for payload in (0, 100, 772, runtime_config()["MAX_PAYLOAD"] - TAG_BYTES):
        core.instructions = 0
        core.hmac(bytes(32), bytes(9 + payload))
        print(f"the tag of {payload:,} bytes: {core.instructions:,} instructions")


if __name__ == "__main__":
    main()
