# SPDX-License-Identifier: Apache-2.0
"""Pictures and pages: exact counts, escaped names, equal files for equal input."""

from __future__ import annotations

import struct
from html.parser import HTMLParser

import numpy as np

from lora_mcu import plots, report_html
from lora_mcu.report_html import Image, Section


def test_confusion_matrix_counts_rows_by_truth() -> None:
    found = plots.confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0], 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_png_has_its_size_and_repeats() -> None:
    def draw() -> bytes:
        figure = plots.new_figure(4, 3)
        plots.loss_curve(figure.add_subplot(), {"a": [1.0, 0.5], "b": [0.9, 0.1]})
        return plots.png(figure, dpi=50)

    content = draw()
    assert content.startswith(b"\x89PNG") and struct.unpack(">II", content[16:24]) == (200, 150)
    assert draw() == content


def test_arena_draws_a_box_a_buffer_where_it_is() -> None:
    activation = plots.ArenaBuffer("net/conv/Relu;x", "activation", 600, 0, 2, 400)
    scratch = plots.ArenaBuffer("s", "scratch", 100, 1, 1, 0)
    axes = plots.new_figure(4, 3).add_subplot()
    plots.arena(axes, [activation, scratch], ["0 CONV_2D", "1 MEAN", "loss"], 1000)
    boxes = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in axes.patches]
    assert boxes == [(-0.5, 400, 3, 600), (0.5, 0, 1, 100)]
    assert [t.get_text() for t in axes.texts] == ["conv\n600", "100"]


def test_memory_map_names_every_symbol_and_its_bytes() -> None:
    axes = plots.new_figure(4, 3).add_subplot()
    plots.memory_map(axes, {"lmcu_arena": 8368, "lmcu_store": 93416, "lmcu_order": 0}, plots.STORE_SYMBOLS)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["arena", "store"]
    assert [t.get_text() for t in axes.texts] == ["8,368", "93,416"]


class Tags(HTMLParser):
    """Every tag opened, and those left open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_escapes_names_and_closes_its_tags() -> None:
    hostile = '<script>alert("x")</script>'
    image = Image(plots.png(plots.new_figure(1, 1)), hostile)
    section = Section(hostile, [hostile], (hostile, "n"), [(hostile, 12345)], ("all", 1), [image])
    page = report_html.page(hostile, hostile, [section])
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "script" not in tags.seen and tags.seen.count("img") == 1
    assert page.count("&lt;script&gt;") == 8 and "12,345" in page


def test_data_uri_is_the_file() -> None:
    import base64

    content = bytes(np.arange(256, dtype=np.uint8))
    head, data = plots.data_uri(content).split(",")
    assert head == "data:image/png;base64" and base64.b64decode(data) == content
