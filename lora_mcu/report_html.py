# SPDX-License-Identifier: Apache-2.0
"""HTML pages that stand alone: one file, pictures inside, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_mcu import plots, resources
from lora_mcu.errors import ProjectError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lora_mcu.project import Project

Cell = str | int | float


@dataclass(frozen=True)
class Image:
    """A picture (PNG bytes) and the sentence that replaces it for those who cannot see it."""

    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        return plots.data_uri(self.png)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, at most one table (``total`` is its last line), pictures."""

    title: str
    paragraphs: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    total: Sequence[Cell] = ()
    images: Sequence[Image] = field(default_factory=tuple)


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page as text. All values are escaped: names come from model and data files."""
    import jinja2

    loader = jinja2.FileSystemLoader(resources.path("templates"))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["plain"] = _plain
    return environment.get_template("report.html.j2").render(title=title, lead=lead, sections=sections)


def _plain(cell: Cell) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else cell


def project_page(project: Project) -> str:
    """What the compiler knows about a project: memory by symbol, the arena over time, constants, layers."""
    r = project.report
    lead = (
        f"Model sha256 {project.info.model_sha256[:16]}, board {r['board']}, numerics {r['numerics']}, "
        f"{len(r['adapt'])} adapted layers at rank {r['rank']}, {r['parameters']:,} trained parameters."
    )
    sections = [*memory_sections(r), *_built(project), _layers(r), _boards(r)]
    return page(f"{r['model']} on {r['board']}", lead, sections)


def memory_picture(report: dict[str, Any]) -> bytes:
    """SRAM by symbol, and the arena over time (x: schedule, y: offset), as one PNG."""
    steps, symbols = report["steps"], report["sram"]
    figure = plots.new_figure(min(18.0, max(8.0, 3 + 0.35 * len(steps))), 5.4 + 0.28 * len(symbols))
    above, below = figure.subplots(2, 1, height_ratios=(0.6 + 0.28 * len(symbols), 4.8))
    plots.memory_map(above, symbols, plots.STORE_SYMBOLS)
    plots.title(above, f"{report['model']} on {report['board']}: {report['sram_bytes']:,} bytes of SRAM")
    _draw_arena(below, report)
    return plots.png(figure)


def _built(project: Project) -> list[Section]:
    """Exact sizes, where the project is built."""
    from lora_mcu import building

    try:
        built = building.inspect(building.image(project.folder), project.info.board)
    except ProjectError:
        return []
    text = f"The image takes {built.flash_bytes:,} bytes of flash and {built.ram_bytes:,} bytes of SRAM."
    return [Section("The built image", [text], ("section", "bytes"), _largest_first(built.sections))]


def _largest_first(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda item: item[1], reverse=True)


def memory_sections(r: dict[str, Any]) -> list[Section]:
    """SRAM by symbol, the arena's plan and the constants of a report's plain data."""
    rows = _largest_first(r["sram"])
    record = ", ".join(f"{part['bytes']:,} of {part['name']}" for part in r["record"])
    sram = Section(
        "SRAM",
        [
            f"{r['sram_bytes']:,} of {r['sram_limit']:,} bytes: {r['training_sram_bytes']:,} to run and train, the "
            f"rest holds {r['store_capacity']:,} samples of {r['record_bytes']:,} bytes "
            f"({record}). No heap: these are all."
        ],
        ("symbol", "bytes"), rows, ("all", r["sram_bytes"]),
        [Image(_memory_png(r), "Bytes of SRAM by symbol")],
    )  # fmt: skip
    where = Section(
        "SRAM by region",
        ["The best placement leaves the largest region: stored samples take it."],
        ("region", "used", "bytes", "what"),
        [(x["name"], x["used"], x["bytes"], ", ".join(name for name, _ in _largest_first(x["symbols"])))
         for x in r["regions"]],
        ("all", r["sram_bytes"], r["sram_limit"], ""),
    )  # fmt: skip
    arena = Section(
        "The arena over time",
        [
            f"Forward, loss and backward share {r['sram']['lmcu_arena']:,} bytes; no plan can be smaller than "
            f"{r['arena_lower_bound']:,}. A box is a buffer from its first to its last step."
        ],
        images=[Image(_arena_png(r), "Buffers of the arena by step and offset")],
    )
    constants = Section(
        "Constants in flash",
        [f"Exact before any C compiler runs. Code is about {r['code_estimate']:,} bytes until the project is built."],
        ("symbol", "bytes"), _largest_first(r["constants"]), ("all", r["constant_bytes"]),
    )  # fmt: skip
    return [sram, *([where] if len(r["regions"]) > 1 else []), arena, constants]


def _memory_png(r: dict[str, Any]) -> bytes:
    figure = plots.new_figure(6.5, 0.6 + 0.28 * len(r["sram"]))
    plots.memory_map(figure.add_subplot(), r["sram"], plots.STORE_SYMBOLS)
    return plots.png(figure)


def _arena_png(r: dict[str, Any]) -> bytes:
    figure = plots.new_figure(min(16.0, max(7.0, 2 + 0.35 * len(r["steps"]))), 4.6)
    _draw_arena(figure.add_subplot(), r)
    return plots.png(figure)


def _draw_arena(axes: Axes, r: dict[str, Any]) -> None:
    plots.arena(axes, [plots.ArenaBuffer(**b) for b in r["buffers"]], r["steps"], r["sram"]["lmcu_arena"])


def _layers(r: dict[str, Any]) -> Section:
    columns = ("#", "operator", "layer", "output", "adapted", "MACs", "backward MACs", "instructions (est.)",
               "weight bytes", "saved bytes")  # fmt: skip
    rows = [
        (x["index"], x["kind"], x["name"], "x".join(map(str, x["shape"])), "yes" if x["adapted"] else "",
         x["macs_forward"], x["macs_backward"], x["instructions_forward"] + x["instructions_backward"],
         x["weight_bytes"], x["saved_bytes"])
        for x in r["layers"]
    ]  # fmt: skip
    text = "Saved bytes are those of an output that the backward pass reads."
    return Section("Layers, one sample", [r["note"], text] if r["note"] else [text], columns, rows)


def _boards(r: dict[str, Any]) -> Section:
    columns = ("board", "fits", "SRAM", "of", "flash (est.)", "of")
    rows = [(b["board"], "yes" if b["fits"] else "no", b["sram_bytes"], b["sram_limit"], b["flash_bytes"],
             b["flash_limit"]) for b in r["boards"]]  # fmt: skip
    return Section("These layers on every board, without stored samples", [], columns, rows)
