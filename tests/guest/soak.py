#!/usr/bin/python3
"""Keeps guests busy under the translator for some minutes and checks what comes of it: kernels boot,
power off and reboot; a compiler compiles as it does natively, bit for bit; stress-ng verifies what
its stressors do; and no kernel complains.

    soak.py DOPPEL [MINUTES]

Each kind of job has its turn. All output of a job that fails is shown.
"""
import hashlib
import itertools
import os
import subprocess
import sys
import time

from vm import ROOT, attempt, check, check_run, guest, run

IMAGES = os.path.join(ROOT, "bench", "cache")
MINUTES = 20
COMPLAINTS = "dmesg | grep -E 'BUG:|WARNING:|Oops|stall|lockup|hung task|segfault|general protection'"
COMPILER = "/usr/lib/gcc/x86_64-linux-gnu/12/cc1"
LEVELS = ["-O0", "-O1", "-O2", "-O3", "-Os"]
STRESSORS = ["--cpu 2", "--vm 2 --vm-bytes 64M", "--fork 2", "--signal 2", "--mmap 2 --mmap-bytes 32M",
             "--cpu 1 --vm 1 --vm-bytes 32M --fork 1 --signal 1 --mmap 1 --mmap-bytes 16M"]


def image(name):
    return os.path.join(IMAGES, name)


def doppel(*options, script=None, stdin=b""):
    """Runs a guest. With SCRIPT, that must end well and the kernel must have nothing to complain of."""
    command = ["run", "--engine", "bt", *options]
    if script:
        command += ["--", "sh", "-c", f"set -e; {script}\n! {COMPLAINTS} >&2"]
    done = run(*command, stdin=stdin, timeout=600, stderr=subprocess.STDOUT)
    check_run(done, 0)
    return done.stdout.decode(errors="replace")


def boot(kernel, cpus):
    """To a command, and off."""
    output = doppel("--kernel", guest(kernel), "--cpus", str(cpus), script="nproc; uname -r")
    check(output.split()[:1] == [str(cpus)], output)


def reboot(kernel, cpus):
    """To a shell twice, with a reboot between, and off."""
    output = doppel("--kernel", guest(kernel), "--cpus", str(cpus), stdin=b"echo first\nreboot\n")
    check(output.count("BusyBox v") == 2, output)


def compiled_natively(level):
    """The digest of what the guest's compiler makes of its file here."""
    root = os.path.join(IMAGES, "root")
    libraries = f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu"
    with open(os.path.join(root, "data", "large.c"), "rb") as source:
        made = subprocess.run(
            [f"{root}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--library-path", libraries, root + COMPILER, "-quiet",
             "-fpreprocessed", level, "-o", "-", "-"], stdin=source, stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(made.stdout).hexdigest()


def compile_at(level):
    """Two compilers at a time, and again."""
    output = doppel("--cpus", "2", "--memory", "1G", "--initrd", image("large.img"), script=f"""
        for round in 1 2; do
            for n in 1 2; do
                {COMPILER} -quiet -fpreprocessed {level} -o /tmp/$n - </data/large.c &
            done
            wait
            sha256sum /tmp/1 /tmp/2
        done""")
    made = [line.split()[0] for line in output.splitlines()]
    wanted = compiled_natively(level)
    check(made == [wanted] * 4, f"made {made}, natively {wanted}")


def stress(stressors, seconds):
    """stress-ng, which verifies."""
    output = doppel("--cpus", "2", "--initrd", image("stress.img"), script=f"""
        cd /tmp; stress-ng {stressors} --verify --timeout {seconds}""")
    check("successful run completed" in output and "fail:" not in output, output)


def jobs(minutes):
    """What there is to do, without end: name, function, arguments."""
    seconds = max(3, min(20, minutes))
    boots = [(f"{kernel}, {cpus} vCPUs, {what.__name__}", what, (kernel, cpus))
             for kernel in ("vmlinuz-6.1", "vmlinuz-6.12", "vmlinuz-686-pae")
             for what in (boot, reboot) for cpus in (1, 2)]
    compiles = [(f"compilers {level}, 2 vCPUs", compile_at, (level,)) for level in LEVELS]
    stresses = [(f"stress-ng {stressors}, 2 vCPUs", stress, (stressors, seconds))
                for stressors in STRESSORS]
    return itertools.chain.from_iterable(
        zip(itertools.cycle(boots), itertools.cycle(stresses), itertools.cycle(boots[1:] + boots[:1]),
            itertools.cycle(compiles)))


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def main():
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else MINUTES
    for name in ("large.img", "stress.img"):
        if not os.path.exists(image(name)):
            print(f"{image(name)} is missing (bench/make-image stress)")
            return 2
    start, done, failed = time.monotonic(), 0, []
    for name, function, arguments in jobs(minutes):
        begun = time.monotonic() - start
        if begun >= minutes * 60:
            break
        verdict, seconds = attempt(function, *arguments)
        if verdict != "ok":
            failed.append(name)
        done += 1
        now = time.monotonic() - start
        print(f"[{clock(now)} of {clock(minutes * 60)}] {verdict:6}  {name} ({seconds:.0f} s)", flush=True)
    print(f"soak: {done} jobs in {clock(time.monotonic() - start)}, {len(failed)} failed"
          + "".join(f"\n  {name}" for name in failed))
    return bool(failed) or not done


if __name__ == "__main__":
    sys.exit(main())
