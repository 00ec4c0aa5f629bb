#!/usr/bin/python3
"""Runs the Linux kernel's tests of BPF (lib/test_bpf.ko) in guests of both engines, with the kernel's
compiler for BPF on: each test is code that was written just now, in a page that held other code. Every
test must pass. The table shows the tests that take the translator longest beside the interpreter.

    bpf.py DOPPEL [ROUNDS]

A test's time is the least of all rounds' for each of its runs, summed. A busy host makes times, and so
ratios, too large. Exits with 0, 1, or 77 when an image has not been made (tests/guest/make-selftests).
"""
import contextlib
import io
import re
import sys

from vm import Failure, check, check_run, guest, run

ROUNDS = 2
ENGINES = ("bt", "interp")
RATIO = 1.5  # from which on a test is counted as slower
SHOWN = 20
TIMEOUT = 1800  # generous: a slow, loaded host is no mistake

SCRIPT = """
echo 1 >/proc/sys/net/core/bpf_jit_enable
insmod /selftests/test_bpf.ko
echo "insmod: $?"
dmesg | grep test_bpf:
"""
TEST = re.compile(r"test_bpf: #(\d+) (.*?) (?:jited:\d )?((?:\d+ )*)PASS")


def times(engine):
    """Boots a guest and returns the times of each test's runs in ns, by the test's number and name."""
    with contextlib.redirect_stdout(io.StringIO()):
        done = run("run", "--engine", engine, "--kernel", guest("vmlinuz-6.1-generic"), "--initrd",
                   guest("bpf.img"), "--append", "log_buf_len=4M", "--", "sh", "-c", SCRIPT,
                   timeout=TIMEOUT)
    check_run(done, 0)
    output = done.stdout.decode(errors="replace")
    failed = [line for line in output.splitlines() if "FAIL" in line and ", 0 FAILED" not in line]
    summaries = re.findall(r"(\d+) PASSED, 0 FAILED", output)
    check("insmod: 0" in output and not failed and len(summaries) == 3, output[-4000:], *failed)
    # A message of another part of the kernel's may break a test's line in two: then its times are lost.
    return {f"{number} {name}": [int(ns) for ns in runs.split()]
            for number, name, runs in TEST.findall(output)}


def least(rounds):
    """The sum of the least times of each test's runs, in ns; of tests that every round has timed."""
    return {name: sum(map(min, zip(*(tests[name] for tests in rounds))))
            for name in rounds[0] if all(tests.get(name) for tests in rounds)}


def report(translated, interpreted):
    """The tests by how much longer they take under the translator."""
    ratios = sorted(((translated[name] / max(1, interpreted[name]), name)
                     for name in translated.keys() & interpreted.keys()), reverse=True)
    check(ratios, "no test was timed")
    print(f"{'ratio':>8} {'bt ns':>9} {'interp ns':>9}  test")
    for ratio, name in ratios[:SHOWN]:
        print(f"{ratio:8.2f} {translated[name]:9} {interpreted[name]:9}  {name}")
    slower = sum(ratio > RATIO for ratio, _ in ratios)
    middle = ratios[len(ratios) // 2][0]
    print(f"{len(ratios)} tests timed, {slower} more than {RATIO} times slower under bt than under "
          f"interp; the middle ratio is {middle:.2f}")


def bpf():
    """The tests, as many rounds as asked for."""
    rounds = {engine: [] for engine in ENGINES}
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else ROUNDS):
        for engine in ENGINES:
            rounds[engine].append(times(engine))
    report(*(least(rounds[engine]) for engine in ENGINES))


if __name__ == "__main__":
    try:
        bpf()
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
