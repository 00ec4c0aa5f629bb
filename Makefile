# A thin front of Meson and Ninja. Every target does its own set-up.
BUILD  ?= build
PREFIX ?= /usr/local

.PHONY: all run guest test bench lint install clean

all: | build-packages
	@ninja -C $(BUILD) -f build.ninja $(NINJAFLAGS)

.PHONY: build-packages
build-packages:
	@scripts/setup build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD)

guest:
	@scripts/setup guest
	@guests/make 6.1 initrd

run: all guest
	@$(BUILD)/doppel run

test:
	@scripts/setup build guest test
	@scripts/run-tests

bench: all
	@scripts/setup guest bench
	@bench/run.py $(BENCHFLAGS)

lint:
	@scripts/setup build lint
	@scripts/lint

install: all
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@meson install -C $(BUILD)

clean:
	@rm -rf build build-asan build-clang
