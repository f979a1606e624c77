# SPDX-License-Identifier: Apache-2.0
"""The twin: the same generated C as the firmware, built for this computer and driven like a device."""

from __future__ import annotations

import ctypes
import tempfile
import weakref
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_mcu.errors import DataError, DeviceError
from lora_mcu.info import ModelInfo
from lora_mcu.session.learner import Learner, Pair
from lora_mcu.session.settings import POLICIES, ROUNDINGS, Settings, StorePolicy, StoreState
from lora_mcu.session.stats import RawStats
from lora_mcu.twin.library import build_library

__all__ = ["Twin"]


class _Settings(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_float) for name in ("lr", "lr_b_ratio", "momentum", "weight_decay", "clip_norm")),
        *((name, ctypes.c_uint32) for name in ("batch_size", "seed", "rounding")),
    )  # lmcu_settings_t


class _Stats(ctypes.Structure):
    _fields_ = (
        ("loss_sum", ctypes.c_float),
        *((name, ctypes.c_uint32) for name in ("samples", "correct", "steps", "skipped")),
    )  # lmcu_stats_t

    def raw(self) -> RawStats:
        return RawStats(self.loss_sum, self.samples, self.correct, self.steps, self.skipped)


class Twin(Learner):
    """A Learner that runs the project's own C in this process: same bytes as the device, no emulator.

    It keeps the board's memory plan, store capacity and limits. Each instance has its own copy of the library, so
    several may be used at once; one instance belongs to one thread.
    """

    def __init__(self, library: Path, info: ModelInfo) -> None:
        self._info = info
        self._lib = ctypes.CDLL(str(library))
        self._run("init")

    @classmethod
    def from_files(cls, files: dict[str, bytes], info: ModelInfo) -> Twin:
        """Build the library from a project's sources ({relative path: content}). ToolError without a C compiler."""
        folder = tempfile.TemporaryDirectory(prefix="lora_mcu-twin-")
        twin = cls(build_library(files, Path(folder.name)), info)
        weakref.finalize(twin, folder.cleanup)
        return twin

    @property
    def info(self) -> ModelInfo:
        return self._info

    def gradients(self, x: ArrayLike, label: ArrayLike) -> dict[str, NDArray[np.float32]]:
        """Gradients of one sample as float32: ``<layer>.lora_A`` [r, K], ``<layer>.lora_B`` [M, r].

        K counts (kh, kw, C). Changes no training state. ``x`` has a sample's shape ([T, *sample] of a streaming model),
        ``label`` is one label.
        """
        self._trainable()
        x, label = np.asarray(x), np.asarray(label)
        if x.shape != self.info.input.shape and not self.info.streaming:
            raise DataError(f"gradients takes one sample of shape {list(self.info.input.shape)}, not {list(x.shape)}")
        ((sample, encoded),) = self._pairs(x[None], label[None])
        flat = np.zeros(self.info.parameters, np.float32)
        self._run("gradient", self._last_frame(sample), encoded, flat.ctypes.data_as(ctypes.c_void_p))
        self._run("state_reset")
        return self._by_layer(flat)

    def _by_layer(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        out, r, at = {}, self.info.rank, 0
        for layer in self.info.layers:
            for key, shape in (("lora_A", (r, layer.k)), ("lora_B", (layer.m, r))):
                size = shape[0] * shape[1]
                out[f"{layer.name}.{key}"] = flat[at : at + size].reshape(shape)
                at += size
        return out

    def _run(self, function: str, *arguments: object) -> None:
        status = getattr(self._lib, f"twin_{function}")(*arguments)
        if status:
            from lora_mcu.link.codes import Status

            if function in ("merge", "unmerge") and status == Status.UNSUPPORTED:
                raise self._in_flash()
            raise DeviceError(f"the twin answered {Status(status).name} to {function}")

    # ---- the primitives of Learner ----

    def _infer(self, sample: bytes) -> bytes:
        output = ctypes.create_string_buffer(self.info.output.nbytes)
        self._run("infer", sample, output)
        return output.raw

    def _reset_state(self) -> None:
        self._run("state_reset")

    def _last_frame(self, sample: bytes) -> bytes:
        """What the label belongs to; the frames before it have advanced the state of a streaming model."""
        if not self.info.streaming:
            return sample
        self._run("state_reset")
        *before, last = self._frames(sample)
        for frame in before:
            self._run("advance", frame)
        return last

    def _configure(self, settings: Settings) -> None:
        values = {**vars(settings), "rounding": ROUNDINGS.index(settings.rounding)}
        self._run("configure", ctypes.byref(_Settings(**values)))

    def _train_pass(self, samples: Iterable[Pair]) -> RawStats:
        self._run("pass_begin")
        for sample, label in samples:
            self._run("train", self._last_frame(sample), label)
        self._run("state_reset")
        stats = _Stats()
        self._run("pass_end", ctypes.byref(stats))
        return stats.raw()

    def _evaluate_pass(self, samples: Iterable[Pair]) -> RawStats:
        stats = _Stats()
        for sample, label in samples:
            self._run("evaluate", self._last_frame(sample), label, ctypes.byref(stats))
        self._run("state_reset")
        return stats.raw()

    def _store_sample(self, sample: bytes, label: bytes) -> None:
        self._run("store", sample, label)

    def _store_clear(self) -> None:
        self._run("store_clear")

    def _store_policy(self, policy: StorePolicy) -> None:
        self._run("store_policy", (ctypes.c_uint32 * 3)(POLICIES.index(policy.policy), policy.balance, policy.hold_out))

    def _store_state(self) -> StoreState:
        found = (ctypes.c_uint32 * 6)()
        self._run("store_state", found)
        kind, balance, hold_out, *counts = found
        return StoreState(StorePolicy(POLICIES[kind], bool(balance), hold_out), *counts)

    def _run_epoch(self) -> RawStats:
        stats = _Stats()
        self._run("run_epoch", ctypes.byref(stats))
        return stats.raw()

    def _read_factors(self) -> bytes:
        output = ctypes.create_string_buffer(2 * self.info.parameters)
        self._run("factors", output)
        return output.raw

    def _write_factors(self, factors: bytes) -> None:
        self._run("load", factors, len(factors), zlib.crc32(factors))

    def _reset(self) -> None:
        self._run("reset")

    def _merge(self) -> None:
        self._run("merge")

    def _unmerge(self) -> None:
        self._run("unmerge")
