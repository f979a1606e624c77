# SPDX-License-Identifier: Apache-2.0
"""Adapter files in PEFT's layout: adapter_model.safetensors and adapter_config.json. Every file is untrusted."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from lora_mcu.adapters.adapter import Adapter, Half, Kernel
from lora_mcu.errors import AdapterError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
RECORD = "training.json"  # of the run that made the adapter; the command line writes it
FORMAT_VERSION = "1"
METADATA_KEYS = ("base_model_sha256", "format_version", "layout_sha256")
PREFIX = "base_model.model."
MAX_WEIGHTS = 64 << 20  # bytes: more than any board's memory
MAX_CONFIG = 1 << 20
MAX_HEADER = 1 << 20
MAX_RANK = 64  # LMCU_MAX_RANK


def save(adapter: Adapter, folder: Path, force: bool) -> None:
    """Write both files into a new folder beside ``folder``, then put it in its place."""
    _replace_folder(folder, force, {WEIGHTS: _weights(adapter), CONFIG: _config(adapter)})


def load(folder: Path) -> Adapter:
    """Read both files of ``folder``."""
    config = _parse_config(folder / CONFIG, _read(folder / CONFIG, MAX_CONFIG))
    path = folder / WEIGHTS
    raw = _read(path, MAX_WEIGHTS)
    try:
        metadata, tensors = _parse_weights(raw)
        layers, kernels = _pair(tensors, config["target_modules"])
        return Adapter(
            layers=layers,
            kernels=kernels,
            rank=config["r"],
            alpha=config["lora_alpha"],
            rslora=config["use_rslora"],
            model_sha256=metadata["base_model_sha256"],
            layout_sha256=metadata["layout_sha256"],
        )
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None


# ---- writing ----


def _weights(adapter: Adapter) -> bytes:
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, (a, b) in adapter.layers.items():
        kernel = adapter.kernels[name]
        if kernel is not None:
            a = a.reshape(adapter.rank, *kernel).transpose(0, 3, 1, 2)  # (kh, kw, C) -> (C, kh, kw)
            b = b.reshape(*b.shape, 1, 1)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = np.ascontiguousarray(a, "<f2")
        tensors[f"{PREFIX}{name}.lora_B.weight"] = np.ascontiguousarray(b, "<f2")
    metadata = {
        "format_version": FORMAT_VERSION,
        "base_model_sha256": adapter.model_sha256,
        "layout_sha256": adapter.layout_sha256,
    }
    return _sorted_header(safetensors.numpy.save(tensors, metadata))


def _sorted_header(raw: bytes) -> bytes:
    """The package writes __metadata__ in random order; equal factors must give equal bytes, so sort the header."""
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[8 + size :]


def _config(adapter: Adapter) -> bytes:
    alpha = int(adapter.alpha) if float(adapter.alpha).is_integer() else adapter.alpha
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": adapter.rank,
        "lora_alpha": alpha,
        "use_rslora": adapter.rslora,
        "target_modules": sorted(adapter.layers),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def _replace_folder(folder: Path, force: bool, files: dict[str, bytes]) -> None:
    folder = folder.absolute()
    _may_replace(folder, force)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    old = draft.with_name(draft.name + ".old")
    try:
        draft.mkdir(parents=True)
        for name, content in files.items():
            _write(draft / name, content)
        if folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise AdapterError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _may_replace(folder: Path, force: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise AdapterError(f"{folder} exists and is not a folder: choose another one")
    names = {entry.name for entry in folder.iterdir()}
    foreign = sorted(names - {WEIGHTS, CONFIG, RECORD})
    if foreign:
        raise AdapterError(f"{folder} holds other files ({foreign[0]}): give the adapter a folder of its own")
    if names and not force:
        raise AdapterError(f"{folder} holds an adapter already: choose another folder or pass force (--force)")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


# ---- reading ----


def _read(path: Path, limit: int) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise AdapterError(f"{path} is not a file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise AdapterError(f"{str(path)!r} cannot be read: {error}") from None
    if len(content) > limit:
        raise AdapterError(f"{path} is larger than {limit} bytes: no adapter of a microcontroller is")
    return content


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise AdapterError("not valid JSON") from None
    if not isinstance(value, dict):
        raise AdapterError("not a JSON object")
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_CONFIG_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "peft_type": ('"LORA"', lambda v: v == "LORA"),
    "r": (f"a whole number from 1 to {MAX_RANK}", lambda v: _is_whole(v) and 1 <= v <= MAX_RANK),
    "lora_alpha": (
        "a finite number above 0",
        lambda v: (_is_whole(v) or isinstance(v, float)) and 0 < v < 1e30 and math.isfinite(v),
    ),
    "use_rslora": ("true or false", lambda v: isinstance(v, bool)),
    "target_modules": (
        "a list of layer names",
        lambda v: isinstance(v, list) and len(v) > 0 and all(isinstance(n, str) for n in v) and len(set(v)) == len(v),
    ),
}


def _parse_config(path: Path, content: bytes) -> dict[str, Any]:
    try:
        config = _parse_json(content)
        config.setdefault("use_rslora", False)
        for key, (must, allowed) in _CONFIG_FIELDS.items():
            if key not in config:
                raise AdapterError(f"field {key} is missing")
            if not allowed(config[key]):
                raise AdapterError(f"field {key} must be {must}")
        for key in ("rank_pattern", "alpha_pattern"):
            if config.get(key):
                raise AdapterError(f"field {key} is not empty: all layers share one rank and alpha here")
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None
    config["lora_alpha"] = float(config["lora_alpha"])
    return config


def _parse_weights(raw: bytes) -> tuple[dict[str, str], dict[str, Half]]:
    """Check the header ourselves, then let the package take the tensors apart."""
    size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or size > MAX_HEADER or 8 + size > len(raw):
        raise AdapterError("not a safetensors file, or cut short")
    header = _parse_json(raw[8 : 8 + size])
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or sorted(metadata) != list(METADATA_KEYS):
        raise AdapterError(f"__metadata__ must hold exactly {', '.join(METADATA_KEYS)}: not an adapter of lora_mcu")
    if metadata["format_version"] != FORMAT_VERSION:
        raise AdapterError(f"format_version is {metadata['format_version']!r}; this lora_mcu reads {FORMAT_VERSION!r}")
    for key in ("base_model_sha256", "layout_sha256"):
        if not (isinstance(metadata[key], str) and _is_sha256(metadata[key])):
            raise AdapterError(f"__metadata__ field {key} is not 64 hexadecimal digits")
    for key, entry in header.items():
        if not isinstance(entry, dict) or entry.get("dtype") != "F16":
            raise AdapterError(f"tensor {key} is not F16")
    try:
        tensors = safetensors.numpy.load(raw)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"broken safetensors file ({' '.join(str(error).split())})") from None
    return metadata, tensors


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _pair(tensors: dict[str, Half], names: list[str]) -> tuple[dict[str, tuple[Half, Half]], dict[str, Kernel | None]]:
    wanted = {f"{PREFIX}{name}.lora_{factor}.weight" for name in names for factor in "AB"}
    for key in sorted(wanted ^ tensors.keys()):
        raise AdapterError(f"tensor {key} is {'missing' if key in wanted else f'not in target_modules of {CONFIG}'}")
    layers: dict[str, tuple[Half, Half]] = {}
    kernels: dict[str, Kernel | None] = {}
    for name in names:
        a, b = (tensors[f"{PREFIX}{name}.lora_{factor}.weight"] for factor in "AB")
        layers[name], kernels[name] = _flatten(name, a, b)
    return layers, kernels


def _flatten(name: str, a: Half, b: Half) -> tuple[tuple[Half, Half], Kernel | None]:
    """PEFT's dimensions -> [r, K] and [M, r]."""
    if a.size == 0 or b.size == 0:
        raise AdapterError(f"layer {name}: a factor is empty")
    if a.ndim == 2 and b.ndim == 2:
        return (a, b), None
    if a.ndim != 4 or b.ndim != 4 or b.shape[2:] != (1, 1):
        raise AdapterError(f"layer {name}: A {a.shape} and B {b.shape} are neither a dense nor a convolution adapter")
    rank, c, kh, kw = a.shape
    return (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).reshape(rank, -1), b.reshape(b.shape[:2])), (kh, kw, c)
