# SPDX-License-Identifier: Apache-2.0
"""Library output: compiles everywhere without a warning, keeps its names and its report, and gives the twin's bytes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.odd_models import odd_regression
from projects import HAR

import lora_mcu
from lora_mcu import boards, building
from lora_mcu.codegen.library import EXAMPLES, library_name
from lora_mcu.errors import BoardError, ProjectError
from lora_mcu.session.learner import Learner

ARDUINO = Path(__file__).resolve().parent / "arduino"
WARN = ["-Wall", "-Wextra", "-Werror"]
BARE = ["-ffreestanding", "-DLMCU_FREESTANDING"]
# The optimization and language of Arduino and ESP-IDF; the xtensa compiler is the ESP8266's, a near relative.
C_COMPILERS = {
    "gcc": ["gcc", "-std=gnu17", "-Os", "-fno-pie"],
    "clang": ["clang", "-std=c99", "-Os", "-fno-pie", "-pedantic"],
    "cortex-m4f": ["arm-none-eabi-gcc", "-std=gnu11", "-Os", "-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard",
                   "-mfpu=fpv4-sp-d16", *BARE],
    "cortex-m7f by clang": ["clang", "--target=arm-none-eabi", "-Os", "-mcpu=cortex-m7", *BARE],
    "rv32imc": ["riscv64-unknown-elf-gcc", "-Os", "-march=rv32imc", "-mabi=ilp32", *BARE],
    "xtensa-lx106": ["xtensa-lx106-elf-gcc", "-std=gnu17", "-Os", "-mlongcalls", *BARE],
}  # fmt: skip
CXX_COMPILERS = ("g++", "clang++", "arm-none-eabi-g++", "riscv64-unknown-elf-g++", "xtensa-lx106-elf-g++")
SETTINGS: dict[str, Any] = {"lr": 0.01, "batch_size": 4, "seed": 7}


def need(compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 120) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program() -> lora_mcu.Program:
    return lora_mcu.compile(HAR, board="esp32dev", adapt="all", form="library")


@pytest.fixture(scope="module")
def library(program: lora_mcu.Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program.write(tmp_path_factory.mktemp("library") / "lora_mcu_har")


@pytest.fixture(scope="module")
def objects(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """The library's objects by one of ``C_COMPILERS``, warnings as errors."""
    folder = tmp_path_factory.mktemp("objects")

    def build(target: str) -> list[Path]:
        command, out = C_COMPILERS[target], folder / target
        need(command[0])
        if not out.exists():
            out.mkdir()
            run(*command, *WARN, f"-I{library / 'src'}", "-c", *sorted((library / "src").rglob("*.c")), cwd=out)
        return sorted(out.glob("*.o"))

    return build


# ---- it compiles ----


@pytest.mark.parametrize("target", C_COMPILERS)
def test_every_compiler_takes_it_without_a_warning(
    target: str, objects: Callable[[str], list[Path]], program: lora_mcu.Program
) -> None:
    built = objects(target)
    nm = (
        "arm-none-eabi-nm" if "cortex" in target else C_COMPILERS[target][0].replace("gcc", "nm").replace("clang", "nm")
    )
    need(nm)
    rows = [line.split() for line in run(nm, "-S", *built).splitlines() if line and not line.endswith(":")]
    defined = {row[-1] for row in rows if row[-2] in "TDRBCVW"}
    assert {name for name in defined if not name.startswith("lmcu_")} - {
        "memcpy",
        "memmove",
        "memset",
        "memcmp",
    } == set()
    assert "lmcu_begin" in defined and "main" not in defined
    ram = {row[-1]: int(row[1], 16) for row in rows if row[-2] in "bBdDC"}
    assert ram == program.report().sram


@pytest.mark.parametrize("compiler", CXX_COMPILERS)
def test_headers_serve_c_and_cplusplus(compiler: str, library: Path, tmp_path: Path) -> None:
    need(compiler)
    user = "#include <lmcu_stream.h>\n#include <lmcu_port.h>\nextern lmcu_stream_t s;\nlmcu_stream_t s;\n" + (
        "lmcu_status_t lmcu_user(void);\nlmcu_status_t lmcu_user(void) { lmcu_poll(); return lmcu_begin(&s); }\n"
    )
    (tmp_path / "user.cpp").write_text(user)
    (tmp_path / "user.c").write_text(user)
    for language in (["-std=c++11", "user.cpp"], ["-xc", "-std=c99", "user.c"]):
        command = [compiler, *WARN, "-pedantic", "-ffreestanding", f"-I{library / 'src'}", "-c", "-o", "user.o"]
        run(*command, *language, cwd=tmp_path)
        if compiler == "g++":
            assert " U lmcu_begin" in run("nm", "user.o", cwd=tmp_path)  # a C name, not a C++ one


def test_fast_math_is_refused(library: Path, tmp_path: Path) -> None:
    command = ["gcc", "-ffast-math", f"-I{library / 'src'}", "-c", str(library / "src" / "runtime" / "dense.c")]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode != 0 and "-ffast-math changes results" in refused.stderr


# ---- it runs ----


@pytest.fixture(scope="module")
def sketches(
    library: Path, objects: Callable[[str], list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The library's examples as programs of this computer, behind a stand-in for Arduino's headers."""
    folder = tmp_path_factory.mktemp("sketches")

    def build(name: str) -> Path:
        compile_sketch(library, name, folder)
        run("g++", *WARN, "-fno-pie", f"-I{library / 'src'}", "-c", ARDUINO / "host.cpp", cwd=folder)
        run("g++", "-no-pie", f"{name}.o", "host.o", *objects("gcc"), "-o", name, cwd=folder)
        return folder / name

    return build


def compile_sketch(library: Path, name: str, folder: Path) -> None:
    need("g++")
    sketch = library / "examples" / name / f"{name}.ino"
    include = [f"-I{library / 'src'}", f"-I{ARDUINO}", "-include", "Arduino.h"]
    run("g++", *WARN, "-fno-pie", *include, "-xc++", "-c", sketch, "-o", f"{name}.o", cwd=folder)


@contextmanager
def running(program: Path) -> Iterator[str]:
    """The path of the line of a program that prints it."""
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def samples() -> tuple[Any, Any]:
    with np.load(HAR.with_suffix(".npz"), allow_pickle=False) as data:
        chosen = np.concatenate([np.flatnonzero(data["y"] == label)[:2] for label in range(6)])
        return data["x"][chosen], data["y"][chosen]


def train(learner: Learner) -> bytes:
    learner.configure(**SETTINGS)
    learner.train(*samples())
    learner.store(*samples())
    learner.run_epochs(3)
    return learner.adapter().to_factors(learner.info)


def check_device(port: str, library: Path, program: lora_mcu.Program) -> None:
    """Trains over the line and compares with twins; then the device is reset and is the base again."""
    expected = train(program.twin())
    assert train(lora_mcu.load_project(library).twin()) == expected  # what `simulate` and `train` do with the folder
    x, _ = samples()
    with lora_mcu.Device(port) as device:
        assert device.info == program.info
        base = device.infer(x)
        assert np.array_equal(base, program.twin().infer(x))
        assert train(device) == expected
        assert not np.array_equal(device.infer(x), base)
        device.reboot()
    with lora_mcu.Device(port) as device:
        assert np.array_equal(device.infer(x), base)


def test_the_arduino_example_trains_the_twins_bytes(
    sketches: Callable[[str], Path], library: Path, program: lora_mcu.Program
) -> None:
    with running(sketches("LoraMcuSerial")) as port:
        check_device(port, library, program)


def test_the_example_without_a_line_trains_the_twins_bytes(
    sketches: Callable[[str], Path], program: lora_mcu.Program
) -> None:
    turns = 24
    crc = int(run(sketches("LoraMcuOnDevice"), str(turns)).split()[-1])
    info, twin = program.info, program.twin()
    labels = np.arange(turns) % info.logit_count
    at = np.arange(info.input.nbytes)
    x = np.stack([(at % (label + 2) * 16).astype(np.uint8) for label in labels]).view(np.int8)
    twin.configure(lr=0.01, batch_size=4)
    assert crc != zlib.crc32(twin.adapter().to_factors(info))
    twin.train(x.reshape(-1, *info.input.shape), labels)
    assert crc == zlib.crc32(twin.adapter().to_factors(info))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_regression_compile(name: str, tmp_path: Path) -> None:
    (tmp_path / "odd.tflite").write_bytes(odd_regression())
    program = lora_mcu.compile(tmp_path / "odd.tflite", board="esp32_s3_devkitc_1", loss="mse", form="library")
    assert program.info.loss == "mse"
    compile_sketch(program.write(tmp_path / "library"), name, tmp_path)


# ---- the four build systems ----


def test_platformio_builds_a_program_with_it(library: Path, program: lora_mcu.Program, tmp_path: Path) -> None:
    """`lib_extra_dirs` in a project of any platform: here the one that builds for this computer."""
    files = lora_mcu.compile(HAR, board="native").files()
    project = tmp_path / "project"
    for name, content in files.items():
        if name.startswith("platform/"):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_bytes(content)
    (project / "platformio.ini").write_text(
        "[platformio]\ndefault_envs = native\ncore_dir = .pio/core\n"
        "[env:native]\nplatform = ./platform\nboard = native\n"
        f"lib_extra_dirs = {library.parent}\nbuild_flags = -I{ARDUINO}\nextra_scripts = post:link.py\n"
    )
    (project / "link.py").write_text('Import("env")\nenv.Append(LIBS=["stdc++"])\n')
    (project / "src").mkdir()
    sketch = (library / "examples" / "LoraMcuSerial" / "LoraMcuSerial.ino").read_text()
    (project / "src" / "main.cpp").write_text('#include "Arduino.h"\n' + sketch)
    shutil.copy(ARDUINO / "host.cpp", project / "src")
    run(sys.executable, "-m", "platformio", "run", cwd=project, seconds=250)
    with running(building.image(project)) as port:
        check_device(port, library, program)


def test_platformio_accepts_the_manifest(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from platformio.package.manifest.parser import ManifestParserFactory
    from platformio.package.manifest.schema import ManifestSchema

    licences = {"licenses": [{"licenseId": "Apache-2.0"}]}  # otherwise it asks the network for the list
    monkeypatch.setattr(ManifestSchema, "load_spdx_licenses", staticmethod(lambda *_: licences))
    for name in ("library.json", "library.properties"):
        data = ManifestParserFactory.new_from_file(str(library / name)).as_dict()
        valid = ManifestSchema().load_manifest(data)
        assert valid["name"] == "lora_mcu_har" and valid["version"] == lora_mcu.__version__
        found = {example["name"] for example in data.get("examples", [])}
        assert found == (set(EXAMPLES) if name == "library.json" else set())


def test_arduino_properties(library: Path) -> None:
    rows = dict(line.split("=", 1) for line in (library / "library.properties").read_text().splitlines())
    wanted = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert wanted <= set(rows)
    assert rows["category"] == "Data Processing" and rows["architectures"] == "*"
    assert (library / "src" / rows["includes"]).is_file()


def test_cmake_builds_it_and_esp_idf_is_told_every_file(library: Path, tmp_path: Path) -> None:
    need("cmake")
    (tmp_path / "main.c").write_text(
        '#include "lmcu.h"\nint main(void) { lmcu_status_t s = lmcu_init(); lmcu_infer(); return (int)s; }\n'
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(app C)\n"
        f"add_subdirectory({library} lora)\nadd_executable(app main.c)\ntarget_link_libraries(app lora_mcu)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "out", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror")
    run("cmake", "--build", tmp_path / "out", "-j2")
    run(tmp_path / "out" / "app")
    (tmp_path / "idf.cmake").write_text(
        "set(ESP_PLATFORM 1)\nset(COMPONENT_LIB lib)\nfunction(target_compile_options)\nendfunction()\n"
        'function(idf_component_register)\nmessage("${ARGV}")\nendfunction()\n'
        f"include({library}/CMakeLists.txt)\n"
    )
    told = subprocess.run(["cmake", "-P", "idf.cmake"], cwd=tmp_path, capture_output=True, text=True).stderr
    sources = told.strip().split(";")
    assert (sources[0], sources[-2:]) == ("SRCS", ["INCLUDE_DIRS", "src"])
    assert set(sources[1:-2]) == {str(p.relative_to(library)) for p in library.rglob("*.c")}
    assert re.search(r'^version: "\d+\.\d+\.\d+"$', (library / "idf_component.yml").read_text(), re.M)


# ---- what it is and is not ----


def test_equal_inputs_give_equal_libraries(program: lora_mcu.Program, library: Path) -> None:
    files = program.files()
    assert files == {str(p.relative_to(library)): p.read_bytes() for p in library.rglob("*") if p.is_file()}
    assert str(HAR.parent) not in "".join(content.decode("latin-1") for content in files.values())
    assert json.loads(files["lora_mcu.json"])["info"]["board"] == "esp32dev"


def test_a_microcontroller_of_a_project_serves_libraries_too() -> None:
    board = boards.load("nucleo_f446re").as_library()
    program = lora_mcu.compile(HAR, board="nucleo_f446re", form="library")
    assert program.report().sram_bytes <= board.sram_bytes == 128 * 1024 - boards.PROGRAM_BYTES
    assert {"lmcu_stack", "lmcu_rx_ring"} & set(program.report().sram) == set()


def test_sram_is_limited_on_request() -> None:
    program = lora_mcu.compile(HAR, board="esp32dev", form="library", sram=40_000)
    assert 35_000 < program.report().sram_bytes <= 40_000
    with pytest.raises(BoardError, match=r"^esp32dev has 122880 bytes of SRAM to use, not 200000$"):
        lora_mcu.compile(HAR, board="esp32dev", form="library", sram=200_000)
    with pytest.raises(BoardError, match="needs .* bytes of SRAM"):
        lora_mcu.compile(HAR, board="esp32dev", form="library", sram=4_000)


def test_boards_of_frameworks_are_refused_as_projects_by_name() -> None:
    with pytest.raises(BoardError, match=r"^esp32dev runs programs of Arduino or ESP-IDF: compile with --as library"):
        lora_mcu.compile(HAR, board="esp32dev")
    with pytest.raises(BoardError, match=r"^form 'arduino' is unknown; there are project and library$"):
        lora_mcu.compile(HAR, board="esp32dev", form="arduino")


def test_a_library_is_not_built_or_emulated(library: Path) -> None:
    for refused in (lora_mcu.build, lambda folder: lora_mcu.emulate(folder).__enter__()):
        with pytest.raises(ProjectError, match=r"lora_mcu_har is a library, not a project: build the program"):
            refused(library)


@pytest.mark.parametrize(
    ("model", "name"),
    [("har", "lora_mcu_har"), ("my model-é (2)", "lora_mcu_my_model_2"), ("x" * 99, "lora_mcu_" + "x" * 31)],
)
def test_names_that_all_build_systems_take(model: str, name: str) -> None:
    assert library_name(model) == name
