# SPDX-License-Identifier: Apache-2.0
"""The compiler's report as text, from its plain data (the same as in a project's lora_mcu.json)."""

from __future__ import annotations

from typing import Any

from lora_mcu.cli.console import say, table


def largest_first(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda item: item[1], reverse=True)


FEW_SLOTS = 4


def _slots(report: dict[str, Any]) -> str:
    """How many adapters the board's flash keeps; says so where these are few."""
    count, nbytes = report["adapter_slots"], 2 * report["parameters"]
    text = f"{count} adapters of {nbytes:,} bytes fit the flash store"
    if count >= FEW_SLOTS:
        return text
    return f"only {text} of {report['board']}: a lower --rank or fewer layers make room for more"


def stored_samples(report: dict[str, Any]) -> str:
    """How many samples the store holds, what a record is made of, and what epochs over it skip."""
    data = sum(part["bytes"] for part in report["record"] if part["name"] not in ("label", "target"))
    kind = "features" if report["cached"] else "input"
    text = f"{report['store_capacity']:,} samples of {report['record_bytes']:,} bytes: {data:,} of {kind}, "
    text += f"{report['record_bytes'] - data:,} of label"
    if report["cached"]:
        share = 1 - report["instructions_stored_step_estimate"] / report["instructions_step_estimate"]
        text += f"; epochs over them skip the frozen prefix, about {100 * share:.1f} % of a step"
    return text


def saved_samples(report: dict[str, Any]) -> str:
    """How many of them `lora-mcu store save` keeps over a reset, and what that leaves for adapters."""
    saved, beside = report["saved_samples"], report["slots_beside_samples"]
    which = f"all {saved:,}" if saved == report["store_capacity"] else f"{saved:,} of them"
    return f"{which} can be saved over a reset, beside {beside} adapters" if saved else "none can be saved over a reset"


def _arena(report: dict[str, Any]) -> str:
    """Plan and bound side by side, and what running row by row costs."""
    text = f"arena  {report['sram']['lmcu_arena']:,} bytes; no plan is below {report['arena_lower_bound']:,}"
    stripes = report["stripes"]
    if stripes:
        count = sum(len(s["operators"]) for s in stripes)
        spent = sum(s["instructions"] for s in stripes)
        share = 100 * spent / report["instructions_inference_estimate"]
        text += f"; {count} operators run row by row, about {spent:,} instructions more ({share:.1f} %)"
    return text


def regions(report: dict[str, Any]) -> str:
    """What lies in each region of SRAM, the largest array first; empty where there is one region."""

    def text(region: dict[str, Any]) -> str:
        symbols = ", ".join(name.removeprefix("lmcu_") for name, _ in largest_first(region["symbols"])) or "nothing"
        return f"{region['name']} {region['used']:,} of {region['bytes']:,} ({symbols})"

    found = report["regions"]
    return "; ".join(map(text, found)) if len(found) > 1 else ""


def _boards(report: dict[str, Any]) -> str:
    """The boards that hold these layers at this rank, and by how much the others do not."""
    fits = [b["board"] for b in report["boards"] if b["fits"]]
    text = ", ".join(fits) if fits else "no board"
    short = [f"{b['board']} ({_lack(b)})" for b in report["boards"] if not b["fits"]]
    return text + (f"; not {', '.join(short)}" if short else "")


def _lack(total: dict[str, Any]) -> str:
    sram, flash = total["sram_bytes"] - total["sram_limit"], total["flash_bytes"] - total["flash_limit"]
    parts = [(sram, "SRAM"), (flash, "flash")]
    return ", ".join(f"{nbytes:,} bytes of {what} short" for nbytes, what in parts if nbytes > 0)


def _line(report: dict[str, Any]) -> str:
    """What several requests in flight cost, and what one sample is on the line."""
    line, sram = report["line"], report["sram"]
    ring = sram.get("lmcu_rx_ring", 0)
    text = f"line   {line['window']} requests in flight, {line['sample_bytes']:,} bytes a sample; {ring:,} of ring, "
    return text + f"{sram['lmcu_link']:,} of frames and kept answers"


def _longest(report: dict[str, Any]) -> str:
    """The longest stretch in which the device answers nobody and feeds no watchdog: one operator."""
    longest = max(max(x["instructions_forward"], x["instructions_backward"]) for x in report["layers"])
    return f"       longest operator about {longest:,} instructions; the watchdog is fed after each"


def show(report: dict[str, Any]) -> None:
    """Totals first, then SRAM by symbol, then a line a layer."""
    stored = report["sram_bytes"] - report["training_sram_bytes"]
    say(f"{report['model']} for {report['board']}, numerics {report['numerics']}")
    say(
        f"SRAM   {report['sram_bytes']:,} of {report['sram_limit']:,} bytes: {report['training_sram_bytes']:,} to run "
        f"and train, {stored:,} for {report['store_capacity']:,} stored samples"
    )
    if where := regions(report):
        say(f"       {where}")
    say(
        f"flash  {report['constant_bytes']:,} bytes of constants, about {report['code_estimate']:,} of code (exact "
        f"after the build), of {report['flash_limit']:,}"
    )
    say(f"adapt  {len(report['adapt'])} layers at rank {report['rank']}, {report['parameters']:,} parameters")
    if report["note"]:
        say(f"       {report['note']}")
    if report["parameters"]:
        say(f"slots  {_slots(report)}")
    if report["states"]:
        say(
            f"state  {len(report['states'])} variables, {sum(s['bytes'] for s in report['states']):,} bytes that live "
            "from one inference to the next; gradients end there"
        )
    say(_arena(report))
    say(_line(report))
    if report["layers"]:
        say(_longest(report))
    say(
        f"cost   {report['macs']:,} MACs an inference, {report['macs_step']:,} a training step on one sample; "
        f"about {report['instructions_inference_estimate']:,} "
        f"instructions and {report['instructions_step_estimate']:,}"
    )
    if report["store_capacity"]:
        say(f"store  {stored_samples(report)}")
        say(f"       {saved_samples(report)}")
    say(f"fits   {_boards(report)}")
    say()
    table(("SRAM symbol", "bytes"), largest_first(report["sram"]))
    say()
    columns = ("#", "operator", "layer", "output", "adapted", "MACs", "backward MACs", "weight bytes", "saved bytes")
    rows = [
        (x["index"], x["kind"], x["name"][:40], "x".join(map(str, x["shape"])), "yes" if x["adapted"] else "",
         x["macs_forward"], x["macs_backward"], x["weight_bytes"], x["saved_bytes"])
        for x in report["layers"]
    ]  # fmt: skip
    table(columns, rows)
    say()
