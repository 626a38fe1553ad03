# The one door. `make` alone says what there is.

SHELL := /bin/sh
# Rust as rustup installs it, for shells that don't know of it yet.
export PATH := $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

CAMERAS ?= 90
FAILURE ?= kill
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo test simulation soak requirements check bench dashboards images up down containers package clean

help: ## Say what there is
	@echo 'Understudy: keeps video surveillance filming when a recording server fails.'
	@echo
	@sed -n 's/^\([a-z]*\):.*## /  make \1:/p' $(firstword $(MAKEFILE_LIST)) | awk -F: '{ printf "%-17s %s\n", $$1, $$2 }'
	@echo
	@echo '  make demo CAMERAS=20 FAILURE=manual ARGS="--report report.json --keep"'

setup: ## Install what is missing (Debian, Ubuntu), or say what is
	@scripts/setup

build: setup ## Build everything
	cargo build --locked --workspace

demo: build ## Kill a recording server, and watch a failover server take over and hand back
	target/debug/understudy demo --cameras $(CAMERAS) --failure $(FAILURE) $(ARGS)

test: setup ## Run every test
	scripts/test $(ARGS)

simulation: build ## Run the fleet's decisions through seeded faults, and count them
	target/debug/understudy-simulation $(ARGS)

soak: build ## The same with ever new seeds, until something fails or you end it
	target/debug/understudy-simulation --soak $(ARGS)

requirements: setup ## Each promise with its tests and what they did in this tree's last whole run
	cargo run --quiet --locked --package understudy-requirements

check: setup ## Formatting, lints, documentation, dependencies
	scripts/check

bench: build ## Measure what is promised in numbers, beside its peers
	target/debug/understudy-bench $(ARGS)

dashboards: build ## Draw the dashboards with the data of a real failover, to look at their layout
	mkdir -p target/dashboards
	UNDERSTUDY_PANEL_ANSWERS=$(CURDIR)/target/dashboards/answers.json scripts/test -E 'test(/f5_a1_each_panel/)'
	node dashboards/draw/draw.mjs target/dashboards/answers.json target/dashboards

images: ## Build the container image, by Docker or podman, and its SBOM
	@scripts/tools packaging
	@scripts/images

up: ## Bring a fleet up in containers, with Prometheus and what else can be had
	@scripts/up

down: ## Stop it; recordings and settings stay
	@scripts/down

containers: build ## Kill and cut off a recording server's containers, and see it come back
	@scripts/tools packaging
	@scripts/try-containers

package: build ## Make the Debian package
	@scripts/tools packaging
	@scripts/package

clean: ## Remove what was built
	cargo clean
