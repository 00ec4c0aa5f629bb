#!/usr/bin/python3
"""The terminal is given back however doppel ends. The guest is a few instructions."""
import fcntl
import os
import pty
import signal
import subprocess
import termios
import time

from vm import (DOPPEL, FOREVER, Failure, check, main, multiboot, scratch, terminal, vm_process,
                wait_gone, write, write_com1)


def started(term):
    """Waits until the guest has spoken."""
    term.expect(rb"hello")
    check(term.raw(), "the terminal is not raw while the guest runs")


def with_guest(test):
    """Calls TEST with a terminal in which a guest says hello and runs for ever."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(write_com1(b"hello\r\n", FOREVER)))
        with terminal("run", "--kernel", kernel) as term:
            started(term)
            test(term)


def quit_key():
    """Ctrl-A X."""
    def test(term):
        term.send(b"\1x")
        check(term.wait(10) == 0, "status is not 0")
        term.check_restored()
    with_guest(test)


def help_key():
    """Ctrl-A H lists the keys."""
    def test(term):
        term.send(b"\1h")
        term.expect(rb"Ctrl-A X .*\r\nCtrl-A H .*\r\nCtrl-A Ctrl-A .*\r\n", 10)
        term.send(b"\1X")
        term.wait(10)
        term.check_restored()
    with_guest(test)


def signals():
    """Signals that end a process; those that it cannot see, too (the VM process: supervisor.py)."""
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]:
        def polite(term, number=number):
            os.kill(term.process.pid, number)
            status = term.wait(10)
            check(status == 128 + number, f"{number.name}: status {status}")
            term.check_restored()
        with_guest(polite)
    for number in [signal.SIGKILL, signal.SIGSEGV]:
        def sudden(term, number=number):
            vm = vm_process(term.process.pid)
            os.kill(term.process.pid, number)
            term.wait(10)
            term.check_restored()
            wait_gone(vm)
        with_guest(sudden)


def no_terminal():
    """Without a terminal, signals end doppel in the same way."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(write_com1(b"hello", FOREVER)))
        for number in [signal.SIGINT, signal.SIGTERM]:
            with subprocess.Popen([DOPPEL, "run", "--kernel", kernel], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE) as process:
                check(process.stdout.read(5) == b"hello", "the guest did not speak")
                process.send_signal(number)
                status = process.wait(10)
                check(status == 128 + number, f"{number.name}: status {status}")


def hangup_ignored():
    """Started with nohup, doppel outlives the terminal. Of signals that wait, the lowest is seen first."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(write_com1(b"hello", FOREVER)))
        with subprocess.Popen([DOPPEL, "run", "--kernel", kernel], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE,
                              preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
            check(process.stdout.read(5) == b"hello", "the guest did not speak")
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            status = process.wait(60)
            check(status == 128 + signal.SIGTERM, f"status {status}")


def state(pid):
    """What process PID does, as proc(5) abbreviates it."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


def stop_and_continue():
    """Stopped, the terminal is the user's; continued, the guest's again."""
    def test(term):
        vm = vm_process(term.process.pid)
        os.kill(term.process.pid, signal.SIGTSTP)
        _, status = os.waitpid(term.process.pid, os.WUNTRACED)
        check(os.WIFSTOPPED(status), f"status {status:#x}")
        term.check_restored()
        check(state(vm) == "T", "the VM process runs on")
        os.kill(term.process.pid, signal.SIGCONT)
        term.wait_raw()
        term.send(b"\1x")
        check(term.wait(10) == 0, "status is not 0")
        term.check_restored()
    with_guest(test)


def stopped_before():
    """A VM process that somebody has stopped does not keep Ctrl-Z from stopping the supervisor."""
    def test(term):
        vm = vm_process(term.process.pid)
        os.kill(vm, signal.SIGSTOP)
        end = time.monotonic() + 30
        while state(vm) != "T":
            check(time.monotonic() < end, "the VM process runs on")
            time.sleep(0.02)
        time.sleep(0.2)  # for the supervisor to take note
        os.kill(term.process.pid, signal.SIGTSTP)
        while state(term.process.pid) != "T":
            check(time.monotonic() < end, "the supervisor runs on")
            time.sleep(0.02)
        term.check_restored()
        os.kill(term.process.pid, signal.SIGCONT)
        term.wait_raw()
        term.send(b"\1x")
        check(term.wait(10) == 0, "status is not 0")
    with_guest(test)


def job_control(kernel):
    """What a shell does: it takes the terminal back from doppel, which runs on, and lends it again."""
    master, slave = pty.openpty()
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 1)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)

    def to_foreground():
        os.setpgid(0, 0)
        os.tcsetpgrp(slave, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)

    process = subprocess.Popen([DOPPEL, "run", "--kernel", kernel], stdin=slave, stdout=slave,
                               stderr=slave, preexec_fn=to_foreground)
    try:
        seen = b""
        while b"hello" not in seen:
            seen += os.read(master, 4096)
        os.tcsetpgrp(slave, os.getpgrp())
        os.write(master, b"x")
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        check(os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTTIN, f"status {status:#x}")
        os.tcsetpgrp(slave, process.pid)
        os.kill(process.pid, signal.SIGCONT)
        os.write(master, b"\1x")
        check(process.wait(60) == 0, f"status {process.returncode}")
    finally:
        process.kill()


def background():
    """A key that comes while doppel is in the background stops it, as it does any program that reads
    the terminal. The shell is a process of its own, as a session has one terminal."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(write_com1(b"hello\r\n", FOREVER)))
        shell = os.fork()
        if shell == 0:
            status = 1
            try:
                job_control(kernel)
                status = 0
            except (Failure, OSError, subprocess.SubprocessError) as error:
                print(error, flush=True)
            finally:
                os._exit(status)
        check(os.waitpid(shell, 0)[1] == 0, "the shell saw something else")


def failure():
    """A kernel that cannot be loaded."""
    with scratch() as path:
        with terminal("run", "--kernel", write(path("kernel"), b"no kernel")) as term:
            check(term.wait(10) == 125, "status is not 125")
            term.check_restored()
            check(term.seen.count(b"\n") == 1 and term.seen.startswith(b"doppel: "), term.seen)


main(quit_key, help_key, signals, no_terminal, hangup_ignored, stop_and_continue, stopped_before, background, failure)
