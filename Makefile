# Every target sets up .venv by itself and repeats in seconds when nothing changed: the demo's packages first, what
# tests, site and type checker need on top of them.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The versions that the suite passed with; `make ... CONSTRAINTS=` takes the newest that pyproject.toml allows.
CONSTRAINTS := -c constraints.txt

.PHONY: demo test coverage mutants fuzz faults lint types notebooks docs bench scoreboard wheel release sbom trainers constraints clean
.DEFAULT_GOAL := test

# PIP_FLAGS is there for mirrors and caches.
.venv/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet $(PIP_FLAGS) $(CONSTRAINTS) -e ".[demo]"
	touch $@

# Dependency groups take pip 25.1; a venv of Python 3.11 begins with an older one.
.venv/dev: .venv/demo
	$(PIP) install --quiet $(PIP_FLAGS) "pip>=25.1"
	$(PIP) install --quiet $(PIP_FLAGS) $(CONSTRAINTS) -e ".[train,eval,ray,app,demo]" --group dev --group docs
	touch $@

.venv/bench: .venv/dev
	$(PIP) install --quiet $(PIP_FLAGS) $(CONSTRAINTS) --group bench
	touch $@

demo: .venv/demo
	$(BIN)/mixlaw demo $(if $(STUDY),$(STUDY),$(if $(SMOKE),out/smoke,out/demo)) $(if $(SMOKE),--smoke)

# Three processes of one thread each, for two cores: tests wait for processes and servers a fifth of the time. Whole files
# to each, so that fixtures are shared. What Python compiles is kept even where the environment says otherwise: tests start
# a hundred processes.
test: .venv/dev
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

# Lines and branches of the three folders that tests take, files with the most left first; figures of several calls with
# TESTS add up until out/coverage is deleted. Where the code has changed since, delete it.
coverage: .venv/coverage
	mkdir -p out/coverage
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)
	$(BIN)/coverage combine --append --quiet out/coverage && $(BIN)/coverage report

.venv/coverage: .venv/dev
	$(PIP) install --quiet $(PIP_FLAGS) $(CONSTRAINTS) --group coverage
	touch $@

# Changed operators, constants, conditions and calls, and whether tests notice; the figures of dev/TESTS.md.
mutants: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python dev/mutants.py --hand
	OMP_NUM_THREADS=1 $(BIN)/python dev/mutants.py $(MUTANTS)

# Many inputs that are wrong on purpose, others each time; for the night. The table that it prints is that of docs/fuzzing.md.
fuzz: .venv/dev
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/fuzzing.py $(FUZZ)

# Kills, full disks, damaged files: tests/faults.py. Takes minutes; as root, it mounts small disks in memory.
faults: .venv/dev
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/faults.py $(FAULTS)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev
	$(BIN)/mypy

# From the wheel, as everybody else has mixlaw.
notebooks: wheel
	$(BIN)/python notebooks/execute.py --site out/wheel/site

# Into out/site; mkdocs.yml makes every warning an error. The variable silences an announcement of the theme's.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/bench
	$(BIN)/python -m benchmarks

scoreboard: .venv/dev
	$(BIN)/python benchmarks/scoreboard.py

# A wheel holds the three folders of the top, and works apart from the checkout.
wheel: .venv/dev
	rm -rf build out/wheel && mkdir -p out/wheel
	$(PIP) wheel --quiet --no-deps -w out/wheel .
	$(PIP) install --quiet --no-deps --target out/wheel/site out/wheel/*.whl
	cd out/wheel && PYTHONPATH=site ../../$(BIN)/python -c "import mixlaw.runner.plan.tree, mixlaw.analysis.laws, mixlaw.optimizer.target.target as t; assert 'out/wheel/site' in t.__file__, t.__file__"
	cd out/wheel && PYTHONPATH=site ../../$(BIN)/python -m mixlaw new study --json

# Wheel and sdist, each installed in a clean environment and tried, then with each extra alone: minutes, and gigabytes of torch.
release: .venv/dev
	rm -rf build out/release && mkdir -p out
	$(BIN)/python tests/release.py out/release

# What an installation of the wheel without extras consists of, as CycloneDX, and its licences; after `make release`.
sbom: out/release/cyclonedx
	out/release/cyclonedx/bin/cyclonedx-py environment out/release/wheel-none/bin/python --pyproject pyproject.toml \
	  --output-reproducible -o out/sbom.json
	$(BIN)/python tests/sbom.py out/sbom.json

out/release/cyclonedx:
	test -x out/release/wheel-none/bin/python || $(MAKE) release
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) "cyclonedx-bom==7.5.0"

# Trainers that exports are checked against, apart from mixlaw's own libraries; without them those tests are skipped.
trainers: out/trainers/installed

out/trainers/installed: tests/trainers.txt .venv/dev
	rm -rf out/trainers
	$(PIP) install --quiet $(PIP_FLAGS) --no-deps --target out/trainers -r tests/trainers.txt
	touch $@

# What is installed here, for the next who installs: after `rm -rf .venv; make test CONSTRAINTS=`, or nothing changes. Torch
# keeps the range of pyproject.toml, as its builds for CPU and CUDA have names of their own.
constraints: .venv/dev
	mkdir -p out
	{ echo "# Written by make constraints: the versions that the suite passed with, on Python 3.11."; \
	  $(PIP) freeze --exclude-editable | sed -E -e '/ @ /d' -e 's/\+.*//' -e 's/^torch==.*/torch>=2.9,<2.14/'; } > out/constraints.txt
	mv out/constraints.txt constraints.txt

clean:
	rm -rf .venv out build dist src/mixlaw.egg-info
