# SPDX-License-Identifier: Apache-2.0
# make demo   the main job: compile, build, train in the emulator, report (build/demo)
# make test   the whole test suite; .ci/run calls this
# make lint   ruff and mypy
# make wheel  sdist and wheel into dist/
# make fuzz-importer  100,000 damaged and hostile .tflite files (docs/models.md)
# make fuzz-link  ten million hostile frames, then libFuzzer; make soak  100,000 samples over a bad line (docs/protocol.md)
# A Debian 12 with Python 3.11, gcc, make and git is enough: what is missing is installed (apt as root, ./.venv with pip).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint wheel fuzz-importer fuzz-link soak tools clean
.SUFFIXES:

demo: $(VENV)/.demo
	@$(BIN)/python examples/har/demo.py

test: $(VENV)/.test
	@$(BIN)/python -m pytest

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/mypy

fuzz-importer: $(VENV)/.test
	@$(BIN)/python tests/unit/importer_fuzz.py

fuzz-link: $(VENV)/.test
	@$(BIN)/python tests/link/fuzz_run.py

soak: $(VENV)/.test
	@$(BIN)/python tests/link/soak.py

wheel: $(BIN)/python
	@$(PIP) 'build>=1.2'
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .

clean:
	rm -rf build dist

# Nothing to do and nothing asked where the commands are there already.
tools:
	@missing=""; \
	command -v arm-none-eabi-gcc >/dev/null || missing="$$missing gcc-arm-none-eabi"; \
	command -v qemu-system-arm >/dev/null || missing="$$missing qemu-system-arm"; \
	test -z "$(filter test,$(MAKECMDGOALS))" || command -v riscv64-unknown-elf-gcc >/dev/null || \
		missing="$$missing gcc-riscv64-unknown-elf"; \
	test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	echo 'int main(void){return 0;}' | gcc -include stdio.h -x c -fsyntax-only - 2>/dev/null || missing="$$missing libc6-dev"; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
		echo "installing$$missing"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	else \
		echo "missing:$$missing. As root: apt-get install -y --no-install-recommends$$missing" >&2; exit 1; \
	fi

$(BIN)/python: | tools
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lora_mcu needs Python 3.11 or newer: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

# A stamp is older than pyproject.toml when the dependencies may have changed.
$(VENV)/.demo: pyproject.toml | tools $(BIN)/python
	@echo "installing lora_mcu and LiteRT into $(VENV)"
	@$(PIP) --editable '.[oracle]'
	@touch $@

$(VENV)/.test: pyproject.toml | tools $(BIN)/python
	@echo "installing lora_mcu, the test tools and TensorFlow into $(VENV)"
	@$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.demo
