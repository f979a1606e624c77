# SPDX-License-Identifier: Apache-2.0
"""Builds firmware.elf (and .bin, upload) of a lora_mcu project; SCons runs this file."""

import importlib.util
import os
import pathlib
import shutil
import sys

from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()
prefix = board.get("build.toolchain", "")
native = board.get("build.native") == "yes"
testing = env.GetBuildType() == "test"  # `pio test`: its program takes the place of the main loop


def load_tools():
    """The module beside this file; SCons gives a script no __file__."""
    file = os.path.join(env.PioPlatform().get_dir(), "builder", "tools.py")
    spec = importlib.util.spec_from_file_location("lora_mcu_tools", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tools = load_tools()
env.AppendENVPath("PATH", tools.folders(env.subst("$PROJECT_PACKAGES_DIR")))


def find_compiler():
    """Stop with one line that names the missing or old compiler and where it comes from."""
    packages = board.get("build.debian_package"), board.get("build.registry_package", "")
    wrong = tools.check_compiler(prefix, *packages, path=env["ENV"].get("PATH"))
    if wrong:
        sys.stderr.write(f"Error: {wrong}\n")
        env.Exit(1)


# The arithmetic is part of the product: no contraction, no reassociation, no errno, C99 rounding of every operation.
COMPILE = ["-O3", "-g", "-ffp-contract=off", "-fno-math-errno", "-ffunction-sections", "-fdata-sections", "-fno-common"]
WARN = ["-Wall", "-Wextra", "-Werror"]
# The host's headers and start files serve the native board; all others are free of any library but libgcc.
BARE_COMPILE = [] if native else ["-ffreestanding"]
BARE_LINK = [] if native else ["-nostdlib", "-nostartfiles"]
NAME = "test" if testing else "firmware"
# A relative path, because the project's own may have blanks in it; SCons runs in the project's folder.
MAP = os.path.join(os.path.relpath(env.subst("$BUILD_DIR")), f"{NAME}.map")
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
    PROGNAME=NAME,
    PROGSUFFIX=".elf",
    SIZEPROGREGEXP=r"^(?:\.text|\.rodata)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.bss\w*|\.noinit)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPRINTCMD="$SIZETOOL -B -d $SOURCES",
    UPLOAD_BIN=f"${{BUILD_DIR}}/{NAME}.bin",
    GDB=next((gdb for gdb in (prefix + "gdb", "gdb-multiarch") if shutil.which(gdb)), "gdb"),
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

# What runs once a frame or once a boot is built small, and where -O3 only unrolls, -O2 does; nothing else of the flags
# may differ.
LEVELS = {
    "-Os": ("main", "protocol*", "frame", "store", "train", "selftest", "crc32", "flash", "auth", "samples", "guard"),
    "-O2": ("lora_i16", "sgd", "softmax"),
}


def built_with(level):
    """A middleware that compiles a file with this level."""
    return lambda environment, node: environment.Object(node, CCFLAGS=[*environment["CCFLAGS"], level])


for level, names in LEVELS.items():
    for name in names:
        env.AddBuildMiddleware(built_with(level), f"*{os.sep}{name}.c")

if testing:
    env.Append(SRC_FILTER=["+<*>", f"-<runtime{os.sep}main.c>"])
program = env.BuildProgram()
targets = [program]
if not native:
    binary = env.Command(
        f"${{BUILD_DIR}}/{NAME}.bin",
        program,
        env.VerboseAction("$OBJCOPY -O binary $SOURCE $TARGET", "Building $TARGET"),
    )
    targets.append(binary)
size = env.Alias("size", program, env.VerboseAction("$SIZEPRINTCMD", "Size of $SOURCE"))
AlwaysBuild(size)


def upload(source, **_kwargs):
    """Write and verify the image; a failure is one line."""
    elf = pathlib.Path(str(source[0])).with_suffix(".elf")
    protocol, port = env.subst("$UPLOAD_PROTOCOL"), env.subst("$UPLOAD_PORT")
    try:
        tool = tools.upload(board.get("upload"), elf, protocol, port=port, path=env["ENV"].get("PATH"))
    except tools.UploadToolError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    print(f"{tool} wrote the image and verified it")
    return 0


if not native:
    AlwaysBuild(env.Alias("upload", binary, env.VerboseAction(upload, "Uploading $SOURCE")))

Default(targets)
