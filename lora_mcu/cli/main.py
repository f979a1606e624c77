# SPDX-License-Identifier: Apache-2.0
"""The list of commands, and the one place that turns errors into a line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lora_mcu.cli import adapter_files, adapters, device, model, monitor, quantize, store, training
from lora_mcu.cli.console import Interrupted
from lora_mcu.cli.line import line_options
from lora_mcu.errors import Error

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="lora-mcu",
    help="Compile an int8 .tflite model into firmware that keeps adapting it on the microcontroller with LoRA.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=_SETTINGS,
)
adapter_app = typer.Typer(
    help="Adapters: on a device (pull, push, reset), in its flash (save, load, ...), as folders (info, diff, ...).",
    no_args_is_help=True,
)

app.command("inspect", context_settings=_SETTINGS)(model.inspect)
app.command("quantize", context_settings=_SETTINGS)(quantize.quantize)
app.command("compile", context_settings=_SETTINGS)(model.compile_)
app.command("build", context_settings=_SETTINGS)(model.build)
app.command("flash", context_settings=_SETTINGS)(model.flash)
app.command("report", context_settings=_SETTINGS)(model.report)
app.command("emulate", context_settings=_SETTINGS)(device.emulate)
app.command("train", context_settings=_SETTINGS)(line_options(training.train))
app.command("simulate", context_settings=_SETTINGS)(training.simulate)
app.command("eval", context_settings=_SETTINGS)(line_options(device.evaluate))
app.command("infer", context_settings=_SETTINGS)(line_options(device.infer))
app.command("ports", context_settings=_SETTINGS)(device.ports)
app.command("monitor", context_settings=_SETTINGS)(monitor.monitor)
app.command("doctor", context_settings=_SETTINGS)(device.doctor)
adapter_app.command("pull", context_settings=_SETTINGS)(line_options(adapters.pull))
adapter_app.command("push", context_settings=_SETTINGS)(line_options(adapters.push))
adapter_app.command("reset", context_settings=_SETTINGS)(line_options(adapters.reset))
adapter_app.command("merge-device", context_settings=_SETTINGS)(line_options(adapters.merge_device))
adapter_app.command("unmerge-device", context_settings=_SETTINGS)(line_options(adapters.unmerge_device))
for _name in ("save", "load", "list", "delete", "select"):
    adapter_app.command(_name, context_settings=_SETTINGS)(
        line_options(getattr(adapters, "list_" if _name == "list" else _name))
    )
for _name in ("info", "diff", "combine", "merge"):
    adapter_app.command(_name, context_settings=_SETTINGS)(getattr(adapter_files, _name))
app.add_typer(adapter_app, name="adapter")
store_app = typer.Typer(help="The samples that a device keeps: info, save (over a reset), clear.", no_args_is_help=True)
for _name in ("info", "save", "clear"):
    store_app.command(_name, context_settings=_SETTINGS)(line_options(getattr(store, _name)))
app.add_typer(store_app, name="store")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lora-mcu {version('lora-mcu')}")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _main(version: _Version = False) -> None:
    pass


def main() -> int:
    """Run the command line: 1 for a refusal (one line on standard error), 130 after Ctrl-C, 2 for a wrong usage."""
    try:
        typer.main.get_command(app)(prog_name="lora-mcu")
    except Interrupted as stop:
        return _complain(str(stop), 130)
    except Error as error:
        return _complain(f"error: {error}", 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        return _complain(f"error: {error.filename or 'system'}: {error.strerror or error}", 1)
    return 0


def _complain(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code
