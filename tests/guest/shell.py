#!/usr/bin/python3
"""`doppel run` without a command: a shell, on a terminal or with input that is typed into it."""
import os
import time

from vm import check, check_run, guest, main, run, terminal, vm_process


def typed(*options):
    """Input from a pipe is typed as somebody reads; its end powers the guest off."""
    guest("vmlinuz"), guest("initrd.img")
    done = run("run", "--cpus", "2", *options, stdin=b"nproc\nhead -n 1\nto head\ncd /tmp; exit 5")
    check_run(done, 0, stderr=b"")
    text = done.stdout.decode()
    check(text.endswith("# nproc\n2\ndoppel:~# head -n 1\nto head\nto head\n"
                        "doppel:~# cd /tmp; exit 5\n"), repr(text))
    # A last line that does not end, and programs that read until the end.
    done = run("run", *options, stdin=b"cat\nto cat")
    check_run(done, 0, stderr=b"")
    check(done.stdout.decode().endswith("# cat\nto cat\nto cat\ndoppel:~# \n"), done.stdout)
    check("\r" not in text and "\033" not in text, f"terminal codes in {text!r}")


def reboot():
    """A guest that reboots comes up again; here it then finds its input ended."""
    done = run("run", stdin=b"echo first\nreboot\n")
    check_run(done, 0, stderr=b"")
    check(done.stdout.count(b"BusyBox v") == 2, done.stdout)


def idle_use(pid, seconds):
    """The share of one core that the supervisor PID and its VM process use over some time."""
    processes = [pid, vm_process(pid)]

    def ticks():
        total = 0
        for process in processes:
            with open(f"/proc/{process}/stat", encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def interactive(*options):
    """A shell on a terminal: its size, job control, an idle guest, exit."""
    with terminal("run", "--cpus", "2", *options) as term:
        term.expect(rb"doppel:~# ")
        check(term.raw(), "the terminal is not raw")
        term.send(b"stty size; echo $TERM\r")
        term.expect(rb"\n24 80\r\nvt100\r\n")
        term.resize(50, 132)
        time.sleep(0.5)
        term.send(b"stty size\r")
        term.expect(rb"\n50 132\r\n")
        term.send(b"sleep 1000\r")
        time.sleep(1)
        term.send(b"\3")
        term.expect(rb"doppel:~# ", 30)
        term.send(b"sleep 1000\r")
        time.sleep(1)
        term.send(b"\x1a")
        term.expect(rb"Stopped")
        term.send(b"kill -9 %1; head -n 1 | od -c\r")
        time.sleep(1)
        term.send(b"A\1\1B\r")
        term.expect(rb"A 001   B")
        time.sleep(3)
        use = idle_use(term.process.pid, 10)
        print(f"an idle guest uses {100 * use:.1f} % of a core")
        check(use <= 0.02, f"an idle guest uses {100 * use:.1f} % of a core")
        term.send(b"exit 9\r")
        check(term.wait() == 0, "status is not 0")
        term.check_restored()


def typed_interpreted():
    """The same under the engine that is not the default."""
    typed("--engine", "interp")


def interactive_interpreted():
    """The same under the engine that is not the default."""
    interactive("--engine", "interp")


def command_on_terminal():
    """A command gets a terminal when there is one."""
    with terminal("run", "--", "sh", "-c", "tty; read x; echo got $x; exit 3") as term:
        term.expect(rb"/dev/pts/0\r\n")
        term.send(b"word\r")
        term.expect(rb"got word\r\n", 30)
        check(term.wait() == 3, "status is not 3")
        term.check_restored()


main(typed, typed_interpreted, reboot, interactive, interactive_interpreted, command_on_terminal)
