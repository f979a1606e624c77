# SPDX-License-Identifier: Apache-2.0
"""The command line: results, and every bad input answered by one line and exit code 1, with nothing written."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tflite
from conformance.tflite_builder import Builder

import lora_mcu
from lora_mcu.cli import main
from lora_mcu.sram import runtime_config

ROOT = Path(__file__).resolve().parents[2]
HAR = ROOT / "examples" / "har"
MODEL = HAR / "har.tflite"
SCRIPT = Path(sys.executable).parent / "lora-mcu"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in an empty folder."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["lora-mcu", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo model compiled for the STM32 as `mine`, and good data as `data.npz`."""
    folder = tmp_path_factory.mktemp("shared")
    lora_mcu.compile(MODEL, board="netduinoplus2", adapt="all").write(folder / "mine")
    with np.load(HAR / "har.npz") as har:
        chosen = np.flatnonzero((har["subject"] == 5) & (har["part"] == 0))[::5]
        np.savez(folder / "data.npz", x=har["x"][chosen], y=har["y"][chosen], label_names=har["label_names"])
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_refused(outcome: Outcome, *says: str) -> None:
    assert outcome.code == 1, outcome
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1 and outcome.err.startswith("error: "), outcome.err
    for text in says:
        assert text in outcome.err, outcome.err


# ---- what works ----


def test_help_is_quick() -> None:
    """Within half a second of the processor (a busy machine only delays), importing nothing large."""
    seconds = []
    while not seconds or (min(seconds) >= 0.5 and len(seconds) < 8):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "simulate" in found.stdout
    assert min(seconds) < 0.5
    code = "import sys; bare = set(sys.modules); import lora_mcu.cli; print(*sorted({*sys.modules} - bare))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in modules if name.startswith("lora_mcu.")}
    assert {name for name in ours if not name.startswith("lora_mcu.cli")} == {"lora_mcu.errors"}
    others = {name.split(".")[0] for name in modules} - sys.stdlib_module_names
    assert others <= {"lora_mcu", "typer", "annotated_doc", "shellingham", "rich"}  # typer's own needs


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version").out == f"lora-mcu {lora_mcu.__version__}\n"


def test_inspect_names_layers_and_counts(run: Run) -> None:
    outcome = run("inspect", MODEL, "--json")
    found = json.loads(outcome.out)
    graph = tflite.Model.GetRootAs(MODEL.read_bytes(), 0).Subgraphs(0)
    assert outcome.code == 0
    assert len(found["operators"]) == graph.OperatorsLength()
    assert found["input"]["shape"] == [1, 128, 6] and found["input"]["dtype"] == "int8"
    layers = [o for o in found["operators"] if o["layer"]]
    assert [o["layer"] for o in layers] == found["adaptable"] and len(layers) == 4
    assert found["macs"] == sum(o["macs"] for o in found["operators"]) > 50_000
    table = run("inspect", MODEL).out
    assert all(name in table for name in found["adaptable"]) and f"{found['macs']:,} MACs" in table
    assert run("inspect", MODEL, "--ir").out.startswith("graph har ")


def test_inspect_says_what_every_board_would_need(run: Run) -> None:
    found = {line["board"]: line for line in json.loads(run("inspect", MODEL, "--json").out)["boards"]}
    assert set(found) == set(lora_mcu.boards.names()) - {"native"}
    for adapt, name in (("none", "inference"), ("last:1", "last layer"), ("all", "all layers")):
        report = lora_mcu.compile(MODEL, board="netduinoplus2", adapt=adapt).report()
        ring = report.sram["lmcu_rx_ring"] - runtime_config()["RX_RING_BYTES"]
        assert found["netduinoplus2"]["needs"][name] == report.training_sram_bytes - ring
    line = found["esp32dev"]
    shown = next(x for x in run("inspect", MODEL).out.splitlines() if x.startswith("esp32dev "))
    assert all(f"{line['needs'][name]:,}" in shown for name in line["needs"]) and f"{line['sram_limit']:,}" in shown


def test_a_model_that_no_board_holds_is_still_shown(run: Run, tmp_path: Path) -> None:
    b, side = Builder(), 8200
    x, y = b.tensor((1, 9, 9, 1), scale=0.5), b.tensor((1, side, side, 1), scale=0.5)
    sizes = b.tensor((2,), "int32", data=(side, side))
    b.op("RESIZE_NEAREST_NEIGHBOR", [x, sizes], [y], "ResizeNearestNeighborOptions")
    (tmp_path / "large.tflite").write_bytes(b.build([x], [y]))
    outcome = run("inspect", "large.tflite", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["boards"] == []


def test_compile_says_which_boards_hold_it(run: Run) -> None:
    command = ("compile", MODEL, "--board", "native", "--adapt", "all", "--rank", "28", "-o", "mine")
    totals = json.loads(run(*command, "--json").out)["boards"]
    for total in totals:
        fits = total["sram_bytes"] <= total["sram_limit"] and total["flash_bytes"] <= total["flash_limit"]
        assert total["fits"] == fits
    assert {total["fits"] for total in totals} == {True, False}
    (line,) = (x for x in run(*command, "--force").out.splitlines() if x.startswith("fits "))
    over = next(t for t in totals if t["board"] == "netduinoplus2")
    assert f"netduinoplus2 ({over['sram_bytes'] - over['sram_limit']:,} bytes of SRAM short" in line
    assert "nucleo_h743zi" in line.split("; not ")[0]


def test_the_output_to_train_is_named(run: Run) -> None:
    graph = tflite.Model.GetRootAs(MODEL.read_bytes(), 0).Subgraphs(0)
    name = graph.Tensors(graph.Outputs(0)).Name().decode()
    assert run("inspect", MODEL, "--model-output", name).code == 0
    assert_refused(run("inspect", MODEL, "--model-output", "logits"), "no output 'logits'; its outputs are", repr(name))


def test_compile_writes_a_project_and_replaces_it_only_with_force(run: Run, tmp_path: Path) -> None:
    command = ("compile", MODEL, "--board", "netduinoplus2", "--adapt", "last:1", "-o", "mine")
    outcome = run(*command)
    assert outcome.code == 0 and "lmcu_arena" in outcome.out and (tmp_path / "mine" / "platformio.ini").is_file()
    before = tree(tmp_path)
    assert_refused(run(*command[:-2], "--rank", "2", "-o", "mine"), "mine", "--force")
    assert tree(tmp_path) == before
    outcome = run(*command, "--rank", "2", "--force", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["rank"] == 2
    assert tree(tmp_path) != before


def test_simulate_trains_and_repeats_byte_for_byte(run: Run, shared: Path, tmp_path: Path) -> None:
    data = shared / "data.npz"
    command = ("simulate", shared / "mine", data, "--epochs", "3", "--lr", "0.02", "--eval", data)
    outcome = run(*command, "--seeds", "2", "--csv", "out.csv", "-o", "a", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [s["seed"] for s in found["seeds"]] == [0, 1] and found["seeds"][0]["mode"] == "stored"
    assert all(s["after"]["loss"] < found["before"]["loss"] for s in found["seeds"])
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "seed,epoch,loss,accuracy,steps,skipped,eval_loss,eval_accuracy" and len(lines) == 1 + 2 * 3
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert record["settings"]["lr"] == pytest.approx(0.02) and len(record["epochs"]) == 3
    assert run(*command, "-o", "b").code == 0
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_streamed_epochs_give_the_stored_epochs_adapter(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` streams what does not fit the store, in the order that the store's shuffle would have given."""
    from lora_mcu.cli.training import fit
    from lora_mcu.datasets import load_npz
    from lora_mcu.session import Settings
    from lora_mcu.twin import Twin

    data, settings = load_npz(shared / "data.npz"), Settings(lr=0.02, seed=3)
    twin = lora_mcu.load_project(shared / "mine").twin()
    initial = twin._read_factors()
    assert fit(twin, data, settings, 2, lambda epoch, stats: None).mode == "stored"
    stored = twin._read_factors()
    small = dataclasses.replace(twin.info, store_capacity=len(data) - 1)
    monkeypatch.setattr(Twin, "info", property(lambda self: small))
    assert fit(twin, data, settings, 2, lambda epoch, stats: None).mode == "streamed"
    assert twin._read_factors() == stored != initial


def test_eval_and_infer_on_the_twin(run: Run, shared: Path, tmp_path: Path) -> None:
    outcome = run("eval", shared / "mine", shared / "data.npz", "--twin", "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 0
    assert run("infer", shared / "mine", shared / "data.npz", "--twin", "-o", "out.npz").code == 0
    outputs = np.load(tmp_path / "out.npz")["y"]
    labels = np.load(shared / "data.npz")["y"]
    assert outputs.dtype == np.int8 and outputs.shape == (len(labels), 6)
    assert found["accuracy"] == np.mean(outputs.argmax(1) == labels)
    assert_refused(run("infer", shared / "mine", shared / "data.npz", "--twin", "-o", "out.npz"), "out.npz", "--force")


def test_report_is_one_page_that_needs_nothing_else(run: Run, shared: Path, tmp_path: Path) -> None:
    assert run("report", shared / "mine", "-o", "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    report = json.loads((shared / "mine" / "lora_mcu.json").read_text())["report"]
    for symbol, nbytes in {**report["sram"], **report["constants"]}.items():
        assert symbol in page and f"{nbytes:,}" in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page and "<script" not in page and "<link" not in page
    assert all(name in page for name in lora_mcu.boards.names() if name != "native")


def test_report_as_png_is_the_memory_picture(run: Run, shared: Path, tmp_path: Path) -> None:
    assert run("report", shared / "mine", "-o", "memory.png").code == 0
    content = (tmp_path / "memory.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 20_000
    assert_refused(run("report", shared / "mine", "-o", "memory.png"), "memory.png", "--force")
    assert run("report", shared / "mine", "-o", "memory.png", "--force").code == 0
    assert (tmp_path / "memory.png").read_bytes() == content


@pytest.mark.parametrize("change", ["a field is gone", "a field is no number"])
def test_a_report_of_another_version_is_one_line(run: Run, shared: Path, tmp_path: Path, change: str) -> None:
    shutil.copytree(shared / "mine", tmp_path / "other")
    record = json.loads((tmp_path / "other" / "lora_mcu.json").read_text())
    if change == "a field is gone":
        del record["report"]["arena_lower_bound"]
    else:
        record["report"]["sram"] = None
    (tmp_path / "other" / "lora_mcu.json").write_text(json.dumps(record))
    for name in ("r.html",) if change == "a field is gone" else ("r.html", "r.png"):
        assert_refused(run("report", tmp_path / "other", "-o", name), "lora_mcu.json", "another version's", "--force")
        assert not (tmp_path / name).exists()


def test_doctor_says_how_to_get_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = run("doctor")
    assert outcome.code == 1
    assert "apt install gcc-arm-none-eabi" in outcome.out and "apt install qemu-system-arm" in outcome.out


# ---- wrong use: exit code 2 ----


@pytest.mark.parametrize(
    "arguments",
    [
        ("compile", MODEL),
        ("train", "mine", "data.npz"),
        ("train", "mine", "data.npz", "--port", "auto", "--emulate"),
        ("simulate", "mine", "data.npz", "--epochs", "0"),
        ("nonsense",),
    ],
)
def test_wrong_use(run: Run, arguments: tuple[object, ...]) -> None:
    assert run(*arguments).code == 2


# ---- bad models ----


def patched(content: bytes, change: Callable[[bytearray, tflite.Model], None]) -> bytes:
    """The model with some bytes changed in place."""
    buffer = bytearray(content)
    change(buffer, tflite.Model.GetRootAs(bytes(content), 0))
    return bytes(buffer)


def field_at(table: object, vtable_offset: int) -> int:
    """Position of a table's field in the file; the field must be present."""
    tab = table._tab  # type: ignore[attr-defined]
    offset = tab.Offset(vtable_offset)
    assert offset
    return int(offset + tab.Pos)


def make_float(buffer: bytearray, model: tflite.Model) -> None:
    """Float activations (a model with dynamic-range quantization)."""
    graph = model.Subgraphs(0)
    for i in range(graph.TensorsLength()):
        if model.Buffers(graph.Tensors(i).Buffer()).DataLength() == 0:
            buffer[field_at(graph.Tensors(i), 6)] = tflite.TensorType.FLOAT32


def make_dynamic(buffer: bytearray, model: tflite.Model) -> None:
    graph = model.Subgraphs(0)
    tensor = graph.Tensors(graph.Inputs(0))
    start = tensor._tab.Vector(tensor._tab.Offset(4))
    buffer[start + 4 : start + 8] = (-1).to_bytes(4, "little", signed=True)


def make_unknown(buffer: bytearray, model: tflite.Model) -> None:
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        if code.BuiltinCode() == tflite.BuiltinOperator.MEAN:
            buffer[field_at(code, 4)] = tflite.BuiltinOperator.SVDF
            buffer[field_at(code, 10)] = tflite.BuiltinOperator.SVDF


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


BAD_MODELS: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "not a model": (lambda content: b"PK\x03\x04 certainly not" * 20, ("bad.tflite",)),
    "empty": (lambda content: b"", ("bad.tflite",)),
    "truncated": (cut, ("bad.tflite",)),
    "float": (lambda content: patched(content, make_float), ("float", "TFLITE_BUILTINS_INT8")),
    "dynamic shape": (lambda content: patched(content, make_dynamic), ("-1", "fixed")),
    "unknown operator": (lambda content: patched(content, make_unknown), ("SVDF", "operator 4")),
}


@pytest.mark.parametrize("name", BAD_MODELS)
@pytest.mark.parametrize("command", ["inspect", "compile"])
def test_bad_model(run: Run, tmp_path: Path, name: str, command: str) -> None:
    make, says = BAD_MODELS[name]
    (tmp_path / "bad.tflite").write_bytes(make(MODEL.read_bytes()))
    before = tree(tmp_path)
    more = ("--board", "netduinoplus2", "-o", "mine") if command == "compile" else ()
    assert_refused(run(command, "bad.tflite", *more), *says)
    assert tree(tmp_path) == before and not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--board", "netduinoplus3"), ("netduinoplus3", "netduinoplus2")),
        (("--board", "netduinoplus2", "--rank", "64", "--adapt", "all"), ("131072", "SRAM", "more than")),
        (("--board", "netduinoplus2", "--rank", "0"), ("rank",)),
        (("--board", "netduinoplus2", "--adapt", "nothing_like_it"), ("nothing_like_it",)),
        (("--board", "netduinoplus2", "--numerics", "f16"), ("f16", "f32")),
        (("--board", "netduinoplus2", "--loss", "hinge"), ("hinge",)),
        (("--board", "netduinoplus2", "--alpha", "nan"), ("alpha",)),
    ],
)
def test_compile_refusals(run: Run, tmp_path: Path, arguments: tuple[str, ...], says: tuple[str, ...]) -> None:
    assert_refused(run("compile", MODEL, "-o", "mine", *arguments), *says)
    assert tree(tmp_path) == {}


def test_missing_model(run: Run, tmp_path: Path) -> None:
    assert_refused(run("compile", "nowhere.tflite", "--board", "native", "-o", "mine"), "nowhere.tflite")
    assert tree(tmp_path) == {}


# ---- bad data ----


def save(path: Path, **arrays: object) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


X, Y = np.zeros((4, 128, 6), np.int8), np.arange(4)


def huge(path: Path) -> None:
    """A small file whose header claims 16 TiB."""
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 41,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())


def text(path: Path) -> None:
    path.write_bytes(b"x,y\n1,2\n")


def half(path: Path) -> None:
    save(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:500])


BAD_DATA: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing": (lambda p: None, ("no such file",)),
    "not npz": (text, ("not an .npz",)),
    "cut": (half, ("cut",)),
    "no x": (lambda p: save(p, samples=X, y=Y), ("'x'", "samples")),
    "no y": (lambda p: save(p, x=X), ("'y'",)),
    "pickled": (lambda p: save(p, x=np.array([{}, {}], object), y=Y[:2]), ("objects", "never unpickled")),
    "text": (lambda p: save(p, x=np.array(["a", "b"]), y=Y[:2]), ("dtype",)),
    "empty": (lambda p: save(p, x=X[:0], y=Y[:0]), ("empty",)),
    "lengths": (lambda p: save(p, x=X, y=Y[:3]), ("4 samples", "3")),
    "huge": (huge, ("limit is 2,147,483,648",)),
    "names": (lambda p: save(p, x=X, y=Y, label_names=np.arange(3)), ("label_names",)),
    "shape": (lambda p: save(p, x=X[:, :100], y=Y), ("[4, 100, 6]", "[N, 128, 6]")),
    "dtype": (lambda p: save(p, x=X.astype(np.int32), y=Y), ("int32", "int8")),
    "not finite": (lambda p: save(p, x=np.full(X.shape, np.nan, np.float32), y=Y), ("NaN", "sample 0")),
    "label too large": (lambda p: save(p, x=X, y=Y + 3), ("label 6", "0..5", "reserve outputs")),
    "label negative": (lambda p: save(p, x=X, y=Y - 1), ("label -1", "0..5")),
    "label float": (lambda p: save(p, x=X, y=Y.astype(np.float32)), ("float32", "integers")),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(run: Run, shared: Path, tmp_path: Path, name: str) -> None:
    make, says = BAD_DATA[name]
    make(tmp_path / "bad.npz")
    before = tree(tmp_path)
    assert_refused(run("simulate", shared / "mine", "bad.npz", "--csv", "o.csv", "-o", "a"), *says)
    assert tree(tmp_path) == before and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--lr", "nan"), ("--lr", "0"), ("--lr", "-1"), ("--batch-size", "0"), ("--momentum", "1"), ("--rounding", "up"),
     ("--clip-norm", "-1"), ("--weight-decay", "inf"), ("--seed", "-1"), ("--lr-b-ratio", "0")],
)  # fmt: skip
def test_bad_settings(run: Run, shared: Path, tmp_path: Path, option: str, value: str) -> None:
    outcome = run("simulate", shared / "mine", shared / "data.npz", option, value, "-o", "a")
    assert_refused(outcome, option[2:].replace("-", "_"), value)
    assert tree(tmp_path) == {}


def test_explosion_is_reported_and_nothing_is_written(run: Run, shared: Path, tmp_path: Path) -> None:
    command = ("simulate", shared / "mine", shared / "data.npz", "--epochs", "5", "--lr", "1000")
    outcome = run(*command, "-o", "a", "--csv", "c.csv")
    assert_refused(outcome, "diverged", "lower --lr", "--clip-norm")
    assert tree(tmp_path) == {}


# ---- bad projects, adapters, devices, tools ----


def test_not_a_project(run: Run, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for command in (("build", "folder"), ("emulate", "folder"), ("report", "folder", "-o", "r.html"),
                    ("simulate", "folder", shared / "data.npz")):  # fmt: skip
        assert_refused(run(*command), "folder", "not a compiled project")
    assert tree(tmp_path) == {}


def test_not_built(run: Run, shared: Path) -> None:
    assert_refused(run("emulate", shared / "mine"), "not built", "lora-mcu build")


def test_adapter_of_another_model_or_rank(run: Run, shared: Path, tmp_path: Path) -> None:
    lora_mcu.compile(MODEL, board="native", adapt="all", rank=2).twin().adapter().save(tmp_path / "other")
    before = tree(tmp_path)
    assert_refused(run("eval", shared / "mine", shared / "data.npz", "--twin", "--adapter", "other"), "rank")
    assert_refused(run("eval", shared / "mine", shared / "data.npz", "--twin", "--adapter", "nowhere"), "nowhere")
    (tmp_path / "other" / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    assert_refused(run("adapter", "push", "other", "--port", "socket://127.0.0.1:9"), "adapter_model.safetensors")
    assert set(tree(tmp_path)) == set(before)


def test_no_such_port(run: Run, shared: Path, tmp_path: Path) -> None:
    for command in (("adapter", "pull", "-o", "a"), ("train", shared / "mine", shared / "data.npz", "-o", "a")):
        assert_refused(run(*command, "--port", "/dev/ttyNOWHERE"), "/dev/ttyNOWHERE")
        assert_refused(run(*command, "--port", "socket://127.0.0.1:9"), "127.0.0.1:9")
    assert tree(tmp_path) == {}


def test_device_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = run("adapter", "pull", "-o", "a", "--port", f"socket://127.0.0.1:{server.getsockname()[1]}")
    assert_refused(outcome, "answer")
    assert tree(tmp_path) == {}


def test_missing_compiler_and_emulator(run: Run, shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(shared / "mine", tmp_path / "mine")
    image = tmp_path / "mine" / ".pio" / "build" / "netduinoplus2" / "firmware.elf"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(run("build", "mine"), "arm-none-eabi-gcc", "apt install gcc-arm-none-eabi")
    image.parent.mkdir(parents=True)
    image.write_bytes(b"")
    assert_refused(run("emulate", "mine"), "qemu-system-arm", "apt install")
    assert_refused(run("simulate", "mine", shared / "data.npz"), "gcc")


def test_reading_fails_with_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data.npz").mkdir()
    assert_refused(run("simulate", "mine", "data.npz"), "data.npz")
