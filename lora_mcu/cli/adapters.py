# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu adapter pull | push | reset`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import refuse_existing, say
from lora_mcu.cli.device import open_device

_Port = Annotated[str, typer.Option(help=options.PORT_HELP, show_default=False)]


def pull(
    port: _Port,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    force: options.Force = False,
) -> None:
    """Read the adapter from a device into a folder (safetensors and PEFT's adapter_config.json)."""
    refuse_existing(output, force)
    with open_device(port) as device:
        adapter = device.adapter()
    adapter.save(output, force=force)
    say(f"{output}: adapter of {device.info.name}, rank {device.info.rank}, {len(device.info.layers)} layers")


def push(
    adapter: Annotated[Path, typer.Argument(help="Folder that `adapter pull` wrote.", show_default=False)], port: _Port
) -> None:
    """Write an adapter folder to a device: wholly, or not at all."""
    from lora_mcu import Adapter

    loaded = Adapter.load(adapter)
    with open_device(port) as device:
        device.load(loaded)
    say(f"{adapter}: in use on {device.info.name} ({device.info.board})")


def reset(port: _Port) -> None:
    """Restore the base: the device's adapter becomes the initial one (B = 0); stored samples stay."""
    with open_device(port) as device:
        device.reset()
    say(f"base restored on {device.info.name} ({device.info.board})")
