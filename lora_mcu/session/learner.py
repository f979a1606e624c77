# SPDX-License-Identifier: Apache-2.0
"""The one way to train, whether on a device or on its twin: checks on the host, primitives on bytes below."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_mcu.adapters import Adapter
from lora_mcu.errors import DataError, DeviceError, ModelError
from lora_mcu.info import ModelInfo
from lora_mcu.session.data import decode_output, encode_labelled, encode_labels, encode_samples, is_sequences
from lora_mcu.session.guard import Guard
from lora_mcu.session.settings import Settings, StorePolicy, StoreState
from lora_mcu.session.stats import EvalStats, RawStats, TrainStats

Pair = tuple[bytes, bytes]  # one sample's input bytes and label bytes
SampleProgress = Callable[[int], None]
EpochProgress = Callable[[int, TrainStats], None]


class Learner(ABC):
    """A compiled model that infers, trains and hands out its adapter.

    ``x`` is always a batch ``[N, *sample]`` in the model's own dtype; for an int8 or uint8 input float32 is quantized.
    ``labels`` are integers ``[N]``, or targets ``[N, *output]`` for a model trained on the mean squared error. Every
    method raises DataError before anything is sent or changed when data or settings do not fit.

    A streaming model (``info.streaming``) takes frames. ``infer(x [N, *sample])`` runs N frames of one stream, from the
    state as it stands. A labelled sample is a sequence ``x [N, T, *sample]``: it starts from the reset state, T - 1
    frames only advance it, the last one is trained or evaluated; afterwards the state is reset.
    """

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """What the compiled model says about itself."""

    # ---- what a user calls ----

    def infer(self, x: ArrayLike) -> NDArray[Any]:
        """Return the outputs ``[N, *output]`` in the model's own dtype; changes no training state.

        Of sequences ``x [N, T, *sample]`` of a streaming model: ``[N, T, *output]``, each from the reset state.
        """
        info, x = self.info, np.asarray(x)
        if is_sequences(info, x):
            return self._infer_sequences(x)
        outputs = [decode_output(info, self._infer(sample)) for sample in encode_samples(info, x)]
        return np.stack(outputs) if outputs else np.empty((0, *info.output.shape), info.output.dtype)

    def _infer_sequences(self, x: NDArray[Any]) -> NDArray[Any]:
        outputs = []
        encode_samples(self.info, x.reshape(-1, *self.info.input.shape))  # refused as a whole before anything runs
        for sequence in x:
            self.reset_state()
            outputs.append(self.infer(sequence))
        self.reset_state()
        output = self.info.output
        return np.stack(outputs) if outputs else np.empty((0, x.shape[1], *output.shape), output.dtype)

    def reset_state(self) -> None:
        """Give a streaming model's state its initial value. Raises ModelError where the model has no state."""
        if not self.info.streaming:
            raise ModelError(f"model {self.info.name} has no state to reset: it keeps nothing between inferences")
        self._reset_state()

    def configure(
        self,
        *,
        lr: float = 0.01,
        lr_b_ratio: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
        batch_size: int = 8,
        rounding: str = "stochastic",
        seed: int = 0,
    ) -> None:
        """Set all settings of training; keeps factors and stored samples, zeroes momentum, step and open batch."""
        settings = Settings(lr, lr_b_ratio, momentum, weight_decay, clip_norm, batch_size, rounding, seed)
        settings.check_build(self.info)
        self._configure(settings)

    def train(self, x: ArrayLike, labels: ArrayLike, *, progress: SampleProgress | None = None) -> TrainStats:
        """Train one streamed pass over the samples in the order given; a partial last batch makes a step too.

        ``progress`` is called with the number of samples sent so far.
        """
        pairs = self._pairs(x, labels)
        self._trainable()
        raw = self._train_pass(counted(pairs, progress))
        return self._train_stats(raw, raw.steps, raw.skipped)

    def evaluate(self, x: ArrayLike, labels: ArrayLike, *, progress: SampleProgress | None = None) -> EvalStats:
        """Return mean loss and accuracy over the samples; changes no training state."""
        raw = self._evaluate_pass(counted(self._pairs(x, labels), progress))
        return EvalStats(raw.loss(), raw.accuracy(self.info.loss))

    def store(self, x: ArrayLike, labels: ArrayLike, *, progress: SampleProgress | None = None) -> None:
        """Offer samples to the device's store, which keeps what its policy says.

        Raises DataError where it has no room for any sample, or under ``stop`` not for all; then none is stored.
        """
        pairs = self._pairs(x, labels)
        if self.info.streaming:
            raise DataError("sequences of frames are not stored on the device: stream them with train()")
        capacity, state = self.info.store_capacity, self.store_state()
        stored = state.stored
        if not capacity or (state.policy.policy == "stop" and stored + len(pairs) > capacity):
            raise DataError(
                f"{len(pairs)} samples do not fit: the store holds {capacity}, {stored} of them used;"
                " clear_store(), store fewer, choose another store policy, or stream them with train()"
            )
        for sample, label in counted(pairs, progress):
            self._store_sample(sample, label)

    def clear_store(self) -> None:
        """Forget all stored samples."""
        self._store_clear()

    def configure_store(self, *, policy: str = "stop", balance: bool = False, hold_out: int = 0) -> None:
        """Choose what a full store does with the next sample, see :class:`StorePolicy`; keeps what is stored."""
        chosen = StorePolicy(policy, balance, hold_out)
        if balance and self.info.loss != "cross_entropy":
            raise DataError("balance needs class labels; this model is trained on the mean squared error")
        self._store_policy(chosen)

    def store_state(self) -> StoreState:
        """Policy and counts of the store."""
        return self._store_state()

    @property
    def stored(self) -> int:
        """Number of samples in the store."""
        return self.store_state().stored

    def run_epochs(self, n: int, progress: EpochProgress | None = None) -> TrainStats:
        """Train ``n`` epochs over the stored samples, shuffled by the seed.

        ``progress`` is called with the number of epochs done and that epoch's stats. Returns loss and accuracy of the
        last epoch, steps and skipped of all ``n``.
        """
        if n < 1:
            raise DataError(f"run_epochs({n}): at least one epoch must be run")
        self._trainable()
        state = self.store_state()
        if state.stored == state.held_out:
            held = f" but the {state.held_out} that are held out" if state.held_out else ""
            raise DataError(f"no samples are stored{held}: store(x, labels) first")
        steps = skipped = 0
        for epoch in range(1, n + 1):
            raw = self._run_epoch()
            steps, skipped = steps + raw.steps, skipped + raw.skipped
            if progress is not None:
                progress(epoch, self._train_stats(raw, raw.steps, raw.skipped))
        return self._train_stats(raw, steps, skipped)

    def guard(
        self, x: ArrayLike, labels: ArrayLike, *, keep_worse: bool = False, progress: SampleProgress | None = None
    ) -> Guard:
        """Guard training by held-out samples: see :class:`Guard`. Evaluates the adapter in use, and the base, at once.

        with learner.guard(held_out.x, held_out.y) as guard:
            learner.run_epochs(20)
        """
        self._trainable()
        return Guard(self, x, labels, keep_worse, progress)

    def adapter(self) -> Adapter:
        """Return a copy of the factors in use."""
        self._trainable()
        return Adapter.from_factors(self.info, self._read_factors())

    def load(self, adapter: Adapter) -> None:
        """Replace the factors, whole or not at all; zeroes momentum and step, resets a streaming model's state.

        Raises AdapterError if they do not fit.
        """
        self._trainable()
        self._write_factors(adapter.to_factors(self.info))

    def reset(self) -> None:
        """Go back to the base: initial A, B = 0, initial state; keeps settings and stored samples."""
        self._reset()

    def merge(self) -> None:
        """Add the adapter into the weights, W' = W + gamma B A with fresh scales: the numbers of `lora_mcu.merge`.

        After it inference costs what the base costs; training and other adapters are refused until ``unmerge()``.
        Raises DeviceError where the weights stand in flash (compile with ``weights="sram"``), or where the sum does not
        fit the output's scale.
        """
        self._trainable()
        self._merge()

    def unmerge(self) -> None:
        """Give the weights back as the base has them, bit for bit; the adapter is in use beside them again."""
        self._trainable()
        self._unmerge()

    def _in_flash(self) -> DeviceError:
        return DeviceError(
            f"{self.info.name} on {self.info.board} has its weights in flash: compile it with --weights sram"
            " (weights='sram') to merge on the device"
        )

    # ---- what an implementation provides, on bytes that have been checked ----

    @abstractmethod
    def _infer(self, sample: bytes) -> bytes: ...

    @abstractmethod
    def _reset_state(self) -> None:
        """Reset the state of a streaming model."""

    @abstractmethod
    def _configure(self, settings: Settings) -> None: ...

    @abstractmethod
    def _train_pass(self, samples: Iterable[Pair]) -> RawStats: ...

    @abstractmethod
    def _evaluate_pass(self, samples: Iterable[Pair]) -> RawStats: ...

    @abstractmethod
    def _store_sample(self, sample: bytes, label: bytes) -> None: ...

    @abstractmethod
    def _store_clear(self) -> None: ...

    @abstractmethod
    def _store_policy(self, policy: StorePolicy) -> None: ...

    @abstractmethod
    def _store_state(self) -> StoreState: ...

    @abstractmethod
    def _run_epoch(self) -> RawStats:
        """Run one epoch over the stored samples and return its sums."""

    @abstractmethod
    def _read_factors(self) -> bytes:
        """Return all factors: fp16 little-endian, per layer in operator order, A [rank, k] then B [m, rank]."""

    @abstractmethod
    def _write_factors(self, factors: bytes) -> None: ...

    @abstractmethod
    def _reset(self) -> None: ...

    def _merge(self) -> None:
        raise self._in_flash()

    def _unmerge(self) -> None:
        raise self._in_flash()

    # ---- shared checks ----

    def _pairs(self, x: ArrayLike, labels: ArrayLike) -> Sequence[Pair]:
        samples, encoded = encode_labelled(self.info, x), encode_labels(self.info, labels)
        if len(samples) != len(encoded):
            raise DataError(f"x holds {len(samples)} samples but labels holds {len(encoded)}: give one label a sample")
        if not samples:
            raise DataError("x holds no samples")
        return list(zip(samples, encoded, strict=True))

    def _frames(self, sample: bytes) -> list[bytes]:
        """A labelled sample's frames: one, or those of a streaming model's sequence."""
        size = self.info.input.nbytes
        return [sample[i : i + size] for i in range(0, len(sample), size)]

    def _trainable(self) -> None:
        if not self.info.layers:
            raise ModelError(f"model {self.info.name} was compiled without adapted layers: compile it with --adapt all")

    def _train_stats(self, raw: RawStats, steps: int, skipped: int) -> TrainStats:
        return TrainStats(raw.loss(), raw.accuracy(self.info.loss), steps, skipped)


def counted(pairs: Sequence[Pair], progress: SampleProgress | None) -> Iterator[Pair]:
    for done, pair in enumerate(pairs, 1):
        yield pair
        if progress is not None:
            progress(done)
