# SPDX-License-Identifier: Apache-2.0
"""PlatformIO platform of a lora_mcu project: compilers from PATH, SCons from this Python, no registry."""

import json
import sys
from importlib import metadata
from pathlib import Path

import semantic_version
from platformio.dependencies import get_core_dependencies
from platformio.platform.base import PlatformBase

TOOL = "tool-scons"
SCONS_PY = "import SCons.Script\nSCons.Script.main()\n"


def scons_tool_version():
    """SCons of this Python as PlatformIO numbers its package: 4.11.1 is 4.41101.0; None without SCons."""
    try:
        major, minor, patch = (int(part) for part in metadata.version("scons").split(".")[:3])
    except (metadata.PackageNotFoundError, ValueError):
        return None
    return f"4.{major}{minor:02d}{patch:02d}.0"


def scons_for(wanted):
    """The SCons release that PlatformIO's requirement names: ~4.41101.0 is 4.11.1."""
    digits = wanted.lstrip("~").split(".")[1]
    return f"{int(digits[:-4])}.{int(digits[-4:-2])}.{int(digits[-2:])}"


def register_scons(packages_dir):
    """Make the SCons of this Python known as PlatformIO's build tool, unless one is installed already.

    PlatformIO looks for a folder with a manifest, the metadata of an installed package and a scons.py.
    """
    folder = Path(packages_dir) / TOOL
    if (folder / ".piopm").is_file():
        return
    wanted, found = get_core_dependencies()[TOOL], scons_tool_version()
    if found is None or semantic_version.Version(found) not in semantic_version.SimpleSpec(wanted):
        sys.stderr.write(f"lora_mcu: this PlatformIO needs SCons: pip install scons=={scons_for(wanted)}\n")
        return
    spec = {"owner": "platformio", "id": None, "name": TOOL, "requirements": None, "uri": None}
    meta = {"type": "tool", "name": TOOL, "version": found, "spec": spec}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scons.py").write_text(SCONS_PY, encoding="utf-8")
    (folder / "package.json").write_text(json.dumps({"name": TOOL, "version": found}), encoding="utf-8")
    (folder / ".piopm").write_text(json.dumps(meta), encoding="utf-8")


class Lora_mcuPlatform(PlatformBase):
    """Found by PlatformIO under the platform's name."""

    def configure_default_packages(self, options, targets):
        """Called before PlatformIO looks for its build tool."""
        register_scons(self.config.get("platformio", "packages_dir"))
        return super().configure_default_packages(options, targets)

    def is_embedded(self):
        return True
