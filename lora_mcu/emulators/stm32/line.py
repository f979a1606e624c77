# SPDX-License-Identifier: Apache-2.0
"""The line of an emulated UART: a TCP server with one connection at a time, read by a thread of its own."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

_LOOK_SECONDS = 0.02
_AGAIN_SECONDS = 0.001  # while bytes wait that the core has not taken
_MOST_WAITING = 256  # bytes read ahead; the rest stays in the socket, so none is lost on the way


class Line:
    """``received`` fills by itself; ``poke`` is called from the thread when the core should look."""

    def __init__(self, server: socket.socket, poke: Callable[[], None]) -> None:
        self._server, self._poke = server, poke
        self._peer: socket.socket | None = None
        self._sent = bytearray()
        self._lock = threading.Lock()
        self.received = bytearray()
        self.arrived = threading.Event()
        self.closed = False  # set to True to end the thread

    def start(self) -> None:
        """From here on connections are taken and bytes received."""
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> int | None:
        """The next received byte, or None."""
        with self._lock:
            return self.received.pop(0) if self.received else None

    def send(self, byte: int) -> None:
        with self._lock:
            self._sent.append(byte)

    def flush(self) -> None:
        """Pass on what was sent; without a connection it is gone, as on a line that nobody listens to."""
        with self._lock:
            data, self._sent = bytes(self._sent), bytearray()
        peer = self._peer
        if data and peer is not None:
            try:
                peer.sendall(data)
            except OSError:
                self._hang_up()

    def _run(self) -> None:
        while not self.closed:
            full = len(self.received) >= _MOST_WAITING
            line = self._server if self._peer is None else self._peer
            try:
                wait = _AGAIN_SECONDS if self.received else _LOOK_SECONDS
                ready, _, _ = select.select([] if full else [line], [], [], wait)
                if ready:
                    self._look()
            except (OSError, ValueError):
                self._hang_up()  # the connection ended while the thread waited for it
            self.flush()
            self._poke()
        self._hang_up()

    def _look(self) -> None:
        if self._peer is None:
            self._peer, _ = self._server.accept()
            self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return
        data = self._peer.recv(_MOST_WAITING)
        if data:
            with self._lock:
                self.received += data
            self.arrived.set()
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.close()
