# SPDX-License-Identifier: Apache-2.0
"""The runtime compiles for every core without a warning, a C library, initialized data or statics of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lora_mcu import resources

TARGETS = {
    "cortex-m0": ["arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", "-mfp16-format=ieee"],
    "cortex-m4f": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-mthumb",
                   "-mfp16-format=ieee"],
    "cortex-m7": ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard", "-mthumb"],
    "rv32imc": ["riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32"],
}  # fmt: skip
FLAGS = ["-std=c99", "-O3", "-ffp-contract=off", "-ffreestanding", "-DLMCU_FREESTANDING", "-Wall", "-Wextra", "-Werror"]
OWN_RAM = {"lmcu_context", "lmcu_link", "lmcu_auth"}
SUPPORT = ("__aeabi_", "__divdi3", "__udivdi3", "__muldi3", "__lshrdi3", "__ashldi3", "__ashrdi3", "__clzsi2")
SOFT_FLOAT = ("__addsf3", "__subsf3", "__mulsf3", "__divsf3", "__floatsisf", "__floatunsisf", "__fixsfsi", "__gesf2",
              "__gtsf2", "__lesf2", "__ltsf2", "__eqsf2", "__nesf2", "__gnu_thumb1_case")  # fmt: skip


def objects(target: str, out: Path) -> list[Path]:
    compiler, *flags = TARGETS[target]
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    runtime = resources.path("firmware") / "runtime"
    built = []
    for source in sorted(runtime.glob("*.c")):
        built.append(out / f"{source.stem}.o")
        command = [compiler, *flags, *FLAGS, f"-I{runtime}", "-c", str(source), "-o", str(built[-1])]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
    return built


def symbols(target: str, files: list[Path]) -> list[tuple[str, str]]:
    """(kind, name) as nm prints them."""
    nm = TARGETS[target][0].replace("gcc", "nm")
    text = subprocess.run([nm, *map(str, files)], capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split()[-2:] for line in text.splitlines() if line and not line.endswith(":")]
    return [(kind, name) for kind, name in rows]


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_without_warnings_library_or_hidden_ram(target: str, tmp_path: Path) -> None:
    found = symbols(target, objects(target, tmp_path))
    ram = {name for kind, name in found if kind in "dDbBC"}
    assert ram == OWN_RAM
    defined = {name for kind, name in found if kind in "tTrRdDbBC"}
    missing = {name for kind, name in found if kind == "U"} - defined
    provided = {
        name for name in missing if name.startswith(("lmcu_port_", "lmcu_model", "lmcu_key", *SUPPORT, *SOFT_FLOAT))
    }
    assert missing - provided == set()


@pytest.mark.parametrize("target", ["cortex-m4f", "cortex-m7"])
def test_float_code_uses_the_fpu_and_never_fuses(target: str, tmp_path: Path) -> None:
    objdump = TARGETS[target][0].replace("gcc", "objdump")
    files = [str(f) for f in objects(target, tmp_path)]
    text = subprocess.run([objdump, "-d", *files], capture_output=True, text=True, check=True, timeout=60).stdout
    assert text.count("vmul.f32") > 50
    for fused in ("vfma", "vfms", "vfnma", "vfnms", "vmla", "vmls", "vnmla", "vnmls"):
        assert f"{fused}.f32" not in text
    assert "__aeabi_fmul" not in text and "__aeabi_dmul" not in text
