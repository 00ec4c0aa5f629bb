#!/usr/bin/python3
"""The end can always be reached: whoever does not read, and whatever hangs. The guests are a few
instructions."""
import fcntl
import os
import signal
import struct
import subprocess
import termios
import time

from vm import (DOPPEL, check, main, multiboot, scratch, terminal, thread_names, vm_process,
                write)

# What doppel itself allows is 3 s; the rest is for a slow, loaded host.
LIMIT_S = 20

PRINT_FOR_EVER = b"\x66\xba\xf8\x03\xb0x\xee\xeb\xfd"  # mov $0x3f8, %dx; mov $'x', %al; 1: out; jmp 1b
DEBUG_FOR_EVER = b"\xb0x\xe6\xe9\xeb\xfc"              # mov $'x', %al; 1: out %al, $0xe9; jmp 1b


def wait_full(file):
    """Waits until nothing more is written to the pipe FILE."""
    seen, since = -1, time.monotonic()
    end = time.monotonic() + 60
    while time.monotonic() - since < 0.3 or seen <= 0:
        check(time.monotonic() < end, "the guest does not write")
        now = struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, b"\0\0\0\0"))[0]
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)


def end_of(process, number):
    """Sends NUMBER once and checks that PROCESS ends by it."""
    process.send_signal(number)
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = "none"
    check(status == 128 + number, f"status {status}")


def paused_reader():
    """A reader of standard output, or of the debug console, that pauses holds the guest up; one
    signal ends it."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(PRINT_FOR_EVER))
        for engine in ["interp", "auto"]:
            with subprocess.Popen([DOPPEL, "run", "--engine", engine, "--kernel", kernel],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
                wait_full(process.stdout)
                for _ in range(16):
                    check(len(process.stdout.read(65536)) == 65536, "the guest does not go on")
                wait_full(process.stdout)
                end_of(process, signal.SIGTERM)
        kernel = write(path("kernel"), multiboot(DEBUG_FOR_EVER))
        os.mkfifo(path("debug"))
        reader = os.open(path("debug"), os.O_RDONLY | os.O_NONBLOCK)
        with subprocess.Popen([DOPPEL, "run", "--kernel", kernel, "--debug-console",
                               path("debug")], stdin=subprocess.DEVNULL) as process:
            wait_full(reader)
            end_of(process, signal.SIGINT)
        os.close(reader)


def unread_terminal():
    """A terminal whose other end nobody reads: doppel may hang in writing to it. The keys work."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(PRINT_FOR_EVER))
        with terminal("run", "--kernel", kernel) as term:
            term.wait_raw()
            time.sleep(0.5)
            term.send(b"\1x\1x")
            try:
                status = term.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                status = "none"
            check(status in [0, 125], f"status {status}")
            term.check_restored()


def forced_by_signals(command):
    """What doppel says when it is ended by a second signal."""
    with subprocess.Popen([DOPPEL, *command], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as process:
        while not ready(process):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        check(process.poll() is None, "one signal is enough: what hangs is gone")
        end_of(process, signal.SIGINT)
        return process.stderr.read()


def forced_by_keys(command):
    """What doppel says when it is ended by the second Ctrl-A X."""
    with terminal(*command) as term:
        term.wait_raw()
        while not ready(term.process):
            time.sleep(0.05)
        term.send(b"\1x")
        term.send(b"\1X")
        check(term.wait(LIMIT_S) == 125, "status is not 125")
        term.check_restored()
        return term.seen


def stuck_start():
    """A file that is never there keeps the main thread from everything else. The second wish to end
    is granted, with a word on where it was. On a busy host that thread may not answer in time."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(PRINT_FOR_EVER))
        os.mkfifo(path("initrd"))
        command = ["run", "--kernel", kernel, "--initrd", path("initrd")]
        for forced in forced_by_signals, forced_by_keys:
            for _ in range(5):
                said = forced(command)
                if b"console: " in said and b"boot_files_open" in said:
                    break
            check(b"doppel: ended by force" in said and b"boot_files_open" in said, said)


def ready(process):
    """Whether the VM process of PROCESS listens to its supervisor."""
    return "doppel-user" in thread_names(vm_process(process.pid))


main(paused_reader, unread_terminal, stuck_start)
