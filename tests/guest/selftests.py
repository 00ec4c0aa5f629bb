#!/usr/bin/python3
"""Runs the Linux kernel's own tests of x86 (tools/testing/selftests/x86) natively and in guests.

    selftests.py DOPPEL [RUN...]

RUN is one of the RUNS below; all of them without. A program fails if it fails in a guest and not
natively. The table shows what each said: ok, how many of its parts it skipped, or its exit status; and
- where it was not run or had nothing to test.
Exits with 0, 1, or 77 when an image has not been made (tests/guest/make-selftests).
"""
import collections
import os
import re
import select
import subprocess
import sys

from vm import DOPPEL, GUESTS, environment, guest

Run = collections.namedtuple("Run", "kernel engine cpus without", defaults=[()])
Result = collections.namedtuple("Result", "status output")

# Ten million system calls and more: half a minute of interpreting.
LONG = ("syscall_numbering_64",)

RUNS = {
    "bt": Run("6.1", "bt", 2),
    "interp": Run("6.1", "interp", 2, LONG),
    "bt-1": Run("6.1", "bt", 1),
    "interp-1": Run("6.1", "interp", 1),
    "bt-generic": Run("6.1-generic", "bt", 2),  # has 16-bit segments, which the cloud kernels have not
    "interp-generic": Run("6.1-generic", "interp", 2, LONG),
    "bt-6.12": Run("6.12", "bt", 2),
    "interp-6.12": Run("6.12", "interp", 2, LONG),
    "bt-686": Run("686-pae", "bt", 2),
    "interp-686": Run("686-pae", "interp", 2),
}

# What a guest's processor must announce, in /proc/cpuinfo, for a program to have anything to test.
NEEDED_FLAG = {"amx_64": b" amx_tile"}

# Who says nothing for so many seconds, hangs. Generous: a slow, loaded host is no mistake.
SILENCE = 300
HUNG, WITHOUT = "hung", "-"
SKIPPED = 4  # kselftest's exit status

SCRIPT = """
cd /selftests
echo "@@ flags $(grep -m 1 '^flags' /proc/cpuinfo)"
for program in %s; do
    echo "@@ begin $program"
    { ./$program 2>&1 </dev/null; echo $? >/tmp/status; } | cat
    printf '\\n@@ end %%s %%d\\n' $program $(cat /tmp/status)
done
"""


def natively(programs):
    """What the PROGRAMS do on this host: results by name."""
    results = {}
    for program in programs:
        try:
            done = subprocess.run([os.path.join(GUESTS, "selftests", program)], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                                  timeout=SILENCE, cwd=os.path.join(GUESTS, "selftests"))
            results[program] = Result(done.returncode, done.stdout)
        except subprocess.TimeoutExpired as late:
            results[program] = Result(HUNG, late.stdout or b"")
    return results


def boot(run, programs):
    """One guest that runs PROGRAMS. Returns what it wrote, and whether it came to an end."""
    initrd = guest("selftests-i386.img" if "686" in run.kernel else "selftests.img")
    command = [DOPPEL, "run", "--engine", run.engine, "--cpus", str(run.cpus), "--kernel",
               guest("vmlinuz-" + run.kernel), "--initrd", initrd, "--", "sh", "-c",
               SCRIPT % " ".join(programs)]
    output = b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment()) as process:
        while select.select([process.stdout], [], [], SILENCE)[0]:
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                return output, process.wait() == 0
            output += data
        process.kill()
    return output, False


def in_guest(run, programs):
    """What the PROGRAMS do in guests, as many as it takes: one with a program that hangs the guest or
    ends it is followed by one for the programs after that. Returns results by name, but not those of
    programs that have nothing to test.
    """
    flags, results, left = b"", {}, [p for p in programs if p not in run.without]
    while left:
        output, ended = boot(run, left)
        flags = b" ".join(re.findall(rb"^@@ flags (.*)$", output, re.M)) or flags
        for name, said, status in re.findall(rb"(?s)@@ begin (\w+)\r?\n(.*?)\n@@ end \1 (\d+)", output):
            results[name.decode()] = Result(int(status), said)
        done, left = left, [program for program in left if program not in results]
        _, begun, said = output.partition(b"@@ begin %s" % (left or done)[0].encode())
        if left and begun:
            results[left.pop(0)] = Result(HUNG, said)
        elif left or not ended:  # the guest failed before the first of them, or after the last
            results.update((program, Result(HUNG, output)) for program in left or done)
            break
    return {program: result for program, result in results.items()
            if NEEDED_FLAG.get(program, b"") in flags}


def shown(result):
    """A result in a word."""
    if result is None:
        return WITHOUT
    parts = result.output.count(b"[SKIP]")
    if result.status == 0:
        return f"ok, {parts} skipped" if parts else "ok"
    return "skipped" if result.status == SKIPPED else str(result.status)


def failures(native, results):
    """The programs that fail in a guest but not natively."""
    return [program for program, result in results.items()
            if result.status not in (0, SKIPPED) and not native[program].status]


def programs_of(run, programs):
    """Those of the PROGRAMS that the run's kernel can execute."""
    return [p for p in programs if p.endswith("_32")] if "686" in run.kernel else programs


def main():
    chosen = sys.argv[2:] or list(RUNS)
    guest("selftests.img")
    programs = sorted(os.listdir(os.path.join(GUESTS, "selftests")))
    native = natively(programs)
    columns, failed = {"native": native}, 0
    for name in chosen:
        columns[name] = results = in_guest(RUNS[name], programs_of(RUNS[name], programs))
        for program in failures(native, results):
            failed += 1
            print(f"{name}: {program}: {shown(results[program])}, natively {shown(native[program])}")
            print(results[program].output.decode(errors="replace")[-4000:], flush=True)

    rows = [["", *columns]]
    rows += [[program, *(shown(column.get(program)) for column in columns.values())] for program in programs]
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"{len(programs)} programs, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
