# SPDX-License-Identifier: Apache-2.0
"""The kernels' bodies with DSP instructions give the portable bodies' bytes, on the emulated core that has both."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lora_mcu import resources

HERE = Path(__file__).parent
RUNTIME = resources.path("firmware") / "runtime"
SHARED = (HERE / "kernel_bodies.c", HERE.parent / "firmware" / "blank_model.c", RUNTIME / "mem.c")
KERNELS = ("dense", "conv2d", "depthwise", "matvec", "patch", "lora")
GCC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-ffreestanding", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16",
         "-mfloat-abi=hard", "-mfp16-format=ieee", "-Wall", "-Wextra", "-Werror", "-DLMCU_FREESTANDING",
         f"-I{RUNTIME}"]  # fmt: skip
LAYOUT = """SECTIONS {
.text 0x08000000 : { KEEP(*(.vectors)) *(.text*) *(.rodata*) }
.data 0x20000000 : { *(.data*) }
.bss : { *(.bss*) *(COMMON) }
}
"""

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(not (shutil.which(GCC) and shutil.which(QEMU)), reason=f"needs {GCC} and {QEMU}"),
]


def compile_one(source: Path, out: Path, *flags: str) -> Path:
    subprocess.run([GCC, *FLAGS, *flags, "-c", source, "-o", out], check=True, timeout=60)
    return out


def portable(source: Path, out: Path) -> Path:
    """The portable body with portable_ in the place of its functions' lmcu_."""
    compile_one(source, out, "-DLMCU_PORTABLE")
    names = subprocess.run(["arm-none-eabi-nm", out], check=True, capture_output=True, text=True, timeout=60).stdout
    found = {line.split()[-1] for line in names.splitlines()}
    renamed = sorted(n for n in found if n.startswith("lmcu_") and n != "lmcu_model")
    assert renamed
    changes = [f"--redefine-sym={n}=portable_{n.removeprefix('lmcu_')}" for n in renamed]
    subprocess.run(["arm-none-eabi-objcopy", *changes, out], check=True, timeout=60)
    return out


def verdict(folder: Path, spoil: tuple[str, str] | None = None) -> str:
    """What the driver says; ``spoil`` replaces a text in the DSP bodies' sources."""
    objects = [compile_one(source, folder / f"{source.stem}.o") for source in SHARED]
    for name in KERNELS:
        text = (RUNTIME / f"{name}.c").read_text(encoding="utf-8")
        source = folder / f"{name}.c"
        source.write_text(text.replace(*spoil) if spoil else text, encoding="utf-8")
        objects.append(compile_one(source, folder / f"dsp_{name}.o"))
        objects.append(portable(RUNTIME / f"{name}.c", folder / f"portable_{name}.o"))
    layout, image = folder / "layout.ld", folder / "bodies.elf"
    layout.write_text(LAYOUT)
    subprocess.run([GCC, *FLAGS, "-nostdlib", "-T", layout, *objects, "-lgcc", "-o", image], check=True, timeout=60)
    machine = [QEMU, "-M", "netduinoplus2", "-display", "none", "-monitor", "none", "-serial", "none"]
    machine += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    return subprocess.run(machine, check=True, capture_output=True, text=True, timeout=120).stderr.strip()


def test_dsp_bodies_give_the_portable_bytes(tmp_path: Path) -> None:
    assert verdict(tmp_path) == "equal"


@pytest.mark.parametrize(
    ("kernel", "spoil"),
    [
        ("dense", ('ROW("w3", "s3")', 'ROW("w3", "s2")')),
        ("conv2d", ("offset = 2 * p->output_zero_point + 1", "offset = 2 * p->output_zero_point")),
    ],
)
def test_a_wrong_body_is_found(tmp_path: Path, kernel: str, spoil: tuple[str, str]) -> None:
    assert verdict(tmp_path, spoil) == f"{kernel} differs"
