# A thin front of Meson and Ninja. Every target does its own set-up.
BUILD  ?= build
PREFIX ?= /usr/local

NINJA = test -f $(BUILD)/build.ninja || meson setup $(BUILD) && ninja -C $(BUILD)

.PHONY: all run guest test lockstep soak soak-many soak-state soak-switch soak-race soak-fuzz soak-net soak-folders soak-disks soak-disks-guest soak-debian selftests bpf bench bench-debian \
	lint install clean

all:
	@scripts/setup build
	@$(NINJA)

guest:
	@scripts/setup guest
	@guests/make

run:
	@scripts/setup build guest
	@$(NINJA) doppel
	@guests/make
	@$(BUILD)/doppel run

test:
	@scripts/setup build guest test
	@guests/make kernel 6.1 6.12 686 686-pae memtest gnumach initrd initrd-i386
	@tests/guest/make-selftests x86
	@$(NINJA)
	@scripts/run-tests

lockstep:
	@scripts/setup build guest
	@$(NINJA)
	@bench/make-image
	@guests/make 6.12 686 686-pae initrd-i386
	@tests/lockstep/boot.py $(BUILD)/tests/lockstep/lockstep-boot $(LOCKSTEPFLAGS)

soak:
	@scripts/setup build guest
	@$(NINJA) doppel
	@bench/make-image stress
	@guests/make kernel 6.1 6.12 686-pae initrd-i386
	@tests/guest/soak.py $(BUILD)/doppel $(MINUTES)

# 40 machines at once; one started and stopped 1,000 times; one of whose processes is killed 200 times.
soak-many:
	@scripts/setup build guest test
	@guests/make kernel initrd
	@$(NINJA) doppel
	@tests/guest/soak-many.py $(BUILD)/doppel $(MACHINES) $(CYCLES) $(KILLS)

soak-state:
	@scripts/setup build guest
	@$(NINJA)
	@bench/make-image
	@guests/make 6.12 686 686-pae initrd-i386
	@tests/lockstep/soak-state.py $(BUILD) $(MINUTES)

soak-switch:
	@scripts/setup build guest
	@$(NINJA)
	@bench/make-image
	@guests/make 6.12 686 686-pae initrd-i386
	@tests/lockstep/soak-state.py $(BUILD) $(or $(MINUTES),0) switch

soak-race:
	@scripts/setup build test
	@$(NINJA) tests/fuzz/fuzz-race tests/fuzz/fuzz-race-bt
	@scripts/soak-race $(BUILD) $(MINUTES)

soak-fuzz:
	@scripts/setup build test
	@test -f $(BUILD)-fuzz/build.ninja || CC=clang meson setup $(BUILD)-fuzz -Dfuzz=true -Db_sanitize=address,undefined \
		-Db_lundef=false
	@ninja -C $(BUILD)-fuzz
	@scripts/soak-fuzz $(BUILD)-fuzz $(CASES)

soak-net:
	@scripts/setup build guest
	@$(NINJA) doppel tests/guest/network-peer
	@guests/make
	@NETWORK_PEER=$(BUILD)/tests/guest/network-peer tests/guest/network.py $(BUILD)/doppel soak

soak-folders:
	@scripts/setup build guest
	@$(NINJA) doppel
	@guests/make
	@tests/guest/folder.py $(BUILD)/doppel million

soak-disks:
	@scripts/setup build guest test
	@guests/make kernel initrd 6.1
	@bench/make-image disks
	@$(NINJA) doppel tests/blk/blk-powercut tests/blk/blk-kill tests/unit/unit-qcow2_model tests/guest/guest-moved
	@scripts/soak-disks $(BUILD) $(or $(SEED),$(shell date +%s)) $(STEPS)

soak-debian:
	@scripts/setup build guest test
	@guests/make
	@$(NINJA) doppel
	@tests/guest/debian.py $(BUILD)/doppel $(JOBS)
	@$(if $(JOBS),,tests/guest/cloud.py $(BUILD)/doppel)

soak-disks-guest:
	@scripts/setup build guest
	@$(NINJA) doppel
	@bench/make-image disks
	@tests/guest/soak-disks.py $(BUILD)/doppel $(JOBS)

selftests:
	@scripts/setup build guest test
	@$(NINJA) doppel
	@guests/make 6.1 6.12 686-pae
	@tests/guest/make-selftests
	@tests/guest/selftests.py $(BUILD)/doppel $(RUNS)

bpf:
	@scripts/setup build guest
	@$(NINJA) doppel
	@tests/guest/make-selftests bpf
	@tests/guest/bpf.py $(BUILD)/doppel $(ROUNDS)

bench:
	@scripts/setup build guest bench
	@$(NINJA) doppel
	@guests/make
	@bench/run.py $(BENCHFLAGS)
	@$(if $(findstring --only,$(BENCHFLAGS)),:,bench/networks.py $(filter --quick,$(BENCHFLAGS)))

bench-debian:
	@scripts/setup build guest test bench
	@$(NINJA) doppel
	@bench/make-qemu
	@bench/debian.py $(ROUNDS)

lint:
	@scripts/setup build lint
	@scripts/lint

install: all
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@meson install -C $(BUILD)

clean:
	@rm -rf build build-*
