# SPDX-License-Identifier: Apache-2.0
"""What is shipped: the wheel works without a checkout, style and types are clean, versions agree."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import lora_mcu
from benchmarks import readme
from lora_mcu.sram import runtime_config

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DATA_FOLDERS = ("templates", "firmware", "boards", "renode")


def tracked(*patterns: str) -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return subprocess.check_output(["git", "ls-files", "--", *patterns], cwd=ROOT, text=True).splitlines()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, built from the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    return folder


@pytest.mark.slow
def test_wheel_holds_package_and_data(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = set(tracked("lora_mcu")) | {f"lora_mcu/_data/{p}" for p in tracked(*DATA_FOLDERS)}
    assert wanted - names == set()
    extra = {n for n in names - wanted if ".dist-info/" not in n}
    assert {n for n in extra if n.endswith((".pyc", ".o", ".elf")) or "/tests/" in n} == set()


@pytest.mark.slow
def test_sdist_is_complete(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {p for p in tracked() if not p.startswith(".")} - names == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installed_wheel_compiles_builds_and_simulates(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fresh environment outside the checkout, without extras."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it could name the checkout
    (wheel,) = dist.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    install = [binaries / "python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(install, check=True, capture_output=True, text=True, timeout=400)
    readme.prepare(tmp_path)

    def run(*arguments: str) -> str:
        command = [binaries / "lora-mcu", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import lora_mcu, lora_mcu.resources as r; print(lora_mcu.__file__, r.path('firmware'))"
    found = subprocess.check_output([binaries / "python", "-c", where], cwd=tmp_path, text=True)
    assert str(ROOT) not in found and "_data/firmware" in found
    listed = subprocess.check_output([binaries / "python", "-m", "pip", "list"], text=True).lower()
    assert "tensorflow" not in listed and "litert" not in listed and "pytest" not in listed
    run("compile", "model.tflite", "--board", "netduinoplus2", "-o", "mine")
    assert "bytes of flash" in run("build", "mine")
    assert "accuracy" in run("simulate", "mine", "data.npz", "--epochs", "2", "--lr", "0.02")
    trained = run("train", "mine", "data.npz", "--emulate", "--epochs", "2", "--lr", "0.02", "-o", "device")
    assert "(0 skipped)" in trained
    run("simulate", "mine", "data.npz", "--epochs", "2", "--lr", "0.02", "-o", "twin")
    name = "adapter_model.safetensors"
    assert (tmp_path / "device" / name).read_bytes() == (tmp_path / "twin" / name).read_bytes()
    run("report", "mine", "-o", "report.html")


def test_versions_agree() -> None:
    config = runtime_config()
    firmware = ".".join(str(config[f"FIRMWARE_{part}"]) for part in ("MAJOR", "MINOR", "PATCH"))
    assert PROJECT["version"] == lora_mcu.__version__ == firmware
    assert f"## {firmware}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_source_names_its_licence() -> None:
    sources = tracked("*.py", "*.c", "*.h", "*.j2", "*.toml", "*.resc", "*.robot", "*.S", "*.ld", "Makefile")
    heads = {p: (ROOT / p).read_text(encoding="utf-8")[:300] for p in sources if p != "pyproject.toml"}
    assert [p for p, head in heads.items() if head and "SPDX-License-Identifier: Apache-2.0" not in head] == []


def test_ruff_is_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_types_are_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
