# SPDX-License-Identifier: Apache-2.0
"""The demo's model in TensorFlow floats, its weights dequantized from the .tflite, for many training runs at once.

A leading axis of "runs" (person x seed x learning rate) goes through everything: the net is so small that one run alone
would spend its time in call overhead. Two forms of the forward pass:

- float: dequantized weights, float activations (what a host would do with this model);
- fake quantization: every activation is rounded to the .tflite's int8 grid, the gradient passes straight
  through, and the LoRA factors are kept in fp16 with stochastic rounding: the device's rules, not its bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Floats = npt.NDArray[np.float32]
Method = Literal["last", "lora", "full"]
Params = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Grid:
    """The int8 grid of an activation."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Layer:
    """A convolution over time (kernel, stride) or the dense layer at the end (kernel 0), dequantized."""

    name: str
    weight: Floats  # [K, M], K in (time, channel) order
    bias: Floats  # [M]
    kernel: int
    stride: int
    relu: bool
    grid: Grid


@dataclass(frozen=True)
class Net:
    """Convolutions, the mean over time, one dense layer."""

    layers: list[Layer]
    mean_grid: Grid


# --- reading the .tflite ---------------------------------------------------------------------------------------------


def read_net(path: Path) -> Net:
    """The net from a .tflite made by make_model.py (no other shape of model)."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    graph, layers, mean_grid = model.subgraphs[0], [], None
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex].builtinCode
        if code in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED):
            layers.append(_read_layer(model, graph, op, code == schema.BuiltinOperator.CONV_2D))
        elif code == schema.BuiltinOperator.MEAN:
            mean_grid = _grid(graph.tensors[op.outputs[0]])
    if mean_grid is None:
        raise ValueError(f"{path.name} has no MEAN: it was not made by make_model.py")
    return Net(layers, mean_grid)


def _grid(tensor: Any) -> Grid:
    return Grid(float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))


def _read_layer(model: Any, graph: Any, op: Any, convolution: bool) -> Layer:
    weight, bias, out = (graph.tensors[i] for i in (op.inputs[1], op.inputs[2], op.outputs[0]))
    options = op.builtinOptions
    return Layer(
        name=out.name.decode().split(";")[0],
        weight=_constant(model, weight, np.int8).reshape(weight.shape[0], -1).T.copy(),
        bias=_constant(model, bias, np.int32),
        kernel=int(weight.shape[1]) if convolution else 0,
        stride=int(options.strideH) if convolution else 1,
        relu=options.fusedActivationFunction == 1,
        grid=_grid(out),
    )


def _constant(model: Any, tensor: Any, dtype: type) -> Floats:
    """A constant tensor in real units, its scale per first dimension."""
    stored = np.asarray(model.buffers[tensor.buffer].data, dtype=np.uint8).tobytes()
    values = np.frombuffer(stored, dtype=dtype).reshape(tensor.shape)
    scales = np.asarray(tensor.quantization.scale, dtype=np.float64).reshape(-1, *[1] * (values.ndim - 1))
    return (values * scales).astype(np.float32)


# --- forward ---------------------------------------------------------------------------------------------------------


@tf.custom_gradient
def _to_grid(v: tf.Tensor, scale: tf.Tensor, low: tf.Tensor, high: tf.Tensor, relu: tf.Tensor) -> Any:
    """v rounded to an int8 grid with ends low and high (q - zero_point); relu: the low end is a fused ReLU's."""
    q = tf.clip_by_value(tf.round(v / scale), low, high)

    def gradient(g: tf.Tensor) -> Any:
        # the fused bound masks; a bare end of int8 masks only what would push further out
        at_low, at_high = q <= low, q >= high
        stop = (at_low & ((relu > 0) | (g > 0))) | (at_high & (g < 0))
        return tf.where(stop, tf.zeros_like(g), g), None, None, None, None

    return q * scale, gradient


def _quantized(v: tf.Tensor, grid: Grid, relu: bool) -> tf.Tensor:
    ends = (-128 - grid.zero_point, 127 - grid.zero_point)
    if relu:
        ends = (max(0, ends[0]), ends[1])
    return _to_grid(v, *(tf.constant(float(c)) for c in (grid.scale, *ends, relu)))


def _patches(x: tf.Tensor, kernel: int, stride: int) -> tf.Tensor:
    """[R, N, T, C] -> [R, N, P, kernel * C]."""
    positions = (x.shape[2] - kernel) // stride + 1
    last = stride * (positions - 1) + 1
    return tf.concat([x[:, :, j : j + last : stride] for j in range(kernel)], axis=-1)


def _product(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """[R, N, (P,) K] times [R, K, M] or [K, M]."""
    if len(weight.shape) == 2:
        return tf.tensordot(x, weight, 1)
    runs, k = x.shape[0], x.shape[-1]
    flat = tf.matmul(tf.reshape(x, [runs, -1, k]), weight)
    return tf.reshape(flat, [runs, *x.shape[1:-1], weight.shape[-1]])


def logits(net: Net, params: Params, x: tf.Tensor, gamma: float, fake_quant: bool) -> tf.Tensor:
    """[R, N, 128, 6] in real units -> [R, N, 6]. `params` overrides weights and holds the adapters' factors."""
    for i, layer in enumerate(net.layers):
        if not layer.kernel:
            x = tf.reduce_mean(x, axis=2)
            x = _quantized(x, net.mean_grid, relu=False) if fake_quant else x
        weight = params.get(f"{i}.weight", tf.constant(layer.weight))
        if f"{i}.A" in params:
            # [R, M, r] [R, r, K] -> [R, K, M]
            weight = weight + gamma * tf.transpose(tf.matmul(params[f"{i}.B"], params[f"{i}.A"]), [0, 2, 1])
        x = _patches(x, layer.kernel, layer.stride) if layer.kernel else x
        bias = params.get(f"{i}.bias")
        x = _product(x, weight) + (layer.bias if bias is None else _over_positions(bias, len(x.shape)))
        if fake_quant:
            x = _quantized(x, layer.grid, layer.relu)
        elif layer.relu:
            x = tf.nn.relu(x)
    return x


def _over_positions(bias: tf.Tensor, rank: int) -> tf.Tensor:
    """[R, M] so that it adds to [R, N, (P,) M]."""
    return tf.reshape(bias, [bias.shape[0], *[1] * (rank - 2), bias.shape[1]])


# --- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What a training run is, apart from its data, seed and rate."""

    method: Method
    rank: int = 4
    alpha: float = 8.0
    batch: int = 8
    fake_quant: bool = False  # and fp16 factors


def initial(net: Net, setting: Setting, seeds: list[int]) -> dict[str, Floats]:
    """The trained parameters at the start, one set per run; A is Kaiming-uniform (a = sqrt 5), B is zero."""
    runs = len(seeds)
    params: dict[str, Floats] = {}
    for i, layer in enumerate(net.layers):
        if setting.method == "lora":
            fan_in, outputs = layer.weight.shape
            bound = 1 / np.sqrt(fan_in)
            drawn = [np.random.default_rng([s, i]).uniform(-bound, bound, (setting.rank, fan_in)) for s in seeds]
            params[f"{i}.A"] = np.stack(drawn).astype(np.float32)
            params[f"{i}.B"] = np.zeros((runs, outputs, setting.rank), dtype=np.float32)
        elif setting.method == "full" or i == len(net.layers) - 1:
            params[f"{i}.weight"] = np.tile(layer.weight, (runs, 1, 1))
            params[f"{i}.bias"] = np.tile(layer.bias, (runs, 1))
    return params


def batches(seed: int, windows: int, steps: int, batch: int) -> npt.NDArray[np.int32]:
    """[steps, batch] indices: a new shuffle of all windows each epoch, batches running over the epochs' borders."""
    rng = np.random.default_rng([seed, 1000])
    epochs = -(-steps * batch // windows)
    order = np.concatenate([rng.permutation(windows) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch).astype(np.int32)


def _to_half(p: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """p rounded stochastically to fp16's grid."""
    exponent = tf.floor(tf.math.log(tf.maximum(tf.abs(p), 2.0**-14)) / np.float32(np.log(2.0)))
    ulp = tf.pow(2.0, exponent - 10)
    return tf.floor(p / ulp + tf.random.stateless_uniform(p.shape, seed)) * ulp


def make_trainer(net: Net, setting: Setting) -> Callable[..., tuple[Params, tf.Tensor]]:
    """A compiled function (params, x [R,n,128,6], y [R,n], order [steps,R,batch], rate [R], first step) ->
    (params, loss [steps, R]), plain SGD."""
    gamma = setting.alpha / setting.rank

    def step(params: Params, x: tf.Tensor, y: tf.Tensor, rate: tf.Tensor, count: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(params)
            found = logits(net, params, x, gamma, setting.fake_quant)
            losses = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, found), axis=1)
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, params)
        new = {}
        for i, (name, p) in enumerate(params.items()):
            new[name] = p - tf.reshape(rate, [-1, *[1] * (len(p.shape) - 1)]) * gradients[name]
            if setting.fake_quant:
                new[name] = _to_half(new[name], tf.stack([count, i]))
        return new, losses

    @tf.function(jit_compile=True)
    def run(params: Params, x: tf.Tensor, y: tf.Tensor, order: tf.Tensor, rate: tf.Tensor, first: tf.Tensor) -> Any:
        steps = order.shape[0]

        def body(i: tf.Tensor, params: Params, curve: tf.TensorArray) -> Any:
            now = order[i]
            new, losses = step(
                params, tf.gather(x, now, batch_dims=1), tf.gather(y, now, batch_dims=1), rate, first + i
            )
            return i + 1, new, curve.write(i, losses)

        start = (tf.constant(0), params, tf.TensorArray(tf.float32, steps, element_shape=[x.shape[0]]))
        _, params, curve = tf.while_loop(lambda i, *_: i < steps, body, start)
        return params, curve.stack()

    return run


def make_predictor(net: Net, setting: Setting) -> Callable[[Params, tf.Tensor], tf.Tensor]:
    """A compiled function (params, x [R, n, 128, 6]) -> classes [R, n]."""

    @tf.function(jit_compile=True)
    def run(params: Params, x: tf.Tensor) -> tf.Tensor:
        found = logits(net, params, x, setting.alpha / setting.rank, setting.fake_quant)
        return tf.argmax(found, axis=-1)

    return run
