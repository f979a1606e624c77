# SPDX-License-Identifier: Apache-2.0
"""A compiled model in NumPy: forward, backward, training, as a Learner like the twin."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_mcu.info import ModelInfo
from lora_mcu.ir import (
    AssignState,
    AveragePool,
    Binary,
    Conv2D,
    Dense,
    Depthwise,
    Dequantize,
    Embedding,
    LogSoftmax,
    Lookup,
    Matmul,
    MaxPool,
    Mean,
    Op,
    Pad,
    Quantize,
    ReadState,
    Requantize,
    Reshape,
    ResizeBilinear,
    Softmax,
    Take,
    TransposeConv,
)
from lora_mcu.ir.reduce import Reduction
from lora_mcu.ir.shape import Copy
from lora_mcu.passes import blocks
from lora_mcu.program import Program
from lora_mcu.random_bits import STREAM_SHUFFLE, initial_a, rand
from lora_mcu.reference import attention, binary, elementwise, i16, loss, pool, reduce, resize, shape, softmax, weighted
from lora_mcu.reference.lora import Factors
from lora_mcu.reference.ordered import F32, Array
from lora_mcu.reference.update import State, update
from lora_mcu.session.learner import Learner, Pair
from lora_mcu.session.settings import Settings, StorePolicy, StoreState
from lora_mcu.session.stats import RawStats

Floats = NDArray[np.float32]


class Reference(Learner):
    """Takes structure from the compiler (graph, where training ends, the adapter's layout), no derived constant."""

    def __init__(self, program: Program) -> None:
        self._program, self._graph = program, program.graph
        self._settings = Settings()
        self._store: list[Pair] = []
        self._stream: dict[int, Array] = {}
        is_b = np.zeros(self.info.parameters, np.bool_)
        for layer in program.adaptation.layers:
            is_b[layer.b_offset : layer.b_offset + layer.m * self.info.rank] = True
        self._state = State(np.zeros(len(is_b), np.uint16), np.zeros(len(is_b), F32), is_b)
        self._sums = np.zeros(len(is_b), F32)
        self._fill = 0  # samples in the open batch
        self._reset()

    @property
    def info(self) -> ModelInfo:
        return self._program.info

    # ---- forward ----

    def activations(self, sample: ArrayLike) -> dict[int, Array]:
        """Every activation of one sample by tensor id, in the tensors' shapes, the tail included; advances states."""
        entry = self._graph.tensors[self._graph.input]
        values: dict[int, Array] = {i: t.data for i, t in self._graph.tensors.items() if t.data is not None}
        values[self._graph.input] = np.asarray(sample).astype(entry.dtype).reshape(entry.shape)
        values |= self._stream
        for op in (*self._program.split.forward, *self._program.split.tail):
            made = self._forward(op, values)
            for i, value in zip(op.outputs, made if isinstance(made, list) else [made], strict=True):
                values[i] = value.reshape(self._graph.tensors[i].shape)
        self._stream = {i: values[i] for i in self._graph.states}
        return values

    def _forward(self, op: Op, values: dict[int, Array]) -> Array | list[Array]:
        """The output, or the outputs of an operator with several."""
        graph, x = self._graph, values[op.inputs[0]]
        match op:
            case Copy() | Take():
                return shape.forward(op, graph, [values[i] for i in op.inputs])
            case Conv2D() | Dense():
                return weighted.forward(op, graph, x, self._factors_of(op))
            case Depthwise():
                return weighted.depthwise_forward(op, graph, x)
            case AveragePool() | MaxPool():
                return pool.forward(op, graph, x)
            case Mean():
                return pool.mean_forward(op, graph, x)
            case Binary():
                return binary.forward(op, graph, x, values[op.inputs[1]])
            case Lookup():
                return binary.lookup_forward(op, x)
            case Reduction():
                return reduce.forward(op, graph, x)
            case TransposeConv():
                return reduce.transpose_conv_forward(op, graph, x)
            case LogSoftmax():
                return reduce.log_softmax_forward(op, graph, x)
            case Pad():
                return elementwise.pad_forward(op, x)
            case Softmax():
                return softmax.forward(op, graph, x)
            case Quantize():
                return elementwise.quantize_forward(op, graph, x)
            case Dequantize():
                return elementwise.dequantize_forward(op, graph, x)
            case Requantize():
                return elementwise.requantize_forward(op, graph, x)
            case Matmul():
                return attention.matmul_forward(op, graph, x, values[op.inputs[1]])
            case ResizeBilinear():
                return resize.forward(op, x)
            case Embedding():
                return shape.embedding_forward(op, graph, x, values[op.inputs[1]])
            case Reshape() | ReadState() | AssignState():
                return x
        raise NotImplementedError(op.KIND)

    def _factors_of(self, op: Op) -> Factors | i16.Factors | None:
        layer = self._program.adaptation.of(op)
        if layer is None:
            return None
        r, values = self.info.rank, self._state.factors.view(np.float16).astype(F32)
        a, b = slice(layer.a_offset, layer.a_offset + r * layer.k), slice(layer.b_offset, layer.b_offset + r * layer.m)
        gamma = F32(self._program.adaptation.gamma)
        scales = np.broadcast_to(self._graph.tensors[layer.op.weights].scale, (layer.m,))
        if self.info.numerics == "i16":
            halves = self._state.factors.view(np.float16)
            return i16.Factors(
                halves[a].reshape(r, layer.k), halves[b].reshape(layer.m, r),
                self._sums[a].reshape(r, layer.k), self._sums[b].reshape(layer.m, r),
                gamma, self._graph.tensors[op.inputs[0]].s, _limited(gamma, scales),
            )  # fmt: skip
        return Factors(
            values[a].reshape(r, layer.k), values[b].reshape(layer.m, r),
            self._sums[a].reshape(r, layer.k), self._sums[b].reshape(layer.m, r),
            gamma, self._graph.tensors[op.inputs[0]].s, _limited(gamma, scales),
        )  # fmt: skip

    # ---- loss and backward ----

    def _loss(self, values: dict[int, Array], label: bytes) -> tuple[np.float32, bool, Floats]:
        tensor = self._graph.tensors[self._program.split.logits]
        q = values[self._program.split.logits].ravel()
        z = tensor.s * (q.astype(np.int64) - tensor.z).astype(F32)
        if self.info.loss == "cross_entropy" and z.size == 1:
            return loss.binary_cross_entropy(int(q[0]), tensor.z, z[0], int.from_bytes(label, "little"))
        if self.info.loss == "cross_entropy":
            return loss.cross_entropy(q, z, int.from_bytes(label, "little"))
        value, gradient = loss.mean_squared_error(z, np.frombuffer(label, "<f4"))
        return value, False, gradient

    def _backward(self, values: dict[int, Array], logit_gradient: Floats) -> None:
        """Adds to the sums of the open batch. A reshape shares its input's gradient as it shares its memory."""
        roots = {i: i for i in self._graph.tensors}
        for op in self._graph.ops:
            if isinstance(op, Reshape):
                roots[op.output] = roots[op.inputs[0]]
        gradients: dict[int, Floats] = {roots[self._program.split.logits]: logit_gradient.copy()}

        def gradient(tensor: int, wanted: bool = True) -> Floats | None:
            if not wanted:
                return None
            shape = self._graph.tensors[tensor].shape
            flat = gradients.setdefault(roots[tensor], np.zeros(self._graph.tensors[tensor].elements, F32))
            return flat.reshape(shape)

        for step in self._program.backward:
            op, into = step.op, [gradient(i, i in step.into) for i in step.op.data_inputs()]
            if isinstance(op, Copy | Take):
                reached = [gradient(i, roots[i] in gradients) for i in op.outputs]
                shape.backward(op, self._graph, reached, into)
                continue
            g = gradient(op.output)
            assert g is not None
            self._backward_op(op, values, g, into)

    def _backward_op(self, op: Op, values: dict[int, Array], g: Floats, into: list[Floats | None]) -> None:
        graph, x, y, dx = self._graph, values[op.inputs[0]], values[op.output], into[0]
        factors = self._factors_of(op)
        if isinstance(op, Conv2D | Dense) and self.info.numerics == "i16":
            assert not isinstance(factors, Factors)
            shared = op.output in self._program.plan.shared
            weighted.backward_i16(op, graph, x, y, g, factors, dx, shared, self._draw(op))
        elif isinstance(op, Conv2D | Dense):
            assert not isinstance(factors, i16.Factors)
            weighted.backward(op, graph, x, y, g, factors, dx)
        elif isinstance(op, Binary):
            binary.backward(op, graph, (x, values[op.inputs[1]], y), g, into)
        elif isinstance(op, Matmul):
            attention.matmul_backward(op, graph, x, values[op.inputs[1]], y, g, into)
        elif dx is None:
            return
        elif isinstance(op, Softmax):
            attention.softmax_backward(op, graph, y, g, dx)
        elif isinstance(op, Depthwise) and self.info.numerics == "i16":
            weighted.depthwise_backward_i16(op, graph, y, g, dx, self._draw(op))
        elif isinstance(op, Depthwise):
            weighted.depthwise_backward(op, graph, y, g, dx)
        elif isinstance(op, AveragePool | MaxPool):
            pool.backward(op, graph, x, y, g, dx)
        elif isinstance(op, Mean):
            pool.mean_backward(op, graph, y, g, dx)
        elif isinstance(op, Reduction):
            reduce.backward(op, graph, x, y, g, dx)
        elif isinstance(op, TransposeConv):
            reduce.transpose_conv_backward(op, graph, y, g, dx)
        elif isinstance(op, ResizeBilinear):
            resize.backward(op, graph, y, g, dx)
        elif isinstance(op, Pad):
            elementwise.pad_backward(op, g, dx)
        elif isinstance(op, Lookup):
            binary.lookup_backward(op, graph, x, g, dx)
        elif isinstance(op, Requantize):
            elementwise.requantize_backward(op, graph, y, g, dx)
        else:
            raise NotImplementedError(op.KIND)

    def _draw(self, op: Op) -> i16.Draw:
        """The random bits of one operator for the open batch's current sample."""
        program = self._program
        random = blocks.randomness(program.graph, program.backward, program.adaptation, program.plan.shared)
        return i16.Draw(self._settings.seed, self._state.step, random.first[op.index] + self._fill * random.words)

    def gradients(self, x: ArrayLike, label: ArrayLike) -> dict[str, Floats]:
        """As ``Twin.gradients``: one sample, ``<layer>.lora_A`` [r, K] and ``<layer>.lora_B`` [M, r]."""
        ((sample, encoded),) = self._pairs(np.asarray(x)[None], np.asarray(label)[None])
        kept, self._sums, self._fill = self._sums, np.zeros_like(self._sums), 0
        self._sample(sample, encoded, learn=True)
        found: dict[str, Floats] = {}
        for layer in self._program.adaptation.layers:
            factors = self._factors_of(layer.op)
            assert factors is not None
            found |= {f"{layer.name}.lora_A": factors.da.copy(), f"{layer.name}.lora_B": factors.db.copy()}
        self._sums = kept
        self._reset_state()
        return found

    def _sample(self, sample: bytes, label: bytes, learn: bool) -> tuple[np.float32, bool]:
        values = self._last_frame(sample)
        with np.errstate(over="ignore", invalid="ignore"):  # such a step is skipped by the update
            value, correct, gradient = self._loss(values, label)
            if learn:
                self._backward(values, gradient)
        return value, correct

    def _last_frame(self, sample: bytes) -> dict[int, Array]:
        """Activations of a sample; of a streaming model those of its last frame, from the reset state."""
        if self.info.streaming:
            self._reset_state()
        for frame in self._frames(sample):
            values = self.activations(np.frombuffer(frame, self._graph.tensors[self._graph.input].dtype))
        return values

    # ---- the primitives of Learner ----

    def _reset_state(self) -> None:
        self._stream = dict(self._graph.states)

    def _infer(self, sample: bytes) -> bytes:
        values = self.activations(np.frombuffer(sample, self._graph.tensors[self._graph.input].dtype))
        return values[self._graph.output].tobytes()

    def _configure(self, settings: Settings) -> None:
        self._settings = settings
        self._restart()

    def _restart(self) -> None:
        self._state.momentum = np.zeros_like(self._state.momentum)
        self._state.step = self._epoch = 0

    def _train_pass(self, samples: Iterable[Pair]) -> RawStats:
        total, correct, fill, steps, skipped, count = F32(0), 0, 0, 0, 0, 0
        pairs = list(samples)
        for i, (sample, label) in enumerate(pairs):
            if fill == 0:
                self._sums = np.zeros_like(self._sums)
            self._fill = fill
            value, hit = self._sample(sample, label, learn=True)
            total, correct, fill, count = total + value, correct + hit, fill + 1, count + 1
            if fill == self._settings.batch_size or i == len(pairs) - 1:
                done = update(self._state, self._sums, fill, self._settings)
                steps, skipped, fill = steps + done, skipped + (not done), 0
        self._reset_state()
        return RawStats(float(total), count, correct, steps, skipped)

    def _evaluate_pass(self, samples: Iterable[Pair]) -> RawStats:
        total, correct, count = F32(0), 0, 0
        for sample, label in samples:
            value, hit = self._sample(sample, label, learn=False)
            total, correct, count = total + value, correct + hit, count + 1
        self._reset_state()
        return RawStats(float(total), count, correct, 0, 0)

    def _store_sample(self, sample: bytes, label: bytes) -> None:
        self._store.append((sample, label))

    def _store_clear(self) -> None:
        self._store.clear()

    def _store_policy(self, policy: StorePolicy) -> None:
        if policy != StorePolicy():
            raise NotImplementedError("the reference keeps what it is given: policy 'stop' only")

    def _store_state(self) -> StoreState:
        return StoreState(StorePolicy(), len(self._store), 0, len(self._store))

    def _run_epoch(self) -> RawStats:
        """Fisher-Yates from the end: place i swaps with (rand(shuffle, epoch, i) * (i + 1)) >> 32."""
        order = list(range(len(self._store)))
        words = rand(self._settings.seed, STREAM_SHUFFLE, self._epoch, np.arange(len(order), dtype=np.uint32))
        for i in range(len(order) - 1, 0, -1):
            j = int(words[i]) * (i + 1) >> 32
            order[i], order[j] = order[j], order[i]
        self._epoch += 1
        return self._train_pass(self._store[i] for i in order)

    def _read_factors(self) -> bytes:
        return self._state.factors.astype("<u2").tobytes()

    def _write_factors(self, factors: bytes) -> None:
        self._state.factors = np.frombuffer(factors, "<u2").astype(np.uint16)
        self._restart()
        self._reset_state()

    def _reset(self) -> None:
        factors = np.zeros(self.info.parameters, np.uint16)
        for layer in self._program.adaptation.layers:
            count = self.info.rank * layer.k
            factors[layer.a_offset : layer.a_offset + count] = initial_a(
                self._program.seed, layer.a_offset, count, layer.k
            )
        self._state.factors = factors
        self._restart()
        self._reset_state()


def _limited(gamma: np.float32, scales: Array) -> Array:
    """fl(gamma / s_w), at most the largest float32."""
    with np.errstate(over="ignore"):
        return np.minimum((gamma / scales).astype(F32), np.finfo(F32).max)
