# SPDX-License-Identifier: Apache-2.0
"""How busy line and core are while samples are streamed: benchmarks/link.json, and the table of docs/protocol.md.

    python benchmarks/link.py            # prints the table
    python benchmarks/link.py --check    # exits with 1 unless the busier of the two is busy for 95 % of the time
    python benchmarks/link.py --measure  # counts again what the protocol costs the core (QEMU), writes link.json

Both ends are real: the firmware's protocol, built for this computer, and the host's client. Between them time is
virtual: a byte takes ten bits on the line in each direction, training on a sample takes the core the executed
instructions of benchmarks/results.json at one a cycle, receiving and answering those of link.json, and while the core
computes, bytes go into the receive ring.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import serial
from rich.console import Console
from rich.table import Table

import lora_mcu
from lora_mcu import boards
from lora_mcu.emulators import create
from lora_mcu.link import client as link_client
from lora_mcu.link.codes import CONFIG, RESPONSE, Message
from lora_mcu.link.frames import Decoder
from lora_mcu.passes.ring import ring_bytes
from lora_mcu.session.device import Device

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.link.fake_device import FakeDevice, Model

HERE = Path(__file__).resolve().parent
RESULTS, COSTS = HERE / "results.json", HERE / "link.json"
BAUDS = (115_200, 921_600, 2_000_000)
# Bytes of a sample; the autoencoder's target is its input again, as float32.
INPUTS = {"HAR demo": 768, "MLPerf Tiny KWS": 490, "MLPerf Tiny AD": 640, "MLP 128-48-32-10": 128}
TARGETS = {"MLPerf Tiny AD": 640}
TARGET = 0.95
BOARD = "netduinoplus2"
HOST_SECONDS = 0.001  # until the host has seen an answer and its next bytes are on the wire: a frame of USB


@dataclass(frozen=True)
class Costs:
    """Executed instructions of the protocol on the device."""

    byte: float  # received: interrupt, ring, decoder, checksum
    frame: float  # dispatch, answer, checksum of the answer


class VirtualLine:
    """A Transport with the firmware at its other end, in virtual time (seconds)."""

    own_baud = 115_200

    def __init__(self, model: Model, baud: int, clock_hz: int, request_cycles: float, costs: Costs) -> None:
        self.device = FakeDevice(model)
        self.now = self.out_free = self.core_free = 0.0
        self._byte = 10 / baud
        self._clock, self._request, self._costs = clock_hz, request_cycles, costs
        self._ring_bytes = model.rx_ring
        self._wire: deque[tuple[float, int]] = deque()  # bytes on their way to the device, with their times of arrival
        self._ring: deque[int] = deque()
        self._back: deque[tuple[float, int]] = deque()  # to the host
        self.lost = 0
        self.line_seconds_used = self.core_seconds_used = 0.0

    def write(self, data: bytes) -> None:
        start = max(self.out_free, self.now)
        for i, byte in enumerate(data, 1):
            self._wire.append((start + i * self._byte, byte))
        self.out_free = start + len(data) * self._byte
        self.line_seconds_used += len(data) * self._byte

    def read(self) -> bytes:
        """What has reached the host; waits for the next byte, at most 20 ms."""
        limit = self.now + 0.02
        while not self._back or self._back[0][0] > limit:
            if not self._step(limit):
                break
        if not self._back or self._back[0][0] > limit:
            self.now = limit
            return b""
        arrived = bytearray()
        # the host wakes up when the first frame is whole: at a zero byte
        while self._back:
            at, byte = self._back.popleft()
            self.now = max(self.now, at)
            arrived.append(byte)
            if byte == 0:
                break
        return bytes(arrived)

    def _arrive(self, until: float) -> None:
        while self._wire and self._wire[0][0] <= until:
            _, byte = self._wire.popleft()
            if len(self._ring) < self._ring_bytes:
                self._ring.append(byte)
            else:
                self.lost += 1

    def _step(self, limit: float) -> bool:
        """The core takes one byte from the ring; False: none comes before ``limit``."""
        self._arrive(self.core_free)
        if not self._ring:
            if not self._wire or self._wire[0][0] > limit:
                return False
            self.core_free = max(self.core_free, self._wire[0][0])
            self._arrive(self.core_free)
        self._spend(self._costs.byte)
        self.device.write(bytes([self._ring.popleft()]))
        answer = self.device.read()
        if answer:
            trained = any(frame.type == Message.TRAIN | RESPONSE for frame in Decoder().feed(answer))
            self._spend(self._costs.frame + (self._request if trained else 0.0))
            for byte in answer:
                self.core_free += self._byte
                self._back.append((self.core_free + HOST_SECONDS, byte))
        return True

    def _spend(self, cycles: float) -> None:
        self.core_free += cycles / self._clock
        self.core_seconds_used += cycles / self._clock

    def line_seconds(self, count: int) -> float:
        return count * self._byte

    def set_baud(self, baud: int) -> None:
        pass

    def close(self) -> None:
        pass


def model_of(name: str, window: int, ring: int | None) -> Model:
    """The model's samples and labels; a ring of the size that the compiler gives it on a board of 128 KB."""
    outputs = TARGETS.get(name, 6)
    model = Model(INPUTS[name], outputs, "mse" if name in TARGETS else "cross_entropy", capacity=1, window=window)
    smallest = CONFIG["RX_RING_BYTES"]
    return replace(model, rx_ring=ring or ring_bytes(model.info, CONFIG["MAX_PAYLOAD"], smallest, 0x20000))


def stream(model: Model, cycles: float, baud: int, clock_hz: int, costs: Costs, samples: int) -> dict[str, Any]:
    """Stream samples; returns the shares of time in which line and core are busy, and bytes lost to a full ring."""
    line = VirtualLine(model, baud, clock_hz, cycles, costs)
    x = np.zeros((samples, model.inputs), np.int8)
    labels = np.zeros((samples, model.outputs), np.float32) if model.loss == "mse" else np.zeros(samples, np.int64)
    real = link_client.time
    link_client.time = SimpleNamespace(monotonic=lambda: line.now, sleep=lambda _: None)  # type: ignore[assignment]
    try:
        device = Device(line, timeout=1000.0)
        start, line.line_seconds_used, line.core_seconds_used = line.now, 0.0, 0.0
        line.core_free = line.out_free = line.now
        device.train(x, labels)
        spent = line.now - start
    finally:
        link_client.time = real
    return {"ring": model.rx_ring, "line": line.line_seconds_used / spent, "core": line.core_seconds_used / spent,
            "lost": line.lost, "samples_per_second": samples / spent}  # fmt: skip


def rows(samples: int, window: int, ring: int | None) -> list[dict[str, Any]]:
    results, costs = json.loads(RESULTS.read_text()), Costs(**json.loads(COSTS.read_text())["instructions"])
    out = []
    for measured in results["models"]:
        name, cycles = measured["name"], measured["step_instructions_per_sample_batch8"]
        for baud in BAUDS:
            model = model_of(name, window, ring)
            seen = stream(model, cycles, baud, results["clock_hz"], costs, samples)
            out.append({"model": name, "baud": baud, **seen})
    return out


# Of the interrupt, beside lmcu_ring_put: entry and exit of a Cortex-M4 (12 cycles each, technical reference manual),
# the handler's reads of status and data and its tests.
_INTERRUPT = 24 + 12


def measure() -> None:
    """Count the protocol's instructions on the emulated Cortex-M4F; writes link.json."""
    program = lora_mcu.compile(HERE.parent / "examples" / "har" / "har.tflite", board=BOARD, adapt="none")
    with tempfile.TemporaryDirectory(prefix="lora_mcu-link-") as temporary:
        folder = Path(temporary) / "project"
        program.write(folder)
        (folder / "src" / "runtime" / "main.c").write_bytes((HERE / "link_main.c").read_bytes())
        image = lora_mcu.build(folder).elf
        emulator = create(boards.load(BOARD), icount=True)
        try:
            seen = _listen(emulator.start(image))
        finally:
            emulator.stop()
    per_tick = emulator.instructions_per_tick or 1.0
    (_, short, long), (_, short_ticks, long_ticks) = seen["bytes"], seen["ticks"]
    slope = (long_ticks - short_ticks) * per_tick / (long - short)
    byte = slope + seen["ring"][0] * per_tick / 1000 + _INTERRUPT
    frame = short_ticks * per_tick - slope * short
    COSTS.write_text(json.dumps({"instructions": {"byte": round(byte, 1), "frame": round(frame)}}) + "\n")


def _listen(url: str) -> dict[str, list[int]]:
    """What link_main.c prints, name -> values; answers of the protocol between the lines are skipped."""
    seen: dict[str, list[int]] = {}
    pending, deadline = b"", time.monotonic() + 60
    with serial.serial_for_url(url, timeout=1) as port:
        while time.monotonic() < deadline:
            if not pending:
                port.write(b"g")
            pending += port.read(port.in_waiting or 1)
            *lines, pending = pending.split(b"\n")
            for line in lines:
                name, _, value = line.partition(b" ")
                if name.isalpha() and value.isdigit():
                    seen.setdefault(name.decode(), []).append(int(value))
            if "end" in seen:
                return seen
    raise SystemExit(f"link_main.c did not finish; it said {seen}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where the bottleneck is busy for less than 95 %%")
    parser.add_argument("--measure", action="store_true", help="count the protocol's instructions again (QEMU)")
    parser.add_argument("--samples", type=int, default=300, help="streamed for each figure")
    parser.add_argument("--window", type=int, default=CONFIG["WINDOW"])
    parser.add_argument("--ring", type=int, help="bytes; without it the compiler's choice")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
    found = rows(arguments.samples, arguments.window, arguments.ring)
    table = Table(title=f"streamed training, window {arguments.window}")
    for column in ("model", "ring", "baud", "line busy", "core busy", "samples a second", "bytes lost"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for r in found:
        shares = (f"{100 * r['line']:.1f} %", f"{100 * r['core']:.1f} %")
        table.add_row(r["model"], f"{r['ring']:,}", f"{r['baud']:,}", *shares, f"{r['samples_per_second']:.1f}",
                      str(r["lost"]))  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    slow = [r for r in found if max(r["line"], r["core"]) < TARGET or r["lost"]]
    for r in slow:
        print(f"{r['model']} at {r['baud']} baud: line and core both busy for less than {TARGET:.0%}, or bytes lost")
    return 1 if arguments.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
