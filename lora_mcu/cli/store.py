# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu store info | save | clear`: the samples that a device keeps."""

from __future__ import annotations

from typing import Annotated

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import emit, say
from lora_mcu.cli.device import open_device

_Port = Annotated[str, typer.Option(help=options.PORT_HELP, show_default=False)]


def info(port: _Port, json_: options.Json = False) -> None:
    """Show how many samples are stored, and what a full store does."""
    with open_device(port) as device:
        state, name = device.store_state(), f"{device.info.name} ({device.info.board})"
        capacity = device.info.store_capacity
    if json_:
        emit({**vars(state), "policy": vars(state.policy), "capacity": capacity})
        return
    policy = state.policy.policy + (", balanced" if state.policy.balance else "")
    say(f"{state.stored} of {capacity} samples stored, {state.held_out} held out, policy {policy}, on {name}")


def save(port: _Port) -> None:
    """Keep the stored samples in the device's flash: a reset gives them back. An empty store keeps none."""
    with open_device(port) as device:
        device.save_store()
        say(f"{device.stored} samples saved on {device.info.name} ({device.info.board})")


def clear(port: _Port) -> None:
    """Forget the stored samples; those in flash stay until the next save."""
    with open_device(port) as device:
        device.clear_store()
        say(f"store emptied on {device.info.name} ({device.info.board})")
