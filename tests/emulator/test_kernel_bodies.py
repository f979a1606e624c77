# SPDX-License-Identifier: Apache-2.0
"""The kernels' bodies with DSP instructions give the portable bodies' bytes, on the emulated core that has both."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lora_mcu import resources
from lora_mcu.passes.blocks import NUMERICS

HERE = Path(__file__).parent
RUNTIME = resources.path("firmware") / "runtime"
SHARED = (HERE / "kernel_bodies.c", HERE.parent / "firmware" / "blank_model.c", RUNTIME / "mem.c")
KERNELS = ("dense", "conv2d", "depthwise", "matvec", "patch", "lora", "lora_i16", "block", "sgd", "lmcu_math")
GCC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-ffreestanding", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16",
         "-mfloat-abi=hard", "-mfp16-format=ieee", "-Wall", "-Wextra", "-Werror", "-DLMCU_FREESTANDING"]  # fmt: skip
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


def headers(folder: Path, numerics: str) -> str:
    """The runtime's headers as a project of this mode has them; the compiler's flag that finds them."""
    folder.mkdir()
    for header in RUNTIME.glob("*.h"):
        text = header.read_text(encoding="utf-8")
        old = "#define LMCU_NUMERICS_I16 0"
        assert header.name != "lmcu_config.h" or old in text
        changed = text.replace(old, f"#define LMCU_NUMERICS_I16 {int(numerics == 'i16')}")
        (folder / header.name).write_text(changed, encoding="utf-8")
    return f"-I{folder}"


def compile_one(source: Path, out: Path, *flags: str) -> Path:
    subprocess.run([GCC, *FLAGS, *flags, "-c", source, "-o", out], check=True, timeout=60)
    return out


def portable(source: Path, out: Path, include: str) -> Path:
    """The portable body with portable_ in the place of its functions' lmcu_."""
    compile_one(source, out, "-DLMCU_PORTABLE", include)
    names = subprocess.run(["arm-none-eabi-nm", out], check=True, capture_output=True, text=True, timeout=60).stdout
    found = {line.split()[-1] for line in names.splitlines()}
    renamed = sorted(n for n in found if n.startswith("lmcu_") and n != "lmcu_model")
    changes = [f"--redefine-sym={n}=portable_{n.removeprefix('lmcu_')}" for n in renamed]
    subprocess.run(["arm-none-eabi-objcopy", *changes, out], check=True, timeout=60)
    return out


def verdict(folder: Path, numerics: str, spoil: tuple[str, str] | None = None) -> str:
    """What the driver says; ``spoil`` replaces a text in the DSP bodies' sources."""
    include = headers(folder / "include", numerics)
    objects = [compile_one(source, folder / f"{source.stem}.o", include) for source in SHARED]
    spoiled = 0
    for name in KERNELS:
        text = plain = (RUNTIME / f"{name}.c").read_text(encoding="utf-8")
        source = folder / f"{name}.c"
        text = text.replace(*spoil) if spoil else text
        spoiled += text != plain
        source.write_text(text, encoding="utf-8")
        source.with_name(f"plain_{name}.c").write_text(plain, encoding="utf-8")  # beside no header but the project's
        objects.append(compile_one(source, folder / f"dsp_{name}.o", include))
        objects.append(portable(source.with_name(f"plain_{name}.c"), folder / f"portable_{name}.o", include))
    assert bool(spoil) == bool(spoiled), "the text to spoil is not there"
    layout, image = folder / "layout.ld", folder / "bodies.elf"
    layout.write_text(LAYOUT)
    subprocess.run([GCC, *FLAGS, "-nostdlib", "-T", layout, *objects, "-lgcc", "-o", image], check=True, timeout=60)
    machine = [QEMU, "-M", "netduinoplus2", "-display", "none", "-monitor", "none", "-serial", "none"]
    machine += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    return subprocess.run(machine, check=True, capture_output=True, text=True, timeout=120).stderr.strip()


@pytest.mark.parametrize("numerics", NUMERICS)
def test_dsp_bodies_give_the_portable_bytes(tmp_path: Path, numerics: str) -> None:
    assert verdict(tmp_path, numerics) == "equal"


@pytest.mark.parametrize(
    ("numerics", "spoil"),
    [
        ("f32", ("lmcu_quick_output(acc[1], *m", "lmcu_quick_output(acc[0], *m")),
        ("f32", ("offset = 2 * p->output_zero_point + 1", "offset = 2 * p->output_zero_point")),
        ("f32", ("vadd.f32 s1, s1, s5", "vadd.f32 s1, s1, s4")),
        ("f32", ("adc %[x], %[x], %[y], asr #1", "add %[x], %[x], %[y], asr #1")),
        ("f32", ("vadd.f32 %[s2], %[s2], ", "vsub.f32 %[s2], %[s2], ")),
        ("i16", ('ROW("w3", "v23", "t")', 'ROW("w3", "v23", "b")')),
        ("i16", ("smlatb %[s3], %[y], %[h], %[s3]", "smlabb %[s3], %[y], %[h], %[s3]")),
        ("i16", ("sel %[y], %[y], %[u]", "sel %[y], %[u], %[y]")),
        ("i16", ("add %[s], %[x], %[s], asr #1", "add %[s], %[x], %[s], asr #2")),
        ("f32", ("bfc %[v], #0, #13", "bfc %[v], #0, #12")),
        ("f32", ("pkhtb %[z], %[z], %[y], asr #16", "pkhtb %[z], %[z], %[y], asr #15")),
        ("i16", ("smlatt %[s3], %[w], %[y], %[s3]", "smlatt %[s3], %[w], %[x], %[s3]")),
    ],
)
def test_a_wrong_body_is_found(tmp_path: Path, numerics: str, spoil: tuple[str, str]) -> None:
    assert verdict(tmp_path, numerics, spoil).endswith(" differs")
