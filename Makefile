# Every target sets up .venv by itself and repeats in seconds when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := hf,demo,eval,chat,ray,app,dev,log,docs

.PHONY: demo test lint types notebooks docs bench scoreboard wheel trainers clean
.DEFAULT_GOAL := test

# Installed once per change of pyproject.toml; PIP_FLAGS is there for mirrors and caches.
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[$(EXTRAS)]"
	touch $@

demo: .venv/installed
	$(BIN)/mixlaw demo $(if $(STUDY),$(STUDY),$(if $(SMOKE),out/smoke,out/demo)) $(if $(SMOKE),--smoke)

# Two processes of one thread each, whole files to each, so that fixtures are shared. What Python compiles is kept even
# where the environment says otherwise: tests start a hundred processes.
test: .venv/installed
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

# From the wheel, as everybody else has mixlaw.
notebooks: wheel
	$(BIN)/python notebooks/execute.py --site out/wheel/site

# Into out/site; mkdocs.yml makes every warning an error. The variable silences an announcement of the theme's.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/installed
	$(BIN)/python -m benchmarks

scoreboard: .venv/installed
	$(BIN)/python benchmarks/scoreboard.py

# A wheel holds the three linked folders, and works apart from the checkout.
wheel: .venv/installed
	rm -rf build out/wheel && mkdir -p out/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w out/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target out/wheel/site out/wheel/*.whl
	cd out/wheel && PYTHONPATH=site ../../$(BIN)/python -c "import mixlaw.runner.plan.tree, mixlaw.analysis.laws, mixlaw.optimizer.target.target as t; assert 'out/wheel/site' in t.__file__, t.__file__"
	cd out/wheel && PYTHONPATH=site ../../$(BIN)/python -m mixlaw new study --json

# Trainers that exports are checked against, apart from mixlaw's own libraries; without them those tests are skipped.
trainers: out/trainers/installed

out/trainers/installed: tests/trainers.txt .venv/installed
	rm -rf out/trainers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --target out/trainers -r tests/trainers.txt
	touch $@

clean:
	rm -rf .venv out build dist src/mixlaw.egg-info
