# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu adapter pull | push | reset | merge-device | unmerge-device` and the slots in the device's own flash."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import emit, refuse_existing, say, table
from lora_mcu.cli.device import load_adapter, open_device

_Slot = Annotated[str, typer.Argument(help="Name of the slot: 1 to 15 characters.", show_default=False)]
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
        load_adapter(device, adapter, loaded)
    say(f"{adapter}: in use on {device.info.name} ({device.info.board})")


def reset(port: _Port) -> None:
    """Restore the base: the device's adapter becomes the initial one (B = 0); stored samples stay."""
    with open_device(port) as device:
        device.reset()
    say(f"base restored on {device.info.name} ({device.info.board})")


def merge_device(port: _Port) -> None:
    """Merge the adapter into the weights on the device: from then on inference costs what the base costs."""
    with open_device(port) as device:
        device.merge()
    say(f"merged on {device.info.name} ({device.info.board}); `lora-mcu adapter unmerge-device` takes it out again")


def unmerge_device(port: _Port) -> None:
    """Give the device's weights back as the base has them; its adapter is in use beside them again."""
    with open_device(port) as device:
        device.unmerge()
    say(f"the base's weights are back on {device.info.name} ({device.info.board}), the adapter beside them")


def save(slot: _Slot, port: _Port) -> None:
    """Save the device's adapter in its flash under a name: the old one or the new one, through a power cut too."""
    with open_device(port) as device:
        device.save_slot(slot)
    say(f"{slot}: saved on {device.info.name} ({device.info.board})")


def load(slot: _Slot, port: _Port) -> None:
    """Use an adapter that the device has in its flash."""
    with open_device(port) as device:
        device.load_slot(slot)
    say(f"{slot}: in use on {device.info.name} ({device.info.board})")


def list_(port: _Port, json_: options.Json = False) -> None:
    """List the adapters in the device's flash."""
    with open_device(port) as device:
        found, used = device.slots(), device.hello.adapter_crc32
    if json_:
        emit(found)
        return
    rows = []
    for slot in found.slots:
        fits = "another model" if not slot.right_model else "" if slot.right_layout else "another layout"
        notes = ["default" if slot.name == found.default else "", "in use" if slot.crc32 == used else "", fits]
        rows.append((slot.name, f"{slot.crc32:08x}", ", ".join(note for note in notes if note)))
    if rows:
        table(("slot", "crc32", ""), rows)
    say(f"{len(rows)} of {found.capacity} that fit, default {found.default or 'none'}")


def delete(slot: _Slot, port: _Port) -> None:
    """Delete an adapter from the device's flash."""
    with open_device(port) as device:
        device.delete_slot(slot)
    say(f"{slot}: deleted on {device.info.name} ({device.info.board})")


def select(
    port: _Port,
    slot: Annotated[str | None, typer.Argument(help="Name of the slot.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="Boot with the initial adapter.")] = False,
) -> None:
    """Choose the adapter that the device loads at boot."""
    if (slot is None) != none:
        raise typer.BadParameter("name a slot, or say --none")
    with open_device(port) as device:
        device.select_slot(slot)
    say(f"{slot or 'the initial adapter'}: loaded at boot on {device.info.name} ({device.info.board})")
