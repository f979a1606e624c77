# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu monitor`: the frames on a line in words, live or from a trace."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import say


def monitor(
    trace_file: Annotated[
        Path | None, typer.Argument(help="A trace that `--trace` wrote; prints it.", show_default=False)
    ] = None,
    port: options.Port = None,
    trace: Annotated[Path | None, typer.Option(help="With --port: write a trace too.", show_default=False)] = None,
) -> None:
    """Print the frames between host and device: of a trace, or live.

    With --port it opens the device's port and prints the URL of a socket that takes its place: give that URL to the
    other command (`lora-mcu train ... --port socket://127.0.0.1:N`). Ctrl-C ends it.
    """
    from lora_mcu.link.trace import read_trace, words

    if (trace_file is None) == (port is None):
        raise typer.BadParameter("name a trace file, or a --port to listen at")
    if trace_file is not None:
        for line in words(read_trace(trace_file)):
            say(line)
    elif port is not None:
        _pass_through(port, trace)


def _pass_through(port: str, trace: Path | None) -> None:
    from lora_mcu.link.trace import Piece, Traced, Words
    from lora_mcu.link.transport import SerialTransport, Transport

    device: Transport = SerialTransport(port)
    if trace is not None:
        device = Traced(device, trace)
    server = socket.create_server(("127.0.0.1", 0))
    print(f"socket://127.0.0.1:{server.getsockname()[1]}", flush=True)
    words, start, lock = Words(), time.monotonic(), threading.Lock()

    def show(to_device: bool, data: bytes) -> None:
        with lock:
            for line in words.lines(Piece(time.monotonic() - start, to_device, data)):
                print(line, flush=True)

    peers: list[socket.socket] = []

    def from_host() -> None:
        while True:
            peer, _ = server.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peers[:] = [peer]
            try:
                while data := peer.recv(4096):
                    show(True, data)
                    device.write(data)
            except OSError:
                pass
            peers.clear()

    threading.Thread(target=from_host, daemon=True).start()
    try:
        while True:
            data = device.read()
            if data:
                show(False, data)
                for peer in list(peers):
                    _send(peer, data)
    except KeyboardInterrupt:
        return
    finally:
        server.close()
        device.close()


def _send(peer: socket.socket, data: bytes) -> None:
    try:
        peer.sendall(data)
    except OSError:
        return  # the other command has ended
