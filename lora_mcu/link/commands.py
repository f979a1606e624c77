# SPDX-License-Identifier: Apache-2.0
"""One small function a message: packs the request, unpacks the answer (docs/protocol.md)."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

from lora_mcu.errors import DataError, DeviceError
from lora_mcu.info import ModelInfo
from lora_mcu.link.client import Client, Request, unpack_grown
from lora_mcu.link.codes import Message
from lora_mcu.session.settings import POLICIES, ROUNDINGS, Settings, StorePolicy, StoreState
from lora_mcu.session.stats import RawStats

_STATS = struct.Struct("<fIIII")
_SETTINGS = struct.Struct("<fffffIII")
_STORE_POLICY = struct.Struct("<III")
_STORE_STATE = struct.Struct("<6I")
_STATISTICS = struct.Struct("<IIIII20s20sIIII32sIQQIIIIBB")
_FIRST_STATISTICS = 144  # bytes that every firmware of this protocol version sends
_MAX_INFO = 1 << 20
_MAX_SLOTS = 1 << 16
_MAX_COUNT = 1 << 26  # elements or bytes: more than any board's memory


@dataclass(frozen=True)
class Statistics:
    """STATISTICS' answer: progress, sums, settings and counters of the device."""

    epochs_left: int  # of the run in progress; 0: none is
    epoch_index: int  # epochs run since configure
    run_position: int  # samples of the current epoch that are done
    run_steps: int
    run_skipped: int
    last_pass: RawStats
    last_epoch: RawStats
    stored: int
    step: int  # executed since configure, load or reset
    total_steps: int  # executed since boot
    batch_fill: int
    settings: Settings
    stack_used: int  # bytes; 0 where unknown
    ticks: int  # free-running since boot
    work_ticks: int  # of the last infer, evaluate, train or stored sample
    frames: int
    bad_frames: int
    repeats: int
    naks: int
    reset_cause: int  # ResetCause
    merged: int  # 1: the weights hold the adapter


def read_info(client: Client) -> ModelInfo:
    """Read the model's description and check that it is the one that HELLO named."""
    size = client.hello.info_bytes
    raw = b""
    while len(raw) < min(size, _MAX_INFO):
        piece = client.request(Message.INFO, struct.pack("<I", len(raw)))
        if not piece:
            break
        raw += piece
    try:
        info = ModelInfo.from_json(raw.decode())
        _check_info(info)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DeviceError("the device's description of its model is broken: rebuild and flash its project") from None
    if (info.model_sha256, info.layout_sha256) != (client.hello.model_sha256, client.hello.layout_sha256):
        raise DeviceError("the device's description names another model than HELLO: rebuild and flash its project")
    return info


def _check_info(info: ModelInfo) -> None:
    """Raise ValueError unless everything that sizes or names something here is what it should be."""
    edges = (info.input, info.output)
    counts = [
        *(n for edge in edges for n in edge.shape),
        *(n for layer in info.layers for n in (layer.m, layer.k, *(layer.kernel or (1,)))),
        *([info.rank] if info.layers else []),
        info.logit_count,
    ]
    texts = (
        info.name,
        info.board,
        info.numerics,
        info.model_sha256,
        info.layout_sha256,
        *info.label_names,
        *(layer.name for layer in info.layers),
    )
    floats = (info.alpha, *(edge.scale for edge in edges if edge.scale is not None))
    fine = (
        all(type(n) is int and 0 < n <= _MAX_COUNT for n in counts)
        and all(isinstance(text, str) for text in texts)
        and all(type(x) in (int, float) and 0 < x < math.inf for x in floats)
        and all(edge.dtype in ("int8", "uint8", "float32", "int32") and type(edge.zero_point) is int for edge in edges)
        and all(edge.nbytes <= _MAX_COUNT for edge in edges)
        and info.loss in ("cross_entropy", "mse")
        and type(info.store_capacity) is int
        and type(info.data_bytes) is int
        and 0 <= info.data_bytes <= _MAX_COUNT
        and type(info.index_rows) is int
        and type(info.state_bytes) is int
        and 0 <= info.state_bytes <= _MAX_COUNT
        and type(info.rslora) is bool
        and type(info.cached) is bool
        and info.parameters <= _MAX_COUNT
    )
    if not fine:
        raise ValueError("a field has a wrong type or is out of range")


def statistics(client: Client) -> Statistics:
    """Read progress, sums, settings and counters; also while a run is in progress."""
    fields = unpack_grown(_STATISTICS, Message.STATISTICS, client.request(Message.STATISTICS), _FIRST_STATISTICS)
    values = [
        *fields[:5],
        RawStats(*_STATS.unpack(fields[5])),
        RawStats(*_STATS.unpack(fields[6])),
        *fields[7:11],
        _settings(fields[11]),
        *fields[12:],
    ]
    result = Statistics(**dict(zip((f.name for f in dataclass_fields(Statistics)), values, strict=True)))
    client.total_steps = result.total_steps
    return result


def reboot(client: Client) -> None:
    """Reset the part. The answer may be cut off by the reset itself."""
    client.request(Message.REBOOT)


def configure(client: Client, settings: Settings) -> None:
    """Set all settings of training."""
    payload = _SETTINGS.pack(
        settings.lr,
        settings.lr_b_ratio,
        settings.momentum,
        settings.weight_decay,
        settings.clip_norm,
        settings.batch_size,
        settings.seed,
        ROUNDINGS.index(settings.rounding),
    )
    client.request(Message.CONFIGURE, payload)


def pass_begin(client: Client) -> None:
    """Open a streamed training pass."""
    client.request(Message.PASS_BEGIN)


def pass_end(client: Client) -> RawStats:
    """Flush a partial batch and return the pass's sums."""
    raw = client.request(Message.PASS_END)
    steps, *stats = _unpack(struct.Struct("<I" + _STATS.format[1:]), Message.PASS_END, raw)
    client.total_steps = steps
    return RawStats(*stats)


def evaluate_begin(client: Client) -> None:
    """Clear the sums of evaluation."""
    client.request(Message.EVALUATE_BEGIN)


def evaluate_end(client: Client) -> RawStats:
    """Return the sums of evaluation."""
    return RawStats(*_unpack(_STATS, Message.EVALUATE_END, client.request(Message.EVALUATE_END)))


def note_steps(client: Client, fields: bytes) -> None:
    """Remember the step count that TRAIN's answer carries, so that a reset can be reported in steps."""
    if len(fields) == 4:
        client.total_steps = int.from_bytes(fields, "little")


def sample_requests(
    client: Client, message: Message, sample: bytes, label: bytes, inline_label: bool
) -> Iterator[Request]:
    """Yield the requests that bring one sample and end in TRAIN, STORE, EVALUATE, INFER or ADVANCE.

    A label that does not go with the message is a target: it is staged first. A sample that does not fit into the
    message's payload is staged in pieces.
    """
    if not inline_label:
        yield from _pieces(client, Message.TARGET_DATA, label)
        label = b""
    if len(label) + len(sample) <= client.max_payload:
        yield message, label + sample
    else:
        yield from _pieces(client, Message.SAMPLE_DATA, sample)
        yield message, label


def sequence_requests(
    client: Client, message: Message, frames: list[bytes], label: bytes, inline_label: bool
) -> Iterator[Request]:
    """Yield the requests that run a streaming model over ``frames``, from the reset state; the last has the label."""
    yield Message.STATE_RESET, b""
    for frame in frames[:-1]:
        yield from sample_requests(client, Message.ADVANCE, frame, b"", True)
    yield from sample_requests(client, message, frames[-1], label, inline_label)


def state_reset(client: Client) -> None:
    """Give a streaming model's state its initial value."""
    client.request(Message.STATE_RESET)


def read_output(client: Client, size: int) -> bytes:
    """Read the last inference's output in pieces."""
    return _read(client, Message.OUTPUT_READ, size)


def stored(client: Client) -> int:
    """Return the number of stored samples."""
    return statistics(client).stored


def store_clear(client: Client) -> None:
    """Empty the store."""
    client.request(Message.STORE_CLEAR)


def store_policy(client: Client, policy: StorePolicy | None = None) -> StoreState:
    """Set what a full store does, or with None only read it."""
    payload = b""
    if policy is not None:
        payload = _STORE_POLICY.pack(POLICIES.index(policy.policy), policy.balance, policy.hold_out)
    kind, balance, hold_out, *counts = _unpack(
        _STORE_STATE, Message.STORE_POLICY, client.request(Message.STORE_POLICY, payload)
    )
    try:
        return StoreState(StorePolicy(POLICIES[kind], bool(balance), hold_out), *counts)
    except (DataError, IndexError):
        raise DeviceError("the device reports a store policy that it cannot have: rebuild the firmware") from None


def store_save(client: Client) -> None:
    """Keep the stored samples in flash, for after a reset."""
    client.request(Message.STORE_SAVE)


def run_epochs(client: Client, epochs: int) -> None:
    """Start epochs over the stored samples; ``statistics`` tells when they are done."""
    client.request(Message.RUN_EPOCHS, struct.pack("<I", epochs))


def run_stop(client: Client) -> None:
    """End a run early; its open batch is dropped."""
    client.request(Message.RUN_STOP)


def adapter_read(client: Client, size: int) -> bytes:
    """Read all factors."""
    return _read(client, Message.ADAPTER_READ, size)


def adapter_write(client: Client, info: ModelInfo, factors: bytes) -> None:
    """Replace all factors, whole or not at all."""
    identity = bytes.fromhex(info.model_sha256) + bytes.fromhex(info.layout_sha256)
    client.request(Message.ADAPTER_BEGIN, identity + struct.pack("<I", len(factors)))
    client.pipeline(_pieces(client, Message.ADAPTER_DATA, factors))
    client.request(Message.ADAPTER_COMMIT, struct.pack("<I", zlib.crc32(factors)))


def adapter_reset(client: Client) -> None:
    """Restore the initial A and B = 0."""
    client.request(Message.ADAPTER_RESET)


def merge(client: Client) -> None:
    """Add the adapter into weights that stand in SRAM."""
    client.request(Message.MERGE)


def unmerge(client: Client) -> None:
    """Take it out of them again."""
    client.request(Message.UNMERGE)


@dataclass(frozen=True)
class Slot:
    """An adapter in the device's store; it can be loaded where both flags are set."""

    name: str
    crc32: int  # of its factors
    right_model: bool
    right_layout: bool


@dataclass(frozen=True)
class Slots:
    """The device's adapter store: ``default`` is loaded at boot, ``capacity`` adapters of this model fit in all."""

    default: str | None
    capacity: int
    slots: tuple[Slot, ...]


def slot_name(name: str) -> bytes:
    """Return a slot's name as the protocol has it. Raises DataError unless it is 1 to 15 printable ASCII characters."""
    if not (1 <= len(name) <= 15 and all("!" <= c <= "~" for c in name)):
        raise DataError(f"slot {name!r}: a name has 1 to 15 printable ASCII characters and no space")
    return name.encode().ljust(16, b"\0")


def slot_save(client: Client, name: str) -> None:
    """Save the factors in use."""
    client.request(Message.SLOT_SAVE, slot_name(name))


def slot_load(client: Client, name: str) -> None:
    """Replace the factors in use by a slot's."""
    client.request(Message.SLOT_LOAD, slot_name(name))


def slot_delete(client: Client, name: str) -> None:
    """Delete a slot."""
    client.request(Message.SLOT_DELETE, slot_name(name))


def slot_default(client: Client, name: str | None) -> None:
    """Choose the slot that is loaded at boot; None: the initial adapter."""
    client.request(Message.SLOT_DEFAULT, bytes(16) if name is None else slot_name(name))


def slots(client: Client) -> Slots:
    """List the store."""
    head, entry = struct.Struct("<16sI"), struct.Struct("<16sIB")
    found: list[Slot] = []
    while True:
        fields = client.request(Message.SLOT_LIST, struct.pack("<I", len(found)))
        if len(fields) < head.size or (len(fields) - head.size) % entry.size or len(found) > _MAX_SLOTS:
            raise DeviceError(f"SLOT_LIST's answer has {len(fields)} bytes: rebuild the firmware")
        default, capacity = head.unpack(fields[: head.size])
        more = [Slot(_text(name), crc, bool(flags & 1), bool(flags & 2))
                for name, crc, flags in entry.iter_unpack(fields[head.size :])]  # fmt: skip
        found += more
        if not more:
            return Slots(_text(default) or None, capacity, tuple(found))


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode("ascii", "replace")


def _settings(raw: bytes) -> Settings:
    lr, ratio, momentum, decay, clip, batch, seed, rounding = _SETTINGS.unpack(raw)
    try:
        return Settings(lr, ratio, momentum, decay, clip, batch, ROUNDINGS[rounding], seed)
    except (DataError, IndexError):
        raise DeviceError("the device reports settings that it cannot have: rebuild and flash its project") from None


def _unpack(layout: struct.Struct, message: Message, fields: bytes) -> tuple[Any, ...]:
    if len(fields) != layout.size:
        raise DeviceError(
            f"{message.name}'s answer has {len(fields)} bytes instead of {layout.size}: rebuild the firmware"
        )
    return layout.unpack(fields)


def _pieces(client: Client, message: Message, content: bytes) -> Iterator[Request]:
    size = client.max_payload - 4
    for offset in range(0, len(content), size):
        yield message, struct.pack("<I", offset) + content[offset : offset + size]


def _read(client: Client, message: Message, size: int) -> bytes:
    content = b""
    while len(content) < size:
        wanted = min(size - len(content), client.hello.max_payload - 1)
        piece = client.request(message, struct.pack("<IH", len(content), wanted))
        if len(piece) != wanted:
            raise DeviceError(
                f"{message.name}'s answer has {len(piece)} bytes instead of {wanted}: rebuild the firmware"
            )
        content += piece
    return content
