# Two commands do everything on a fresh machine: `make search` and `make test`.
#
# PYTHON: the interpreter that .venv is made with. RUNS: where results go.

PYTHON ?= python3
RUNS ?= runs
TORCH_VERSION := 2.13.0
TFLITE_PACKAGE := pymicro-wakeword==2.5.0
DEBIAN_PACKAGES := adb bubblewrap busybox-static mksh qemu-user \
	libc6-arm64-cross libgcc-s1-arm64-cross libstdc++6-arm64-cross
BIN := .venv/bin

.PHONY: search test debian-packages clean

# The main job on this machine's CPU: profile, table, search, measure, fit, report.
search: .venv/installed
	mkdir -p $(RUNS)
	$(BIN)/latkit search --device cpu --store $(RUNS)/latency.sqlite --output $(RUNS)/search
	$(BIN)/latkit fit --device cpu --store $(RUNS)/latency.sqlite --output $(RUNS)/predictor.json
	$(BIN)/latkit report --search $(RUNS)/search

test: .venv/installed .venv/phone/installed debian-packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not quiet'
	$(BIN)/python -m pytest -m quiet

# torch comes first and pinned, so that no other package asks for another build of it.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# What the tests' phone is made of: a TensorFlow Lite library with the C API, as phones have it.
.venv/phone/installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--upgrade --target .venv/phone $(TFLITE_PACKAGE) || echo "not installed: $(TFLITE_PACKAGE)"
	mkdir -p .venv/phone
	touch $@

# Installed where that may be done; elsewhere the tests that need them skip and name the package.
debian-packages:
	@missing=$$(for package in $(DEBIAN_PACKAGES); do \
		dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null \
			| grep -qx installed || echo $$package; done); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install --yes -qq --no-install-recommends $$missing \
			>/dev/null || echo "not installed: $$missing"; \
	fi

clean:
	rm -rf .venv
