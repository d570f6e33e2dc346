# CapConduit: make run, make test, make demo. `make help` says the rest.

# embedded (SQLite) or production (PostgreSQL, Redis: private ones where the
# settings name none). Each has its own folder.
PROFILE ?= embedded
DATA ?= $(if $(filter production,$(PROFILE)),.run-production,.run)
HTTP_PORT ?= 8080
SIP_ADDRESS ?= 127.0.0.1
SIP_PORT ?= 5060
ARI_PORT ?= 8088
DATABASE_PORT ?= 15432
REDIS_PORT ?= 16379
RTP_PORTS ?= 10000-12000
PATIENCE ?= 8
FALLBACK ?= refuse
# Recipes read them from the environment, whatever characters are in them.
export PROFILE CONFIG DATA HTTP_PORT SIP_ADDRESS SIP_PORT ARI_PORT DATABASE_PORT REDIS_PORT RTP_PORTS PATIENCE FALLBACK

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run demo test soak soak-ledger bench lint openapi console build tools toolchain

PROGRAM := target/debug/capconduit
NEEDED := asterisk sipp $(if $(filter production,$(PROFILE)),postgres redis)
OPTIONS = --profile "$$PROFILE" --data "$$DATA" --http-port "$$HTTP_PORT" \
  --sip-address "$$SIP_ADDRESS" --sip-port "$$SIP_PORT" --ari-port "$$ARI_PORT" \
  --database-port "$$DATABASE_PORT" --redis-port "$$REDIS_PORT" \
  --rtp-ports "$$RTP_PORTS" --patience-seconds "$$PATIENCE" --fallback "$$FALLBACK" \
  $(if $(CONFIG),--config "$$CONFIG")

help:
	@echo 'make run      run everything on this machine: Asterisk, SQLite, the service; Ctrl-C ends it all'
	@echo '              DATA=dir HTTP_PORT=8080 SIP_ADDRESS=127.0.0.1 SIP_PORT=5060 ARI_PORT=8088 RTP_PORTS=10000-12000'
	@echo '              PATIENCE=8 FALLBACK=refuse: callers while the service is away; or announce:FILE, dial:NUMBER@ENDPOINT'
	@echo '              PROFILE=production: PostgreSQL and Redis, private ones where the settings name none'
	@echo '              CONFIG=file DATABASE_PORT=15432 REDIS_PORT=16379'
	@echo 'make demo     sample data and a few dozen calls, shown live (beside a running make run, or alone)'
	@echo 'make test     fetch what the tests need, check style, run all tests, those of calls on both profiles'
	@echo 'make soak     an hour of real calls at half the highest clean rate: nothing may grow (SOAK_MINUTES=60)'
	@echo 'make soak-ledger  the ledger against its model, TIMES=20 times as long as in make test'
	@echo 'make bench    the ledger in memory and in Redis, beside an empty script: two minutes on a quiet machine'
	@echo 'make lint     formatting, clippy, the types of the console, shellcheck where it is installed'
	@echo 'make console  build the console with Node.js; make run does so too, where it can'
	@echo 'make openapi  write openapi/admin.yaml and openapi/seller.yaml anew'

run: build
	@scripts/fetch-tools $(NEEDED)
	@exec $(PROGRAM) run $(OPTIONS)

demo: build
	@scripts/fetch-tools $(NEEDED)
	@exec $(PROGRAM) demo $(OPTIONS)

# These keep the cores busy, and calls are told to the second: one after the other.
LOUD := documented:: capacity::model capacity::racing
# These measure to the millisecond: each has the machine for itself.
ALONE := faults::killed faults::races faults::overloaded endurance:: crowd::
test: tools console lint
	cargo test --workspace --locked -- $(LOUD:%=--skip %) $(ALONE:%=--skip %)
	CAPCONDUIT_TEST_PROFILE=production cargo test --test it --locked -- calls::
	cargo test --test it --locked -- $(LOUD)
	cargo test --test it --locked -- $(ALONE) --test-threads 1

# How long calls go on, in minutes, after the highest clean rate was looked for.
SOAK_MINUTES ?= 60
soak: toolchain
	@scripts/fetch-tools asterisk sipp
	SOAK_MINUTES=$(SOAK_MINUTES) cargo test --test it --locked -- endurance:: --nocapture

# How many times as many sequences as `make test` tries.
TIMES ?= 20
soak-ledger: toolchain
	@scripts/fetch-tools redis
	CAPCONDUIT_SOAK=$(TIMES) cargo test --test it --locked -- capacity::model

bench: toolchain
	@scripts/fetch-tools redis
	cargo bench --locked --bench ledger

tools:
	@scripts/fetch-tools asterisk sipp postgres redis
	@scripts/fetch-api-tools

lint: toolchain
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if [ -x "$${CAPCONDUIT_TOOLS:-.tools}/node/node_modules/.bin/tsc" ]; then scripts/build-console --check; fi
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*; fi

openapi: build
	@mkdir -p openapi
	@$(PROGRAM) openapi admin > openapi/admin.yaml
	@$(PROGRAM) openapi seller > openapi/seller.yaml
	@echo 'openapi/admin.yaml and openapi/seller.yaml are written.'

console:
	@scripts/build-console

build: toolchain
	@scripts/build-console --optional
	@if [ ! -x $(PROGRAM) ]; then echo 'Building; the first time takes some minutes ...'; fi
	@cargo build --quiet --locked

toolchain:
	@command -v cargo >/dev/null || { echo 'There is no Rust toolchain: install Rust 1.95 or newer with rustup (https://rustup.rs).' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'There is no C compiler: sudo apt-get install build-essential' >&2; exit 1; }
