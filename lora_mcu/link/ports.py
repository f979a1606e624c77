# SPDX-License-Identifier: Apache-2.0
"""Serial ports of this computer, and the devices that answer HELLO on them."""

from __future__ import annotations

from dataclasses import dataclass

from serial.tools import list_ports

from lora_mcu.errors import DeviceError
from lora_mcu.link import commands
from lora_mcu.link.client import AuthError, Client
from lora_mcu.link.transport import SerialTransport

_TIMEOUT = 0.5
_RETRIES = 2


@dataclass(frozen=True)
class Port:
    """A serial port; ``device`` is the name of the model that runs there, "" where nothing of ours answered."""

    url: str
    description: str
    device: str


def scan() -> list[Port]:
    """Ask every serial port for a device; a port that is busy or silent is listed without one."""
    return [Port(p.device, p.description or "", _ask(p.device)) for p in sorted(list_ports.comports())]


def find_one() -> str:
    """Return the URL of the only device. Raises DeviceError when there is none or more than one."""
    ports = scan()
    found = [port.url for port in ports if port.device]
    if len(found) == 1:
        return found[0]
    if found:
        raise DeviceError(f"{len(found)} devices answer ({', '.join(found)}): choose one with --port")
    asked = ", ".join(port.url for port in ports) or "there are none"
    raise DeviceError(f"no device answers on the serial ports ({asked}): connect and reset it, or give --port")


def _ask(url: str) -> str:
    try:
        transport = SerialTransport(url)
    except DeviceError:
        return ""
    try:
        client = Client(transport, url, timeout=_TIMEOUT, retries=_RETRIES)
        client.open()
        return commands.read_info(client).name
    except AuthError:
        return "asks for its key (--key)"
    except DeviceError:
        return ""
    finally:
        transport.close()
