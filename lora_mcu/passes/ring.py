# SPDX-License-Identifier: Apache-2.0
"""Size of the receive ring: what the line delivers while the core computes."""

from __future__ import annotations

from lora_mcu.info import ModelInfo

SHARE = 32  # of SRAM: more than 1/32 is not spent on the ring beyond its smallest size
_FRAME = 4 + 4 + 2  # header, checksum, the COBS code and the 00 of an empty frame


def _frame_bytes(payload: int) -> int:
    """Bytes on the line of a frame, at most: COBS adds one in 254."""
    return payload + _FRAME + (payload + 8) // 254


def sample_line_bytes(info: ModelInfo, max_payload: int, tag: int = 0) -> int:
    """Bytes on the line of the requests that bring one sample and its label to TRAIN (docs/protocol.md); ``tag`` is
    what each carries of ``max_payload`` for a device with a key."""
    room = max_payload - tag

    def frame(count: int) -> int:
        return _frame_bytes(count + tag)

    def staged(count: int) -> int:
        whole, rest = divmod(count, room - 4)
        return whole * frame(room) + (frame(rest + 4) if rest else 0)

    label = 4 if info.loss == "cross_entropy" else 0
    total = 0 if label else staged(4 * info.logit_count)
    if label + info.input.nbytes <= room:
        return total + frame(label + info.input.nbytes)
    return total + staged(info.input.nbytes) + frame(label)


def ring_bytes(info: ModelInfo, max_payload: int, smallest: int, sram: int, tag: int = 0) -> int:
    """The smallest power of two that holds the next sample while the core trains on one: then line and core never wait
    for each other longer than the slower of them needs. Between ``smallest`` and a ``SHARE`` of ``sram``, bytes."""
    size = smallest
    while size < sample_line_bytes(info, max_payload, tag) and 2 * size * SHARE <= sram:
        size *= 2
    return size
