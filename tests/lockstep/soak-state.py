#!/usr/bin/env python3
"""Saves and restores guests at random points, side by side with undisturbed ones (boot.c), for some
minutes: kernels that boot and shut down, the benchmark, and the bare-metal guests, in all engines.

    soak-state.py BUILD [MINUTES]

Each round has other seeds. It ends with a verdict and an exit code, and shows all that a failed run
said, which can be repeated with the seed in it.
"""
import os
import random
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


def commands(build, seed):
    """One round: what to run."""
    program = os.path.join(build, "tests", "lockstep", "lockstep-boot")
    pick = random.Random(seed)
    for name in GUESTS:
        engines = ",".join(pick.sample(ENGINES, 3))
        pace = (["--slice", "20000", "--restore", "50000", "--instructions", "5000000"] if name in ENDLESS
                else ["--slice", "500", "--restore", "2000"])
        yield [program, "--test-devices", "--memory", "64", "--engine", engines, *pace, "--seed", str(seed),
               os.path.join(build, "tests", "asm", name + ".elf")]
    for name in KERNELS:
        engines = ",".join(["bt"] + pick.sample(ENGINES[:3], 2))
        yield [os.path.join(HERE, "boot.py"), program, "--engine", engines, "--restore", "20000000", "--seed",
               str(seed), name]


def run(command):
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    words = " ".join(os.path.basename(word) for word in command)
    verdict = {0: "the same", 77: "skipped"}.get(ended.returncode, "FAILED")
    print(f"{verdict}, {time.monotonic() - start:.0f} s: {words}", flush=True)
    if verdict == "FAILED":
        print(ended.stdout.decode("latin-1"), flush=True)
    return verdict != "FAILED"


def main():
    build = os.path.realpath(sys.argv[1])
    end = time.monotonic() + 60 * float(sys.argv[2] if len(sys.argv) > 2 else 20)
    seed = random.SystemRandom().randrange(1, 1 << 30)
    runs = failed = 0
    while time.monotonic() < end:
        for command in commands(build, seed):
            if time.monotonic() >= end:
                break
            runs += 1
            failed += not run(command)
        seed += 1
    print(f"# {runs} runs, {failed} FAILED" if failed else f"# {runs} runs, all the same")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
