#!/usr/bin/python3
"""`doppel run -- COMMAND`: the command's output and exit status and nothing else."""
import hashlib
import json
import os
import re
import signal
import subprocess
import time

from vm import (BOOT_TIMEOUT, DOPPEL, check, check_complaint, check_run, environment, guest, main,
                run, scratch)


def status_and_statistics():
    """The example that everybody tries first, with --stats."""
    guest("vmlinuz"), guest("initrd.img")
    done = run("run", "--stats", "--json", "--", "sh", "-c", "uname -r; exit 7")
    check(done.returncode == 7, f"status {done.returncode}: {done.stderr!r}")
    check(re.fullmatch(rb"6\.(1|12)\.\S+-cloud-amd64\n", done.stdout), done.stdout)
    stats = json.loads(done.stderr)
    print("statistics:", stats)
    check(stats["instructions"] > 100_000_000, "so few instructions boot no kernel")
    check(stats["elapsed_ns"] >= stats["run_ns"] > 0, "time executing and elapsed do not fit")
    check(stats["resident"] >= stats["guest_resident"] > 30 << 20, "too little memory")
    check(sum(stats["exits"].values()) > 1000, "hardly any exits")
    spent = sum(ns for cause, ns in stats["exit_ns"].items() if cause != "halt") + stats["guest_ns"]
    check(0.8 < spent / stats["run_ns"] < 1.1, f"{spent} of {stats['run_ns']} ns are explained")
    for cause in ("port", "msr", "page-fault", "interrupt", "tlb-miss", "syscall"):
        check(stats["exits"][cause] > 0 and stats["exit_ns"][cause] > 0, cause)


def memory():
    """The monitor takes little memory beside the guest's, for one CPU and for two."""
    guest("vmlinuz"), guest("initrd.img")
    for args in (), ("--cpus", "2"), ("--engine", "interp"):
        stats = json.loads(run("run", "--stats", "--json", *args, "--", "true").stderr)
        beside = stats["resident"] - stats["guest_resident"]
        check(beside <= 48 << 20, f"{args}: {beside >> 20} MiB")


def statistics_on_signal():
    """SIGUSR1 asks for the statistics so far; the guest goes on."""
    guest("vmlinuz"), guest("initrd.img")
    with subprocess.Popen([DOPPEL, "run", "--stats", "--json", "--", "sh", "-c", "echo up; cat"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment()) as process:
        try:
            check(process.stdout.readline() == b"up\n", "the command did not begin")
            process.send_signal(signal.SIGUSR1)
            first = json.loads(process.stderr.readline())
            time.sleep(0.3)
            output, last = process.communicate(b"still there\n", BOOT_TIMEOUT)
        finally:
            process.kill()
    last = json.loads(last)
    check(process.returncode == 0, f"status {process.returncode}")
    check(output == b"still there\n", output)
    check(0 < first["instructions"] < last["instructions"], first, last)
    check(first["exits"]["halt"] < last["exits"]["halt"], "it halted while it waited")
    check(first["exit_ns"]["halt"] < last["exit_ns"]["halt"], "and that took time")


def statistics_as_text():
    """The same for people: a table for each kind of count."""
    guest("vmlinuz"), guest("initrd.img")
    done = run("run", "--engine", "bt", "--stats", "--", "true")
    check(done.returncode == 0, f"status {done.returncode}: {done.stderr!r}")
    text = done.stderr.decode()
    check(re.search(r"^ +exits +count +total +mean$", text, re.M), text)
    check(re.search(r"^ +syscall +\d+ +\d+\.\d+ ms +\d+\.\d+ us$", text, re.M), text)
    check(re.search(r"^ +guest's own code +\d+\.\d+ ms$", text, re.M), text)
    check(re.search(r"^ +code-written +\d+$", text, re.M), text)
    rate = re.search(r"^ +software TLB hits +(\d+\.\d+) % of", text, re.M)
    check(rate and 90 < float(rate.group(1)) < 100, text)
    check(re.search(r"^ +[a-z0-9]+ +\d+ +\d+\.\d+ ms +\d+\.\d+ us$",
                    text[text.index("  interpreted "):], re.M), text)


TRACE_COLUMNS = {17: "process", 61: "kernel", 105: "monitor"}


def traced(*args):
    """Runs doppel with a trace. Returns its lines: who, what; those about interrupts left out."""
    with scratch() as path:
        done = run("run", "--trace", "exits=" + path("trace"), *args)
        check(done.returncode == 0, f"status {done.returncode}: {done.stderr!r}")
        with open(path("trace"), encoding="ascii") as file:
            lines = file.read().splitlines()
    check(lines[0].split() == "# time/us cpu process guest's kernel monitor".split(), lines[0])
    steps, last = [], 0.0
    for line in lines[1:]:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r" *(\d+\.\d+) +\d+ +(\S.*)", line)
        check(match and match.start(2) in TRACE_COLUMNS, line)
        check(float(match.group(1)) >= last, f"back in time: {line}")
        last = float(match.group(1))
        steps.append((TRACE_COLUMNS[match.start(2)], match.group(2)))
    return steps, len(lines)


def follows(steps, at, expected):
    """Whether after step AT those EXPECTED come, (who, how it begins), with others in between."""
    for who, what in steps[at + 1:]:
        if expected and (who, what[:len(expected[0][1])]) == expected[0]:
            expected = expected[1:]
        elif who == "process":
            return False  # it had to wait for the last one expected
        if not expected:
            return True
    return False


def trace():
    """A system call and a page fault pass from process to monitor to kernel and back, in that
    order, under each engine."""
    guest("vmlinuz"), guest("initrd.img")
    for engine in "interp", "bt":
        steps, _ = traced("--engine", engine, "--", "sh", "-c", "echo traced >/dev/null")
        calls = [i for i, (who, what) in enumerate(steps)
                 if who == "process" and what.startswith("syscall 1 write(1, ")]
        check(any(follows(steps, i, [("monitor", "goes to the kernel's entry ("),
                                     ("kernel", "entry at ffffffff"),
                                     ("kernel", "sysret, rax = 7"),
                                     ("process", "goes on at ")]) for i in calls),
              f"{engine}: no write in order: {[steps[i:i + 20] for i in calls]}")
        faults = [i for i, (who, what) in enumerate(steps)
                  if who == "process" and what.startswith("page fault writing ")]
        check(any(follows(steps, i, [("monitor", "delivers #PF, error "),
                                     ("kernel", "entry at ffffffff"), ("kernel", "iretq"),
                                     ("process", "goes on at ")]) for i in faults),
              f"{engine}: no page fault in order: {[steps[i:i + 20] for i in faults[:3]]}")
        check(steps[calls[0]:] and not any("execve" in what for _, what in steps[calls[-1]:]),
              "the trace goes on after the command")
    check(any(what.startswith("translates ") for _, what in steps), "nothing was translated")
    steps, lines = traced("--trace-lines", "50", "--", "sh", "-c", "exit 0")
    check(len(steps) == 50 and lines == 52, f"{len(steps)} steps in {lines} lines")


def engines():
    """With --switch-engine a guest computes on while its engine changes, and does not notice."""
    guest("vmlinuz"), guest("initrd.img")
    script = "for i in 0 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero bs=64k count=16 2>/dev/null | md5sum; done"
    with scratch() as at:
        done = run("run", "--cpus", "2", "--switch-engine", "bt,interp@100ms", "--log", at("log"), "--stats", "--json",
                   "--", "sh", "-c", script)
        with open(at("log"), encoding="utf-8") as file:
            log = file.read()
    check(done.returncode == 0, f"status {done.returncode}: {done.stderr!r}")
    wanted = hashlib.md5(bytes(1 << 20)).hexdigest()
    check(done.stdout.decode() == f"{wanted}  -\n" * 10, done.stdout)
    for words in ("engine bt,", "engine interp instead of bt", "engine bt instead of interp"):
        check(words in log, words, log)
    times = re.search(r"switched (\d+) times", log)
    check(times and int(times[1]) == log.count(" instead of ") > 2, log)
    stats = json.loads(done.stderr)
    check(stats["instructions"] > 100_000_000, "the instructions of engines that are gone are not in", stats)


def streams():
    """Binary input and output pass unchanged and apart, in any amount; arguments and variables
    arrive as they were given."""
    data = os.urandom(200_000) + bytes(range(256)) * 16
    script = 'cat; printf "%s|" "$0" "$@" "$VARIABLE" >&2; head -c 150000 /dev/zero >&2'
    done = run("run", "--env", "VARIABLE=a b\n=", "--", "sh", "-c", script, "zero", "", "two words",
               "new\nline", "ünï\tcode", stdin=data)
    check(done.returncode == 0, f"status {done.returncode}: {done.stderr[:500]!r}")
    check(done.stdout == data, f"{len(done.stdout)} bytes, not the {len(data)} sent, came back")
    expected = "zero||two words|new\nline|ünï\tcode|a b\n=|".encode() + b"\0" * 150_000
    check(done.stderr == expected, f"standard error: {done.stderr[:200]!r} ({len(done.stderr)})")
    # What standard error does not take is lost; the command goes on.
    with open("/dev/full", "wb") as full:
        done = run("run", "--", "sh", "-c", "head -c 150000 /dev/zero >&2; echo $?; exit 3", stderr=full)
    check(done.returncode == 3 and done.stdout == b"0\n", done)


def failures():
    """Commands that do not exist, cannot be executed, or are killed."""
    check_complaint(run("run", "--", "nonesuch", "x"), "nonesuch", status=127)
    check_complaint(run("run", "--", "/etc/passwd"), "/etc/passwd", status=126)
    check_run(run("run", "--", "sh", "-c", "kill -9 $$"), 137, b"", b"")


def power():
    """A guest that goes away under its command."""
    check_complaint(run("run", "--", "sh", "-c", "poweroff; sleep 60"), "powered off")
    check_complaint(run("run", "--no-reboot", "--", "sh", "-c", "reboot; sleep 60"), "reset")


# The alarm is set anew, later, if the guest is so slow that it comes before the guest sleeps: the
# count of wake-up events tells the kernel.
SLEEP = """for seconds in 2 10 60; do
read count < /sys/power/wakeup_count
echo 0 > /sys/class/rtc/rtc0/wakealarm
echo +$seconds > /sys/class/rtc/rtc0/wakealarm
if echo $count > /sys/power/wakeup_count && echo freeze > /sys/power/state; then
  cat /sys/firmware/acpi/interrupts/ff_rt_clk
  break
fi
done"""


def suspend():
    """Suspend-to-idle, which the RTC's alarm ends by ACPI's fixed event."""
    done = run("run", "--", "sh", "-c", SLEEP)
    check(re.match(rb"\s*[1-9]\d* ", done.stdout), done.stdout, done.stderr)


def panic():
    """A kernel that panics, here because there is no init."""
    check_complaint(run("run", "--append", "rdinit=/nonesuch", "--", "true"), "panicked", "root fs")


main(status_and_statistics, engines, memory, statistics_on_signal, statistics_as_text, trace, streams, failures, power, suspend,
     panic)
