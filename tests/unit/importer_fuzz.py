# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile .tflite files by the thousand: each must end in a program or in one line, soon, in little memory.

    python tests/unit/importer_fuzz.py --files 100000      # what `make fuzz-importer` runs

Built from models made here and from those under LORA_MCU_MODELS: truncated, with bytes changed, moved and repeated, and
taken apart and put together again with hostile fields (shapes, indices, scales, types, options). File i is the same on
every run: --only I writes it.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance import odd_models, op_cases, stream_models

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 12  # of processor time for one file; the largest real model compiles in 4
MEMORY = 2 << 30  # bytes of address space that a worker may take
_INTS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65535, 65536, 1 << 20, 2**31 - 1, -(2**31))
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-45, 3e38, 1e-30, 0.5)
_VECTORS = ("shape", "shapeSignature", "inputs", "outputs", "scale", "zeroPoint", "intermediates")


def small_bases() -> list[bytes]:
    """Files made without TensorFlow: two models, a streaming one, one of each operator, and the HAR example's."""
    made = [odd_models.odd_classifier(), odd_models.odd_regression(), *(make() for make in stream_models.MADE.values())]
    made += [maker(np.random.default_rng(5)) for maker in op_cases.MAKERS.values()]
    return [*made, (ROOT / "examples/har/har.tflite").read_bytes()]


def bases() -> list[bytes]:
    """``small_bases`` and the real models, the large ones of them less often."""
    folder = os.environ.get("LORA_MCU_MODELS")
    real = [p.read_bytes() for p in sorted(Path(folder).glob("*.tflite"))] if folder else []
    small = small_bases()
    return small + [m for m in real for _ in range(1 + 60_000 // len(m))]


def mutant(files: list[bytes], seed: int) -> bytes:
    """Hostile file number ``seed``: half of them changed in bytes, half in fields."""
    rng = random.Random(seed)
    good = rng.choice(files)
    if rng.random() < 0.5 or len(good) > 200_000:
        return _bytes(rng, good)
    return _fields(rng, good)


def _bytes(rng: random.Random, good: bytes) -> bytes:
    bad = bytearray(good)
    head = min(len(bad), rng.choice((64, 512, len(bad))))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if len(bad) < 9:
            break
        at, what = rng.randrange(min(head, len(bad))), rng.randrange(7)
        if what == 0:
            bad[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            bad[at] = rng.randrange(256)
        elif what == 2:
            bad[at & ~3 : (at & ~3) + 4] = (rng.choice(_INTS) & 0xFFFFFFFF).to_bytes(4, "little")
        elif what == 3:
            del bad[at : at + rng.choice((1, 4, 64))]
        elif what == 4:
            start = rng.randrange(len(bad))
            bad[at:at] = bad[start : start + rng.choice((1, 4, 64))]
        elif what == 5:
            end = len(bad) - rng.randrange(min(len(bad), 2000))
            bad[at : at + 16] = bad[end : end + 16]
        else:
            del bad[rng.randrange(len(bad)) :]
    return bytes(bad)


def _fields(rng: random.Random, good: bytes) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(good, 0))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _spoil(rng, model)
    builder = flatbuffers.Builder(len(good))
    try:
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    except Exception:  # what the schema cannot hold is no file
        return _bytes(rng, good)
    return bytes(builder.Output())


def _spoil(rng: random.Random, model: Any) -> None:
    graph = rng.choice(model.subgraphs)
    places = [graph, *graph.tensors, *graph.operators, *model.operatorCodes]
    places += [t.quantization for t in graph.tensors if t.quantization]
    places += [op.builtinOptions for op in graph.operators if op.builtinOptions]
    place = rng.choice(places)
    what = rng.randrange(12)
    if what == 0 and len(graph.operators) > 1:  # order, repetition, loss
        ops = graph.operators
        rng.choice((rng.shuffle, lambda v: v.append(rng.choice(v)), lambda v: v.pop(rng.randrange(len(v)))))(ops)
        return
    if what == 1:  # contents of a buffer
        buffer = rng.choice(model.buffers)
        if buffer.data is not None and len(buffer.data):
            value = rng.choice((0, 1, 127, 128, 255))
            buffer.data = np.full(rng.choice((len(buffer.data), len(buffer.data) // 2, 1)), value, np.uint8)
        else:
            buffer.offset, buffer.size = rng.choice((2, 100, 1 << 40, 1 << 63)), rng.choice((0, 4, 1 << 40, 1 << 63))
        return
    if what == 2:  # buffers shared
        rng.choice(graph.tensors).buffer = rng.choice(graph.tensors).buffer
        return
    names = [n for n, v in vars(place).items() if isinstance(v, int | float | list | np.ndarray) and n != "data"]
    name = rng.choice(names) if names else ""
    value = getattr(place, name, None)
    if isinstance(value, list | np.ndarray):
        if name in _VECTORS:
            setattr(place, name, _vector(rng, [float(v) if name == "scale" else int(v) for v in value]))
    elif isinstance(value, bool):
        setattr(place, name, not value)
    elif isinstance(value, float):
        setattr(place, name, rng.choice(_FLOATS))
    elif name and name != "builtinOptionsType":
        setattr(place, name, rng.choice((value + 1, value - 1, *_INTS)))


def _vector(rng: random.Random, values: list[Any]) -> list[Any]:
    at = rng.randrange(len(values)) if values else 0
    fresh = rng.choice(_FLOATS if any(isinstance(v, float) for v in values) else (*_INTS, *range(12)))
    how = rng.randrange(4)
    if how == 0 or not values:
        values.insert(at, fresh)
    elif how == 1:
        values.pop(at)
    elif how == 2 and len(values) > 1:
        values[at] = rng.choice(values)
    else:
        values[at] = fresh
    return values


def judge(content: bytes, compiled: bool) -> str:
    """``served``, ``named`` or ``damaged`` (the importer's general line); raises what a user would see raised."""
    import lora_mcu
    from lora_mcu.errors import Error
    from lora_mcu.importer import loads

    try:
        loads(content)
        if compiled:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "hostile.tflite").write_bytes(content)
                lora_mcu.compile(Path(folder) / "hostile.tflite", board="native", adapt="last:1")
    except Error as error:
        line = str(error)
        assert "\n" not in line and len(line) < 3000, f"not one short line: {line[:200]!r}"
        return "damaged" if "truncated or damaged (" in line else "named"
    return "served"


def _expired(*_: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} s of processor time")


def _work(job: tuple[int, int]) -> tuple[collections.Counter[str], list[str], float, int]:
    """Files of a range: how many ended how, what was found, the longest processor time, the process' peak in MB."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, _expired)
    files, ends, found, longest = bases(), collections.Counter[str](), [], 0.0
    for seed in range(*job):
        content = mutant(files, seed)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            ends[judge(content, seed % 40 == 0)] += 1
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            found.append(f"file {seed}: {type(error).__name__} {error} ({Path(frame.filename).name}:{frame.lineno})")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        longest = max(longest, time.process_time() - start)
    return ends, found, longest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _jobs(count: int, size: int = 500) -> Iterator[tuple[int, int]]:
    for first in range(0, count, size):
        yield first, min(first + size, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, metavar="I", help="write file number I to fuzz-I.tflite and judge it")
    arguments = parser.parse_args()
    if arguments.only is not None:
        content = mutant(bases(), arguments.only)
        Path(f"fuzz-{arguments.only}.tflite").write_bytes(content)
        print(judge(content, True))
        return 0
    start, done, longest, peak = time.monotonic(), 0, 0.0, 0
    ends, found = collections.Counter[str](), []
    with multiprocessing.Pool(arguments.processes, maxtasksperchild=20) as pool:
        for part, findings, slowest, megabytes in pool.imap_unordered(_work, _jobs(arguments.files)):
            ends, found = ends + part, found + findings
            longest, peak = max(longest, slowest), max(peak, megabytes)
            done += sum(part.values()) + len(findings)
            for line in findings:
                print(line, flush=True)
            print(f"{done} files, {len(found)} findings", file=sys.stderr, end="\r", flush=True)
    print(
        f"{done:,} files: {ends['served']:,} served, {ends['named']:,} refused by name, {ends['damaged']:,} damaged; "
        f"{len(found)} findings; the longest took {longest:.1f} s, a process at most {peak} MB; "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
