# SPDX-License-Identifier: Apache-2.0
"""A device at the other end of a line, as a Learner."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike

from lora_mcu.errors import DeviceError
from lora_mcu.info import ModelInfo
from lora_mcu.link import commands
from lora_mcu.link.auth import read_key
from lora_mcu.link.client import RETRIES, TIMEOUT, Client, DeviceResetError, Hello, NoAnswerError, Request, StatusError
from lora_mcu.link.codes import Message, Status
from lora_mcu.link.commands import Slots, Statistics
from lora_mcu.link.trace import Traced
from lora_mcu.link.transport import SerialTransport, Transport
from lora_mcu.session.learner import Learner, Pair, SampleProgress, counted
from lora_mcu.session.settings import Settings, StorePolicy, StoreState
from lora_mcu.session.stats import RawStats, TrainStats

_POLL_SECONDS = (0.002, 0.25)  # between two looks at a run: grows with the time it takes


class Device(Learner):
    """A device that answers at ``url``: a serial port, a pty's path, or a pyserial URL such as ``socket://host:port``.

    ``timeout`` is the seconds until a request is sent again (doubled each time, to at most eightfold), ``retries`` how
    often. ``baud`` asks for another speed of the line for this session: ``baud_changed`` is False where it did not work
    and both sides are back at the device's own. ``trace`` names a new file for all that goes over the line
    (link/trace.py). ``key`` is the file of the key that the device asks for, or its 32 bytes.
    Raises DeviceError when the port cannot be opened, nothing answers, the protocol versions or the keys differ. Use it
    in ``with``, or ``close()`` it.
    """

    def __init__(
        self, url: str | Transport, *, timeout: float = TIMEOUT, retries: int = RETRIES, baud: int | None = None,
        trace: str | Path | None = None, key: str | Path | bytes | None = None,
    ) -> None:  # fmt: skip
        secret = key if key is None or isinstance(key, bytes) else read_key(key)
        self._transport = SerialTransport(url) if isinstance(url, str) else url
        try:
            if trace is not None:
                self._transport = Traced(self._transport, trace)
            self._client = Client(
                self._transport,
                url if isinstance(url, str) else "the line",
                timeout=timeout,
                retries=retries,
                key=secret,
            )
            self._client.total_steps = self._client.open().total_steps
            self.baud_changed = baud is None or self._change_baud(baud)
            self._info = commands.read_info(self._client)
        except BaseException:
            self._transport.close()
            raise

    def _change_baud(self, baud: int) -> bool:
        try:
            return self._client.change_baud(baud)
        except StatusError:
            raise DeviceError(
                f"the device's port cannot have {baud} baud: ask for another speed, or for none (its own is"
                f" {self._transport.own_baud})"
            ) from None

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the port; the device keeps its adapter and goes on with a run."""
        try:
            with contextlib.suppress(DeviceError):
                self._client.leave_baud()
        finally:
            self._transport.close()

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def hello(self) -> Hello:
        """Identity, limits and clock, as of the session's start."""
        return self._client.hello

    @property
    def resent(self) -> int:
        """Frames that had to be sent again in this session's lifetime."""
        return self._client.resent

    def statistics(self) -> Statistics:
        """Progress, sums, settings and counters of the device."""
        return commands.statistics(self._client)

    def stop(self) -> None:
        """End a run that another session left going; its open batch is dropped."""
        commands.run_stop(self._client)

    def await_run(self) -> Statistics:
        """Wait until the run that another host started is done; returns what the device says then."""
        start = time.monotonic()
        while (seen := commands.statistics(self._client)).epochs_left:
            shortest, longest = _POLL_SECONDS
            time.sleep(min(shortest + (time.monotonic() - start) / 10, longest))
        return seen

    def finish_pass(self, x: ArrayLike, labels: ArrayLike, *, progress: SampleProgress | None = None) -> TrainStats:
        """Train on the rest of a streamed pass that another host began, and end it; without samples only end it.

        The stats are those of the whole pass.
        """
        pairs = self._pairs(x, labels) if len(np.asarray(x)) else []
        raw = self._rest_of_pass(counted(pairs, progress))
        return self._train_stats(raw, raw.steps, raw.skipped)

    def reboot(self) -> None:
        """Reset the device and open a new session: the default slot's adapter or the initial one, the saved samples."""
        with contextlib.suppress(NoAnswerError, DeviceResetError):
            commands.reboot(self._client)
        self._client.expect_reset()

    # ---- the adapter store ----

    def save_slot(self, name: str) -> None:
        """Save the adapter in use under a name in the device's flash, wholly or not at all, through a power cut too."""
        with self._store():
            commands.slot_save(self._client, name)

    def load_slot(self, name: str) -> None:
        """Replace the adapter in use by a saved one; zeroes momentum and step."""
        with self._store(name):
            commands.slot_load(self._client, name)

    def delete_slot(self, name: str) -> None:
        """Delete a saved adapter; a default that is deleted is none."""
        with self._store(name):
            commands.slot_delete(self._client, name)

    def select_slot(self, name: str | None) -> None:
        """Choose the saved adapter that is loaded at boot; None: the initial one."""
        with self._store(name):
            commands.slot_default(self._client, name)

    def slots(self) -> Slots:
        """List the saved adapters. Raises DeviceError, as all of these, where the board has no store."""
        with self._store():
            return commands.slots(self._client)

    def save_store(self) -> None:
        """Keep the stored samples in the device's flash: a reset gives them back, with the store's policy.

        Whole or not at all, through a power cut too; an empty store keeps none. Raises DeviceError where the board has
        no flash driver, or no room for them beside the saved adapters.
        """
        try:
            commands.store_save(self._client)
        except StatusError as error:
            board, count = self._info.board, self.stored
            if error.status == Status.UNSUPPORTED:
                raise DeviceError(f"{board} has no flash driver for samples: send them again after a reset") from None
            if error.status == Status.NO_SPACE:
                raise DeviceError(
                    f"{count} samples of {self._info.record_bytes} bytes do not fit the flash of {board} beside its"
                    f" {len(self.slots().slots)} adapters: delete a slot, or store fewer samples"
                ) from None
            raise

    @contextlib.contextmanager
    def _store(self, name: str | None = None) -> Iterator[None]:
        """Refusals of the store as a line that says what to do."""
        board = self._info.board
        try:
            yield
        except StatusError as error:
            if error.status == Status.UNSUPPORTED:
                raise DeviceError(
                    f"{board} has no flash driver for adapters: keep them here with `lora-mcu adapter pull` and `push`"
                ) from None
            if error.status == Status.NO_SPACE:
                capacity = commands.slots(self._client).capacity
                raise DeviceError(
                    f"the adapter store of {board} is full: {capacity} of this model fit; delete a slot"
                ) from None
            if error.status == Status.NOT_FOUND:
                there = ", ".join(slot.name for slot in commands.slots(self._client).slots) or "none"
                raise DeviceError(f"no slot {name!r} on {board}; there are: {there}") from None
            raise

    # ---- Learner ----

    def _infer(self, sample: bytes) -> bytes:
        output = self._client.pipeline(commands.sample_requests(self._client, Message.INFER, sample, b"", True))[-1]
        size = self._info.output.nbytes
        return output if len(output) == size else commands.read_output(self._client, size)

    def _reset_state(self) -> None:
        commands.state_reset(self._client)

    def _configure(self, settings: Settings) -> None:
        commands.configure(self._client, settings)

    def _train_pass(self, samples: Iterable[Pair]) -> RawStats:
        commands.pass_begin(self._client)
        return self._rest_of_pass(samples)

    def _rest_of_pass(self, samples: Iterable[Pair]) -> RawStats:
        self._client.pipeline(
            self._requests(Message.TRAIN, samples), lambda fields: commands.note_steps(self._client, fields)
        )
        if self._info.streaming:
            self._reset_state()
        return commands.pass_end(self._client)

    def _evaluate_pass(self, samples: Iterable[Pair]) -> RawStats:
        commands.evaluate_begin(self._client)
        self._client.pipeline(self._requests(Message.EVALUATE, samples))
        if self._info.streaming:
            self._reset_state()
        return commands.evaluate_end(self._client)

    def _requests(self, message: Message, samples: Iterable[Pair]) -> Iterator[Request]:
        inline = self._info.loss == "cross_entropy"
        for sample, label in samples:
            if self._info.streaming:
                yield from commands.sequence_requests(self._client, message, self._frames(sample), label, inline)
            else:
                yield from commands.sample_requests(self._client, message, sample, label, inline)

    def _store_sample(self, sample: bytes, label: bytes) -> None:
        self._client.pipeline(self._requests(Message.STORE, [(sample, label)]))

    def _store_clear(self) -> None:
        commands.store_clear(self._client)

    def _store_state(self) -> StoreState:
        return commands.store_policy(self._client)

    def _store_policy(self, policy: StorePolicy) -> None:
        commands.store_policy(self._client, policy)

    def _run_epoch(self) -> RawStats:
        commands.run_epochs(self._client, 1)
        try:
            return self.await_run().last_epoch
        except (NoAnswerError, DeviceResetError):
            raise  # nobody there to be stopped
        except BaseException:
            with contextlib.suppress(DeviceError):
                commands.run_stop(self._client)
            raise

    def _read_factors(self) -> bytes:
        return commands.adapter_read(self._client, 2 * self._info.parameters)

    def _write_factors(self, factors: bytes) -> None:
        commands.adapter_write(self._client, self._info, factors)

    def _reset(self) -> None:
        commands.adapter_reset(self._client)

    def _merge(self) -> None:
        self._on_weights(commands.merge)

    def _unmerge(self) -> None:
        self._on_weights(commands.unmerge)

    def _on_weights(self, command: Callable[[Client], None]) -> None:
        try:
            command(self._client)
        except StatusError as error:
            raise self._in_flash() if error.status == Status.UNSUPPORTED else error from None
