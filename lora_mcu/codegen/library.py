# SPDX-License-Identifier: Apache-2.0
"""A compiled model as a library: one folder that Arduino, PlatformIO, ESP-IDF and CMake each take as their own."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lora_mcu import resources
from lora_mcu.codegen.platformio import copies, environment, runtime_sources

if TYPE_CHECKING:
    from lora_mcu.program import Program

NAME_CHARACTERS = 40  # PlatformIO takes 50, Arduino 63
EXAMPLES = ("LoraMcuSerial", "LoraMcuOnDevice")
_TEMPLATES = ("library.properties", "CMakeLists.txt", "idf_component.yml", "README.md")


def library_name(model: str) -> str:
    """The library's name: ``lora_mcu_`` and the model's, in characters that all four build systems take."""
    return ("lora_mcu_" + re.sub(r"[^A-Za-z0-9]+", "_", model).strip("_"))[:NAME_CHARACTERS].rstrip("_")


def _manifest(facts: dict[str, Any]) -> bytes:
    """``library.json`` of PlatformIO."""
    manifest = {
        "name": facts["name"],
        "version": facts["version"],
        "description": facts["sentence"],
        "keywords": ["tinyml", "lora", "training"],
        "authors": {"name": "lora_mcu", "maintainer": True},
        "license": "Apache-2.0",
        "frameworks": "*",
        "platforms": "*",
        "headers": ["lmcu_stream.h", "lmcu.h"],
        "examples": [{"name": n, "base": f"examples/{n}", "files": [f"{n}.ino"]} for n in EXAMPLES],
    }
    return (json.dumps(manifest, indent=2) + "\n").encode()


def render_library_files(program: Program) -> dict[str, bytes]:
    """Return the library's files as {relative path: content}, without the generated model.

    They depend on the program and on this lora_mcu only. Every name that a linker sees begins with ``lmcu_``, there is
    no ``main``, and memory is what the report says.
    """
    firmware = resources.path("firmware")
    files = {
        **runtime_sources(firmware / "runtime", "src/runtime", program.key),
        **copies(firmware / "runtime", ("*.h",), "src"),
        **copies(firmware / "ports" / "stream", ("*.c",), "src/port"),
        **copies(firmware / "ports" / "stream", ("*.h",), "src"),
    }
    del files["src/runtime/main.c"]  # the program's own loop calls lmcu_poll
    info = program.info
    facts: dict[str, Any] = {
        "name": library_name(info.name),
        "version": version("lora-mcu"),
        "sentence": f"The model {info.name}, which runs and adapts itself on the microcontroller with LoRA.",
        "sources": sorted(name for name in [*files, "src/model.c"] if name.endswith(".c")),
        "board": program.board,
        "info": info,
        "report": program.report(),
        "examples": EXAMPLES,
    }
    templates = environment("library")
    for name in _TEMPLATES:
        files[name] = templates.get_template(f"{name}.j2").render(facts).encode()
    for name in EXAMPLES:
        text = templates.get_template(f"{name}.ino.j2").render(facts)
        files[f"examples/{name}/{name}.ino"] = text.encode()
    files["library.json"] = _manifest(facts)
    return dict(sorted(files.items()))
