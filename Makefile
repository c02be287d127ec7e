# The two commands of the README: `make demo` and `make test`. Both build and share
# .venv, on a machine that has only Python 3.11, 3.12 or 3.13 and make.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))' \
	2>/dev/null && echo $$python && break; done)
# tensorflow-cpu has no builds for macOS.
TENSORFLOW ?= $(if $(filter Darwin,$(shell uname -s)),tensorflow,tensorflow-cpu)
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed-$(TENSORFLOW)
DEMO_WORKDIR ?= workdir/demo
DEMO_VIDEO_WORKDIR ?= workdir/demo_video
DEMO_FLAGS ?=
TEST_FLAGS ?=
NOX_FLAGS ?=
# A process a core, at most four: each holds a TensorFlow of its own.
PYTEST = $(RUN) -m pytest -n auto --maxprocesses=4 --dist worksteal

.PHONY: demo demo-video test test-all backends readme set-repository constraints lint clean

demo: $(INSTALLED)
	$(RUN) -m trainers.train --config=trainers/configs/demo.py --workdir=$(DEMO_WORKDIR) $(DEMO_FLAGS)
	$(RUN) -m trainers.demo --workdir=$(DEMO_WORKDIR)

demo-video: $(INSTALLED)
	$(RUN) -m trainers.train --config=trainers/configs/demo_video.py --workdir=$(DEMO_VIDEO_WORKDIR) $(DEMO_FLAGS)
	$(RUN) -m trainers.demo_video --workdir=$(DEMO_VIDEO_WORKDIR)

# What shows that the installation and a change are sound, in minutes; TEST_FLAGS="-m slow" for the
# rest, test-all for both.
test: $(INSTALLED)
	$(PYTEST) -m "not slow and not extra" $(TEST_FLAGS)

test-all: $(INSTALLED)
	$(PYTEST) -m "not extra" $(TEST_FLAGS)

# The README's pictures, outputs and tables. The benchmarks behind the tables are run by hand.
readme: $(INSTALLED)
	rm -rf workdir/readme
	$(MAKE) --no-print-directory demo DEMO_WORKDIR=workdir/readme > benchmarks/results/demo_output.txt
	cp workdir/readme/attention_maps.png benchmarks/results/demo_attention_maps.png
	rm -rf workdir/readme_video
	$(MAKE) --no-print-directory demo-video DEMO_VIDEO_WORKDIR=workdir/readme_video > benchmarks/results/demo_video_output.txt
	cp workdir/readme_video/attention_maps.png benchmarks/results/demo_video_attention_maps.png
	$(RUN) -m benchmarks.readme_tables

# Writes the address of the repository into pyproject.toml, CITATION.cff and the notebooks:
# make set-repository URL=https://github.com/OWNER/NAME
set-repository:
	$(PYTHON) .ci/set_repository.py "$(URL)"

# The library's quick tests on each backend alone, and inside others' Transformers.
backends: $(INSTALLED)
	$(RUN) -m nox $(NOX_FLAGS)

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy tokenlearner_keras trainers benchmarks noxfile.py

# The releases that `make` installs and so tests: the newest on each Python that pyproject.toml takes.
constraints: $(INSTALLED)
	$(VENV)/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate \
		$(addprefix --extra ,tensorflow tensorflow-cpu train demo video export notebooks test dev) \
		--output-file requirements/constraints.txt pyproject.toml

$(INSTALLED): pyproject.toml setup.py requirements/constraints.txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11, 3.12 or 3.13 on the path (TensorFlow has no build for later ones); found $$(python3 --version 2>&1 || echo no Python)."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; on Debian or Ubuntu: apt-get install python3-venv"; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint requirements/constraints.txt --editable ".[$(TENSORFLOW),train,demo,video,export,notebooks,test,dev]"
	@touch $@

clean:
	rm -rf .venv .nox build dist *.egg-info
