#!/usr/bin/env python3
"""Saves and restores guests at random points, side by side with undisturbed ones (boot.c), for some
minutes: kernels that boot and shut down, the benchmark, and the bare-metal guests, in all engines.
Or switches the engine of such guests while they live, and also of guests with two vCPUs and with a disk
whose requests are in flight, which must end well and with the right bytes on the disk.

    soak-state.py BUILD [MINUTES [restore|switch]]

Each round has other seeds; MINUTES may be 0, for one round. It ends with a verdict, how often guests were
disturbed, and an exit code, and shows all that a failed run said, which can be repeated with the seed in it.
"""
import os
import random
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ENGINES = ["interp", "bt", "bt-eager", "bt-one", "bt-all"]
KERNELS = ["6.1", "6.12", "686", "686-pae", "bench"]
GUESTS = ["apic", "debug32", "debug64", "double32", "double64", "exceptions32", "exceptions64", "fpu",
          "gates32", "gates64", "io32", "irq", "limits", "movss32", "movss64", "realmode", "smc",
          "strings32", "strings64", "syscalls", "tasks", "v86", "watch32", "watch64"]
# These wait for seconds, which are thousands of millions of instructions here.
ENDLESS = {"apic", "irq"}
# With two vCPUs or devices at work there is no lockstep.
FREE = {"apic": 1, "irq": 1, "virtio": 1, "smp": 2, "race": 2}
# What an emulating KVM executes right, too (tests/asm/meson.build).
WITH_KVM = ["access", "compat", "descriptors64", "exceptions64", "fpu", "gates64", "limits", "mmio", "msr", "smc",
            "syscalls", "testdev", "tlb", "virtio", "smp"]
# What programs say of how often they have disturbed a guest.
TIMES = re.compile(rb"(?:engine switched|saved and restored|moved:?) (\d+) times")
MOVES = "30"


def free_commands(build, seed, pick):
    """Guests whose engine is switched while they run on the real clock. With what is in their environment."""
    asm, guest = os.path.join(build, "tests", "asm"), os.path.join(build, "tests", "guest")
    free = [(name, cpus, ",".join(pick.sample(ENGINES[:3], 3))) for name, cpus in FREE.items()]
    free += [(name, FREE.get(name, 1), ",".join(["kvm"] + pick.sample(ENGINES[:3], 2))) for name in WITH_KVM]
    for name, cpus, engines in free:
        yield [os.path.join(HERE, "..", "asm", "run.py"), "--direct", "--switch", os.path.join(asm, "asm-direct"),
               "--engine", engines, "--cpus", str(cpus), os.path.join(asm, name + ".elf")], {}
    yield [os.path.join(HERE, "..", "guest", "moved.py"), os.path.join(build, "doppel"),
           os.path.join(guest, "guest-moved"), "switched"], {"MOVES": MOVES, "SEED": str(seed)}


def commands(build, seed, kind):
    """One round: what to run, and with what in its environment."""
    program = os.path.join(build, "tests", "lockstep", "lockstep-boot")
    pick = random.Random(seed)
    for name in GUESTS:
        engines = ",".join(pick.sample(ENGINES, 3))
        pace = (["--slice", "20000", "--" + kind, "50000", "--instructions", "5000000"] if name in ENDLESS
                else ["--slice", "500", "--" + kind, "2000"])
        yield [program, "--test-devices", "--memory", "64", "--engine", engines, *pace, "--seed", str(seed),
               os.path.join(build, "tests", "asm", name + ".elf")], {}
    for name in KERNELS:
        engines = ",".join(["bt"] + pick.sample(ENGINES[:3], 2))
        yield [os.path.join(HERE, "boot.py"), program, "--engine", engines, "--" + kind, "20000000", "--seed",
               str(seed), name], {}
    if kind == "switch":
        yield from free_commands(build, seed, pick)


def run(command, variables):
    """Returns whether all was well, and how often the guest was disturbed."""
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                           env={**os.environ, **variables})
    times = sum(map(int, TIMES.findall(ended.stdout)))
    words = " ".join(os.path.basename(word) for word in command)
    verdict = {0: "the same", 77: "skipped"}.get(ended.returncode, "FAILED")
    print(f"{verdict}, {times} times, {time.monotonic() - start:.0f} s: {words}", flush=True)
    if verdict == "FAILED":
        print(ended.stdout.decode("latin-1"), flush=True)
    return verdict != "FAILED", times


def main():
    build = os.path.realpath(sys.argv[1])
    minutes = float(sys.argv[2] if len(sys.argv) > 2 else 20)
    kind = sys.argv[3] if len(sys.argv) > 3 else "restore"
    end = time.monotonic() + 60 * minutes
    seed = random.SystemRandom().randrange(1, 1 << 30)
    runs = failed = disturbed = 0
    while not runs or time.monotonic() < end:
        for command, variables in commands(build, seed, kind):
            if minutes and time.monotonic() >= end:
                break
            good, times = run(command, variables)
            runs += 1
            failed += not good
            disturbed += times
        seed += 1
    print(f"# {runs} runs, {failed} FAILED" if failed else
          f"# {runs} runs, all the same after {disturbed} times of {kind}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
