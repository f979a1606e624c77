# SPDX-License-Identifier: Apache-2.0
"""Builds firmware.elf (and .bin, upload) of a lora_mcu project; SCons runs this file."""

import os
import shutil
import sys

from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()
prefix = board.get("build.toolchain", "")
native = board.get("build.native") == "yes"


def find_compiler():
    """Stop with one line that names the missing compiler and where it comes from."""
    compiler = prefix + "gcc"
    if shutil.which(compiler, path=env["ENV"].get("PATH")):
        return
    other = board.get("build.registry_package", "")
    sys.stderr.write(
        f"Error: compiler {compiler} is not on PATH: apt install {board.get('build.debian_package')}"
        + (f" (PlatformIO's registry has it as {other})\n" if other else "\n")
    )
    env.Exit(1)


# The arithmetic is part of the product: no contraction, no reassociation, no errno, C99 rounding of every operation.
COMPILE = ["-O3", "-g", "-ffp-contract=off", "-fno-math-errno", "-ffunction-sections", "-fdata-sections", "-fno-common"]
WARN = ["-Wall", "-Wextra", "-Werror"]
# The host's headers and start files serve the native board; all others are free of any library but libgcc.
BARE_COMPILE = [] if native else ["-ffreestanding"]
BARE_LINK = [] if native else ["-nostdlib", "-nostartfiles"]
# A relative path, because the project's own may have blanks in it; SCons runs in the project's folder.
MAP = os.path.join(os.path.relpath(env.subst("$BUILD_DIR")), "firmware.map")
GARBAGE = ["-Wl,--gc-sections", f"-Wl,-Map={MAP}"]

find_compiler()
cpu = list(board.get("build.cpu_flags", []))
env.Replace(
    AR=prefix + "ar",
    AS=prefix + "as",
    CC=prefix + "gcc",
    CXX=prefix + "g++",
    LINK=prefix + "gcc",
    OBJCOPY=prefix + "objcopy",
    RANLIB=prefix + "ranlib",
    SIZETOOL=prefix + "size",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    SIZEPROGREGEXP=r"^(?:\.text|\.rodata)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.bss|\.noinit)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPRINTCMD="$SIZETOOL -B -d $SOURCES",
    UPLOAD_BIN="${BUILD_DIR}/firmware.bin",
)
env.Append(
    CFLAGS=["-std=c99"],
    CCFLAGS=cpu + COMPILE + WARN + BARE_COMPILE,
    CPPDEFINES=[] if native else ["LMCU_FREESTANDING"],
    CPPPATH=["$PROJECT_INCLUDE_DIR"],
    LINKFLAGS=cpu + GARBAGE + BARE_LINK,
    LIBS=[] if native else ["gcc"],
)
if not native:
    env.Replace(LDSCRIPT_PATH="linker.ld")

# What runs once a frame or once a boot is built small; nothing else of the flags may differ.
COLD = ("main", "protocol*", "frame", "store", "train", "selftest", "crc32", "flash")


def build_small(environment, node):
    """Compile a cold file with -Os."""
    return environment.Object(node, CCFLAGS=[*environment["CCFLAGS"], "-Os"])


for name in COLD:
    env.AddBuildMiddleware(build_small, f"*{os.sep}{name}.c")

program = env.BuildProgram()
targets = [program]
if not native:
    binary = env.Command(
        "${BUILD_DIR}/firmware.bin",
        program,
        env.VerboseAction("$OBJCOPY -O binary $SOURCE $TARGET", "Building $TARGET"),
    )
    targets.append(binary)
size = env.Alias("size", program, env.VerboseAction("$SIZEPRINTCMD", "Size of $SOURCE"))
AlwaysBuild(size)

UPLOAD = {
    "dfu": ("dfu-util", "dfu-util -a 0 -s 0x08000000:leave -D $SOURCE"),
    "stlink": ("st-flash", "st-flash --reset write $SOURCE 0x08000000"),
    "esptool": ("esptool", "esptool --chip esp32c3 ${UPLOAD_PORT and '--port ' + UPLOAD_PORT} write-flash 0x0 $SOURCE"),
}
INSTALL = {
    "dfu-util": "apt install dfu-util",
    "st-flash": "apt install stlink-tools",
    "esptool": "pip install esptool",
}


def find_uploader(*_args, **_kwargs):
    """Stop with one line when the upload tool is missing."""
    tool = UPLOAD[env.subst("$UPLOAD_PROTOCOL")][0]
    if shutil.which(tool, path=env["ENV"].get("PATH")):
        return 0
    sys.stderr.write(f"Error: upload tool {tool} is not on PATH: {INSTALL[tool]}\n")
    return 1


if env.subst("$UPLOAD_PROTOCOL") in UPLOAD:
    action = env.VerboseAction(UPLOAD[env.subst("$UPLOAD_PROTOCOL")][1], "Uploading $SOURCE")
    AlwaysBuild(env.Alias("upload", binary, [env.VerboseAction(find_uploader, "Looking for the upload tool"), action]))

Default(targets)
