#!/usr/bin/python3
"""The terminal is given back however doppel ends. The guest is a few instructions."""
import os
import signal
import subprocess
import time

from vm import DOPPEL, FOREVER, check, main, multiboot, scratch, terminal, write, write_com1


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
    """Signals that end a process, those that it cannot see among them."""
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]:
        def polite(term, number=number):
            os.kill(term.process.pid, number)
            status = term.wait(10)
            check(status == 128 + number, f"{number.name}: status {status}")
            term.check_restored()
        with_guest(polite)
    for number in [signal.SIGKILL, signal.SIGSEGV]:
        def sudden(term, number=number):
            os.kill(term.process.pid, number)
            term.wait(10)
            term.check_restored()
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


def stop_and_continue():
    """Stopped, the terminal is the user's; continued, the guest's again."""
    def test(term):
        os.kill(term.process.pid, signal.SIGTSTP)
        term.check_restored()
        os.kill(term.process.pid, signal.SIGCONT)
        time.sleep(0.1)
        term.wait_raw()
        term.send(b"\1x")
        check(term.wait(10) == 0, "status is not 0")
        term.check_restored()
    with_guest(test)


def failure():
    """A kernel that cannot be loaded."""
    with scratch() as path:
        with terminal("run", "--kernel", write(path("kernel"), b"no kernel")) as term:
            check(term.wait(10) == 125, "status is not 125")
            term.check_restored()
            check(term.seen.count(b"\n") == 1 and term.seen.startswith(b"doppel: "), term.seen)


main(quit_key, help_key, signals, no_terminal, stop_and_continue, failure)
