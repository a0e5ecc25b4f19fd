# Two commands: `make demo` and `make test`. Everything lives in .venv, .dagster and .demo; `make clean` removes them.
SHELL := /bin/bash -euo pipefail
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# podman builds and runs; crun, its usual runtime, does not work everywhere, runc does. Prometheus tests its rules, and
# Chromium the desk's pages.
ENGINE := podman buildah runc conmon uidmap catatonit netavark aardvark-dns iptables skopeo docker-registry mmdebstrap \
	debian-archive-keyring gpg prometheus prometheus-alertmanager chromium fonts-dejavu-core postgresql

# Threads that wait in a spin slow each other down where several processes share few cores.
export OMP_WAIT_POLICY ?= PASSIVE
export DAGSTER_HOME ?= $(CURDIR)/.dagster

.PHONY: install engine demo test lint benchmark dev serve desk clean help

help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

install: $(INSTALLED) ## the environment alone, into .venv

$(INSTALLED): constraints.txt pyproject.toml setup.cfg
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing pinned dependencies into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

engine: ## what tests with containers, Prometheus, PostgreSQL and a browser need, from Debian; as root
	@dpkg --status $(ENGINE) >/dev/null 2>&1 || { apt-get update --quiet && \
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $(ENGINE); }

demo: install ## a sample company, twelve months, from raw tables to a served model
	@$(BIN)/matching-platform demo

test: install lint ## all tests, linters, type checks and import rules
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

benchmark: install ## the README's comparison, on two folders of tables: COMPANY=… PAY_TO_INV=…
	@test -n "$(COMPANY)" -a -n "$(PAY_TO_INV)" || { echo "Name the folders of tables to measure on: \
	make benchmark COMPANY=folder PAY_TO_INV=folder" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.figures "$(COMPANY)" "$(PAY_TO_INV)"

dev: install ## the Dagster UI over the demo's instance
	@mkdir -p $(DAGSTER_HOME)
	@test -e $(DAGSTER_HOME)/dagster.yaml || cp deploy/dagster/dagster.yaml $(DAGSTER_HOME)/
	@$(BIN)/dg dev

serve: install ## the champion, on its stable port, until it is stopped
	@$(BIN)/matching-platform serve

desk: install ## the review desk, until it is stopped
	@$(BIN)/matching-platform desk

clean: ## removes the environment, the demo's data and the instance
	rm -rf $(VENV) .dagster .demo .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
