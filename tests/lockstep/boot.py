#!/usr/bin/env python3
"""Boots guests on an interpreted and a translated machine side by side (boot.c) and has them do
what exercises a kernel, or the whole benchmark.

    boot.py PROGRAM [--engine NAME[,NAME]...] [--slice N] [--ms N] [--restore N] [--switch N] [--seed N]
            [--instructions N] [RUN]...

RUN is the name of one (all of them without); PROGRAM is lockstep-boot. Exits with 77 when a guest
that is needed has not been made.
"""
import argparse
import os
import re
import subprocess
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
GUESTS = os.environ.get("DOPPEL_GUESTS", os.path.join(ROOT, "guests", "cache"))
BENCH = os.path.join(ROOT, "bench", "cache")
QUIET = "console=ttyS0 quiet loglevel=0 cryptomgr.notests"

# Time goes by instructions, so what does much in one instruction is counted instead.
OPERATIONS = {"large-copies": 4, "string-instructions": 200}

SHELL = [
    "for i in 1 2 3 4 5 6 7 8; do (echo $i; echo $0) | cat > /tmp/$i; done; cat /tmp/*",
    "ls -lR /sys/class | wc -l; ps; cat /proc/cpuinfo | md5sum",
    "dd if=/dev/urandom of=/tmp/x bs=64k count=8; gzip -c /tmp/x | gunzip | cmp - /tmp/x && echo same",
    "sleep 0.05 & sleep 0.02; kill $!; wait; time true",
    "poweroff",
]


def kernel(name, initrd="initrd.img"):
    """A Debian kernel to the default guest's shell."""
    return [os.path.join(GUESTS, name), os.path.join(GUESTS, initrd)], "# ", SHELL, QUIET, "128"


def bench(milliseconds):
    """Every test of the benchmark that is for one processor, for so long each."""
    program = os.path.join(BENCH, "bench")
    said = subprocess.run([program, "/"], input="list\n", stdout=subprocess.PIPE, text=True,
                          check=False).stdout if os.path.exists(program) else ""
    names = [name for name, cpus in re.findall(r"^@@test (\S+) \S+ (\d)", said, re.M) if cpus != "2"]
    lines = [f"ops {name} {OPERATIONS[name]}" if name in OPERATIONS else f"test {name} {milliseconds}"
             for name in names] + ["quit"]
    return ([os.path.join(GUESTS, "vmlinuz-6.1"), os.path.join(BENCH, "small.img")], "@@ready", lines,
            QUIET + " rdinit=/bench/bench", "128")


def programs():
    """The benchmark's real programs, on their files."""
    sys.path.insert(0, os.path.join(ROOT, "bench"))
    from run import PROGRAMS  # pylint: disable=import-outside-toplevel

    lines = ["\t".join([f"exec {stdin.replace('@', '/data/')}", "hide", *words])
             for _, _, stdin, words in PROGRAMS]
    return ([os.path.join(GUESTS, "vmlinuz-6.1"), os.path.join(BENCH, "large.img")], "@@ready",
            lines + ["quit"], QUIET + " rdinit=/bench/bench", "512")


def runs(milliseconds):
    return {
        "6.1": kernel("vmlinuz-6.1"),
        "6.12": kernel("vmlinuz-6.12"),
        "686": kernel("vmlinuz-686", "initrd-i386.img"),
        "686-pae": kernel("vmlinuz-686-pae", "initrd-i386.img"),
        "bench": bench(milliseconds),
        "programs": programs(),
    }


def run(program, options, name, what):
    files, prompt, lines, append, memory = what
    for file in files:
        if not os.path.exists(file):
            print(f"skipped: {file} is missing (guests/make, bench/make-image)")
            sys.exit(77)
    command = [program, "--append", append, "--prompt", prompt, "--memory", memory, *options]
    for line in lines:
        command += ["--type", line]
    print(f"# {name}", flush=True)
    start = time.monotonic()
    good = subprocess.run(command + files, check=False).returncode == 0
    print(f"# {name}: {'the same' if good else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--engine", default="bt")
    parser.add_argument("--slice", default="50000")
    parser.add_argument("--ms", default="4")
    for name in ("restore", "switch", "seed", "instructions"):
        parser.add_argument("--" + name)
    parser.add_argument("run", nargs="*")
    args = parser.parse_intermixed_args()
    known = runs(args.ms)
    options = ["--engine", args.engine, "--slice", args.slice]
    for name in ("restore", "switch", "seed", "instructions"):
        if getattr(args, name):
            options += ["--" + name, getattr(args, name)]
    failed = [name for name in args.run or known if not run(args.program, options, name, known[name])]
    if failed:
        print(f"# FAILED: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
