#!/usr/bin/python3
"""`doppel run -- COMMAND`: the command's output and exit status and nothing else."""
import json
import os
import re
import signal
import subprocess
import time

from vm import (BOOT_TIMEOUT, DOPPEL, check, check_complaint, check_run, environment, guest, main,
                run)


def status_and_statistics():
    """The example that everybody tries first, with --stats."""
    guest("vmlinuz-6.1"), guest("initrd.img")
    done = run("run", "--stats", "--json", "--", "sh", "-c", "uname -r; exit 7")
    check(done.returncode == 7, f"status {done.returncode}: {done.stderr!r}")
    check(re.fullmatch(rb"6\.1\.\S+-cloud-amd64\n", done.stdout), done.stdout)
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


def statistics_on_signal():
    """SIGUSR1 asks for the statistics so far; the guest goes on."""
    guest("vmlinuz-6.1"), guest("initrd.img")
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
    guest("vmlinuz-6.1"), guest("initrd.img")
    done = run("run", "--engine", "bt", "--stats", "--", "true")
    check(done.returncode == 0, f"status {done.returncode}: {done.stderr!r}")
    text = done.stderr.decode()
    check(re.search(r"^ +exits +count +total +mean$", text, re.M), text)
    check(re.search(r"^ +syscall +\d+ +\d+\.\d+ ms +\d+\.\d+ us$", text, re.M), text)
    check(re.search(r"^ +guest's own code +\d+\.\d+ ms$", text, re.M), text)
    check(re.search(r"^ +code-written +\d+$", text, re.M), text)
    check(re.search(r"^ +[a-z0-9]+ +\d+ +\d+\.\d+ ms +\d+\.\d+ us$",
                    text[text.index("  interpreted "):], re.M), text)


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


def failures():
    """Commands that do not exist, cannot be executed, or are killed."""
    check_complaint(run("run", "--", "nonesuch", "x"), "nonesuch", status=127)
    check_complaint(run("run", "--", "/etc/passwd"), "/etc/passwd", status=126)
    check_run(run("run", "--", "sh", "-c", "kill -9 $$"), 137, b"", b"")


def power():
    """A guest that goes away under its command."""
    check_complaint(run("run", "--", "sh", "-c", "poweroff; sleep 60"), "powered off")
    check_complaint(run("run", "--no-reboot", "--", "sh", "-c", "reboot; sleep 60"), "reset")


def panic():
    """A kernel that panics, here because there is no init."""
    check_complaint(run("run", "--append", "rdinit=/nonesuch", "--", "true"), "panicked", "root fs")


main(status_and_statistics, statistics_on_signal, statistics_as_text, streams, failures, power, panic)
