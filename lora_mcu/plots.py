# SPDX-License-Identifier: Apache-2.0
"""Pictures of training and memory. Matplotlib is imported inside functions; every drawing function takes its axes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lora_mcu.sram import STORE_SYMBOLS as STORE_SYMBOLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito: told apart by colour-blind readers, and in print
BLUE, ORANGE, GREEN, GREY, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#8C8C8C", "#D55E00", "#56B4E9"
LINE_COLOURS = (BLUE, ORANGE, GREEN, RED, SKY, GREY)
ROLE_COLOURS = {"activation": SKY, "rows": GREEN, "gradient": ORANGE, "factor gradient": RED, "scratch": GREY}
_SMALL = 8


@dataclass(frozen=True)
class ArenaBuffer:
    """A buffer of the memory plan: ``nbytes`` at ``offset``, in use from step ``start`` to ``end`` (both included)."""

    name: str
    role: str
    nbytes: int
    start: int
    end: int
    offset: int


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no display and leaves no global state behind."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as a PNG without a date in it, so that equal figures give equal files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """A PNG for the src of an <img>."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def title(axes: Axes, text: str) -> None:
    """A heading in the size that all panels share."""
    axes.set_title(text, fontsize=_SMALL + 2, pad=6)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SMALL)


def kilobytes(nbytes: float) -> str:
    """Bytes for a label: 1 KB = 1,024 bytes."""
    return f"{nbytes / 1024:.1f} KB" if nbytes >= 1024 else f"{nbytes:.0f} B"


def loss_curve(axes: Axes, curves: dict[str, Sequence[float]], what: str = "epoch") -> None:
    """Mean training loss by epoch, on a logarithmic axis."""
    for (name, losses), colour in zip(curves.items(), LINE_COLOURS, strict=False):
        axes.plot(range(1, len(losses) + 1), losses, color=colour, linewidth=1.6, label=name)
    axes.set_yscale("log")
    axes.set_xlabel(what, fontsize=_SMALL + 1)
    axes.set_ylabel("mean loss", fontsize=_SMALL + 1)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=_SMALL)
    _bare(axes)


def confusion_matrix(labels: npt.ArrayLike, found: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """Counts [classes, classes]: row = true class, column = the class that the model found."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(found)), 1)
    return counts


def confusion(axes: Axes, counts: npt.NDArray[np.int64], names: Sequence[str], row_names: bool = True) -> None:
    """A confusion matrix, shaded by share of the row, the counts written into the cells."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row in range(len(counts)):
        for column in range(len(counts)):
            if counts[row, column]:
                colour = "white" if share[row, column] > 0.6 else "#202020"
                number = str(counts[row, column])
                axes.text(column, row, number, ha="center", va="center", fontsize=_SMALL, color=colour)
    shown = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=40, ha="right", rotation_mode="anchor", fontsize=_SMALL)
    axes.set_yticks(range(len(names)), shown if row_names else [], fontsize=_SMALL)
    axes.set_xlabel("found", fontsize=_SMALL + 1)
    if row_names:
        axes.set_ylabel("true", fontsize=_SMALL + 1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def memory_map(axes: Axes, symbols: dict[str, int], store: Sequence[str] = ()) -> None:
    """Bytes by symbol as horizontal bars, largest first; those in ``store`` (stored samples) in another colour."""
    items = sorted(((n, b) for n, b in symbols.items() if b), key=lambda item: item[1])
    colours = [SKY if n in store else BLUE for n, _ in items]
    axes.barh([n.removeprefix("lmcu_") for n, _ in items], [b for _, b in items], color=colours, height=0.7)
    for i, (_, nbytes) in enumerate(items):
        axes.text(nbytes + items[-1][1] * 0.02, i, f"{nbytes:,}", va="center", fontsize=_SMALL)
    axes.set_xlim(0, items[-1][1] * 1.22)
    axes.set_xticks([])
    _bare(axes)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)


def arena(axes: Axes, buffers: Sequence[ArenaBuffer], steps: Sequence[str], arena_bytes: int) -> None:
    """The arena over time: a box a buffer, from first to last step, at its offset; named where there is room."""
    from matplotlib.patches import Patch, Rectangle

    for b in buffers:
        width = b.end - b.start + 1
        colour = ROLE_COLOURS.get(b.role, GREY)
        box = Rectangle((b.start - 0.5, b.offset), width, b.nbytes, facecolor=colour, edgecolor="white", linewidth=0.8)
        axes.add_patch(box)
        name = "" if b.role == "scratch" else _short(_layer(b.name), 7 * width) + "\n"
        if b.nbytes > arena_bytes * 0.055:
            place = ((b.start + b.end) / 2, b.offset + b.nbytes / 2)
            axes.text(*place, f"{name}{b.nbytes:,}", ha="center", va="center", fontsize=_SMALL - 2, linespacing=1.0)
    axes.set_xlim(-1.5, len(steps) - 0.5)
    axes.set_ylim(0, arena_bytes * 1.02)
    shown = [_short(s.replace(" backward", " bwd"), 26) for s in steps]
    axes.set_xticks(range(len(steps)), shown, rotation=60, ha="right", rotation_mode="anchor")
    tick = 1024 << max(0, (arena_bytes // 8192 - 1).bit_length())  # at most eight ticks, at whole powers of two
    axes.set_yticks(range(0, arena_bytes + 1, tick))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1024:.0f} KB")
    present = {b.role for b in buffers}
    handles: list[Any] = [Patch(color=c, label=r) for r, c in ROLE_COLOURS.items() if r in present]
    axes.legend(handles=handles, frameon=False, fontsize=_SMALL, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    _bare(axes)
    axes.tick_params(axis="x", labelsize=_SMALL - 1)


def _layer(tensor: str) -> str:
    """`net/conv1/Relu;net/conv1/BiasAdd` is told from its neighbours by `conv1`."""
    parts = tensor.split(";")[0].split("/")
    return parts[-2] if len(parts) > 1 else parts[0]


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def bars(axes: Axes, values: dict[str, float], colours: Sequence[str], unit: str = " %") -> None:
    """One bar a method with its value above, in percent."""
    axes.bar(range(len(values)), list(values.values()), color=list(colours), width=0.68)
    for i, value in enumerate(values.values()):
        axes.text(i, value + 1.5, f"{value:.1f}{unit}", ha="center", fontsize=_SMALL)
    axes.set_xticks(range(len(values)), list(values), fontsize=_SMALL)
    axes.set_ylim(0, 112)
    axes.set_yticks([])
    _bare(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=0)


def points_by_person(
    axes: Axes, people: Sequence[str], series: dict[str, Sequence[float]], colours: Sequence[str]
) -> None:
    """A row a person: where each method ends, in percent; a line joins the first and the last of them."""
    rows = np.arange(len(people))[::-1]
    methods = list(series.values())
    axes.hlines(rows, methods[0], methods[-1], color="#D0D0D0", linewidth=2, zorder=1)
    for (name, values), colour in zip(series.items(), colours, strict=True):
        axes.scatter(values, rows, s=34, color=colour, label=name, zorder=2)
    axes.set_yticks(rows, list(people), fontsize=_SMALL)
    axes.set_xlim(0, 103)
    axes.set_ylim(-0.6, len(people) - 0.4)
    axes.set_xlabel("accuracy on the test part, %", fontsize=_SMALL + 1)
    axes.legend(frameon=False, fontsize=_SMALL, ncols=len(series), loc="upper center", bbox_to_anchor=(0.5, -0.18))
    axes.grid(axis="x", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    _bare(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
