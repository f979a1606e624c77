# SPDX-License-Identifier: Apache-2.0
"""The firmware's protocol and training core around a small model, as a library in this process, and bad lines to it."""

from __future__ import annotations

import ctypes
import functools
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lora_mcu import resources
from lora_mcu.codegen.platformio import runtime_sources
from lora_mcu.info import LayerInfo, ModelInfo, TensorInfo
from lora_mcu.link.codes import PROTOCOL_VERSION, RESPONSE, Message
from lora_mcu.link.frames import Decoder, Frame, encode
from lora_mcu.link.transport import Transport
from lora_mcu.project import KEY_FILE

HERE = Path(__file__).resolve().parent
RUNTIME = resources.path("firmware") / "runtime"
CONTEXT_BYTES = int(re.search(r"LMCU_CONTEXT_BYTES (\d+)", (RUNTIME / "lmcu_config.h").read_text())[1])  # type: ignore[index]
CORE = ("crc32", "dense", "frame", "guard", "lmcu_math", "lora", "loss", "matvec", "mem", "moments", "patch", "samples",
        "selftest", "sgd", "train")  # fmt: skip
FLAGS = ("-std=gnu99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")


@dataclass(frozen=True)
class Model:
    """What the library is built with."""

    inputs: int = 4
    outputs: int = 3
    loss: str = "cross_entropy"
    capacity: int = 40
    window: int = 1
    rx_ring: int = 2048
    key: bytes | None = None  # that it asks for
    state: int = 0  # bytes that a streaming model keeps

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            name="fake",
            board="native",
            numerics="f32",
            loss=self.loss,
            model_sha256="aa" * 32,
            layout_sha256="bb" * 32,
            input=TensorInfo((self.inputs,), "int8", 0.0625, 0),
            output=TensorInfo((self.outputs,), "int8", 0.05, 0),
            logit_count=self.outputs,
            rank=2,
            alpha=4.0,
            rslora=False,
            layers=(LayerInfo("dense", self.outputs, self.inputs, None),),
            store_capacity=self.capacity,
        )


SMALL = Model()
WIDE = Model(window=4)
LARGE = Model(inputs=1500, outputs=1200, loss="mse", capacity=3)


def prepare(model: Model, folder: Path) -> list[str]:
    """Copy the runtime into ``folder`` with the model's window; return the arguments that compile it with the fake."""
    runtime = folder / "runtime"
    shutil.copytree(RUNTIME, runtime)
    config = runtime / "lmcu_config.h"
    text = re.sub(r"(#define LMCU_WINDOW) \d+", rf"\1 {model.window}", config.read_text())
    text = re.sub(r"(#define LMCU_RX_RING_BYTES) \d+", rf"\1 {model.rx_ring}", text)
    text = re.sub(r"(#define LMCU_KEYED) \d+", rf"\1 {int(model.key is not None)}", text)
    if model.window > 8:
        text = re.sub(r"(#define LMCU_LINK_BYTES) \d+", r"\1 4096", text)
    config.write_text(text)
    (folder / "fake_info.h").write_text(f"#define FAKE_INFO {json.dumps(model.info.to_json())}\n")
    files = runtime_sources(RUNTIME, "", model.key)
    (runtime / KEY_FILE).write_bytes(files.get(f"/{KEY_FILE}", b""))
    keyed = ("auth", "sha256", "key") if model.key else ()
    names = [*CORE, "store", *keyed, *sorted(file.stem for file in runtime.glob("protocol*.c"))]
    sources = [str(runtime / f"{name}.c") for name in names]
    loss = {"cross_entropy": 0, "mse": 1}[model.loss]
    return [
        *FLAGS, f"-I{folder}", f"-I{runtime}", f"-DFAKE_INPUT={model.inputs}", f"-DFAKE_OUTPUT={model.outputs}",
        f"-DFAKE_LOSS={loss}", f"-DFAKE_CAPACITY={model.capacity}",
        f"-DFAKE_STATE={model.state}", *sources, str(HERE / "fake_model.c"),
    ]  # fmt: skip


@functools.cache
def _image(model: Model) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "fake.so"
        arguments = prepare(model, Path(name))
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", *arguments, "-o", str(target)], check=True)
        return target.read_bytes()


def _load(model: Model) -> ctypes.CDLL:
    """A copy of the library with memory of its own."""
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(_image(model))
        file.flush()
        return ctypes.CDLL(file.name)


class FakeDevice:
    """A Transport whose other end is the firmware, just booted."""

    def __init__(self, model: Model = SMALL) -> None:
        self.model = model
        self.library = _load(model)
        self._buffer = ctypes.create_string_buffer(1 << 16)
        self._sequence = 0
        self.boot()

    def boot(self) -> None:
        """Power on: nothing in RAM survives."""
        self.library.fake_boot()
        self.library.fake_take(self._buffer, len(self._buffer))

    def write(self, data: bytes) -> None:
        self.library.fake_feed(data, len(data))

    def read(self) -> bytes:
        self.library.fake_poll(200)
        count = self.library.fake_take(self._buffer, len(self._buffer))
        return ctypes.string_at(self._buffer, count)

    def line_seconds(self, count: int) -> float:
        return 0.0

    own_baud = 115200

    def set_baud(self, baud: int) -> None:
        pass

    def close(self) -> None:
        pass

    def state(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Context, factors, store and input: what a refused request must not change."""
        info = self.model.info
        record = info.record_bytes * self.model.capacity
        context = bytes((ctypes.c_uint8 * CONTEXT_BYTES).in_dll(self.library, "lmcu_context"))
        factors = bytes((ctypes.c_uint8 * (2 * info.parameters)).in_dll(self.library, "fake_factors"))
        store = bytes((ctypes.c_uint8 * record).in_dll(self.library, "fake_store"))
        self.library.fake_input.restype = ctypes.POINTER(ctypes.c_uint8)
        return context, factors, store, bytes(self.library.fake_input()[: self.model.inputs])

    # ---- raw frames ----

    def exchange(self, line: bytes) -> list[Frame]:
        """Send bytes; return the frames that come back."""
        self.write(line)
        return list(Decoder().feed(self.read()))

    def ask(self, message: int, sequence: int, payload: bytes = b"", version: int = PROTOCOL_VERSION) -> Frame:
        """Send one frame; return its one answer."""
        (answer,) = self.exchange(encode(Frame(version, message, sequence, payload)))
        assert (answer.type, answer.sequence) == (message | RESPONSE, sequence)
        return answer

    def hello(self, nonce: int = 1) -> Frame:
        self._sequence = 0
        return self.ask(Message.HELLO, 0, nonce.to_bytes(4, "little"))

    def run(self, message: int, payload: bytes = b"") -> Frame:
        """Ask with the next sequence after ``hello``."""
        self._sequence += 1
        return self.ask(message, self._sequence, payload)


@dataclass
class Faults:
    """How often each thing happens to a piece of data on the line, and how often it did."""

    drop: float = 0.05
    flip: float = 0.05
    duplicate: float = 0.05
    lose_byte: float = 0.03
    noise: float = 0.03
    stall: float = 0.05
    seen: dict[str, int] = field(default_factory=dict)


class FaultyLine:
    """A Transport that drops, flips, duplicates, cuts and stalls what goes through it; bytes never overtake."""

    def __init__(self, inner: Transport, seed: int, faults: Faults, longest_stall: int = 400) -> None:
        self._inner = inner
        self._random = random.Random(seed)
        self.faults = faults
        self._out = bytearray()
        self._back = bytearray()
        self._stalled, self._longest_stall = 0, longest_stall

    def write(self, data: bytes) -> None:
        self._out += self._damage(data)

    def read(self) -> bytes:
        if self._stalled:
            self._stalled -= 1
            return b""
        if self._happens("stall"):
            self._stalled = self._random.randint(1, self._longest_stall)
            return b""
        self._inner.write(bytes(self._out))
        self._out.clear()
        data = self._inner.read()
        self._back += self._damage(data) if data else b""
        arrived = bytes(self._back)
        self._back.clear()
        return arrived

    def line_seconds(self, count: int) -> float:
        return 0.0

    own_baud = 115200

    def set_baud(self, baud: int) -> None:
        pass

    def close(self) -> None:
        self._inner.close()

    def _happens(self, fault: str) -> bool:
        happens = self._random.random() < getattr(self.faults, fault)
        if happens:
            self.faults.seen[fault] = self.faults.seen.get(fault, 0) + 1
        return happens

    def _damage(self, data: bytes) -> bytes:
        place: Callable[[], int] = lambda: self._random.randrange(len(data))  # noqa: E731
        if self._happens("drop"):
            return b""
        if self._happens("duplicate"):
            data = data + data
        if self._happens("flip"):
            at = place()
            data = data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1 :]
        if self._happens("lose_byte"):
            at = place()
            data = data[:at] + data[at + 1 :]
        if data and self._happens("noise"):
            at = place()
            data = data[:at] + self._random.randbytes(self._random.randint(1, 30)) + data[at:]
        return data
