#!/usr/bin/python3
"""A virtio console in the default guest: a port to a socket, one to a file, and hvc0."""
import contextlib
import os
import socket
import subprocess
import threading

from vm import DOPPEL, check, check_run, environment, guest, main, run, scratch


def connect(path):
    """Connects to PATH, which may not be there yet."""
    for _ in range(600):
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
            return client
        except OSError:
            client.close()
            threading.Event().wait(0.1)
    raise AssertionError(f"nobody listens at {path}")


def ports():
    """Bytes in both directions, whole and in order, through a socket, and into a file."""
    guest("initrd.img")
    script = ("cd /sys/class/virtio-ports; for p in *; do echo $p $(cat $p/name 2>&-); done; "
              "exec 3<>/dev/vport0p1; head -c 1000000 <&3 | tee /dev/vport0p2 >&3; echo to hvc >/dev/hvc0")
    data = bytes(i * i // 7 & 0xFF for i in range(1000000))
    with scratch() as path:
        got = []

        def talk():
            with connect(path("agent")) as client:
                sender = threading.Thread(target=client.sendall, args=(data,))
                sender.start()
                while sum(map(len, got)) < len(data) and (some := client.recv(65536)):
                    got.append(some)
                sender.join()

        talker = threading.Thread(target=talk)
        talker.start()
        done = run("run", "--verbose", "--device", f"console,org.agent.0=unix:{path('agent')},hvc0=tty,"
                   f"log=file:{path('log')}", "--", "sh", "-c", script, stdin=None, timeout=120)
        talker.join()
        check(done.returncode == 0, done)
        check(done.stdout == b"vport0p0\nvport0p1 org.agent.0\nvport0p2 log\n", done.stdout)
        check(b"to hvc" in done.stderr, done.stderr)
        check(b"".join(got) == data, "the socket's client got other bytes than it sent")
        with open(path("log"), "rb") as log:
            check(log.read() == data, "the file has other bytes")


class Shell:
    """The default guest's shell on a console, without a session, and what is typed there."""

    def __init__(self, append, device):
        self.vm = subprocess.Popen([DOPPEL, "run", "--kernel", guest("vmlinuz-6.1"), "--initrd", guest("initrd.img"),
                                    "--append", append, "--device", device], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
        self.seen = b""

    def await_output(self, *words):
        """Waits for WORDS, one behind the other, behind what was waited for before."""
        for word in words:
            while word not in self.seen:
                some = os.read(self.vm.stdout.fileno(), 4096)
                check(some, f"no {word} in {self.seen}")
                self.seen += some
            self.seen = self.seen[self.seen.index(word) + len(word):]

    def type_line(self, line):
        self.vm.stdin.write(line + b"\n")
        self.vm.stdin.flush()

    def close(self):
        self.vm.kill()
        self.vm.communicate()


def typed():
    """What is typed goes to the console that has spoken last: hvc0, and the serial one again."""
    with contextlib.closing(Shell("quiet", "console")) as shell:
        shell.await_output(b"# ")
        shell.type_line(b"stty -F /dev/hvc0 -echo; (sleep 1; echo say $((6 * 7)); read x; echo got $x) </dev/hvc0 >/dev/hvc0")
        shell.await_output(b"say 42")
        shell.type_line(b"for hvc")
        shell.await_output(b"got for hvc", b"# ")
        shell.type_line(b"echo $((7 * 7)) on $(tty)")
        shell.await_output(b"49 on /dev/ttyS0")


def given():
    """The shell is on the console that the kernel was given, with job control, though its driver is a module."""
    with contextlib.closing(Shell("quiet console=hvc0", "console")) as shell:
        shell.await_output(b"# ")
        shell.type_line(b"sleep 99 & kill %1; echo $((7 * 7)) on $(tty)")
        shell.await_output(b"49 on /dev/hvc0")


def no_input():
    """Where standard input is /dev/null, a console without a session is left alone: nothing ends its shell."""
    vm = subprocess.Popen([DOPPEL, "run", "--kernel", guest("vmlinuz-6.1"), "--initrd", guest("initrd.img"), "--append", "quiet"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    seen = b""
    while b"# " not in seen:
        some = os.read(vm.stdout.fileno(), 4096)
        check(some, "no shell", seen)
        seen += some
    try:
        vm.wait(timeout=8)  # with any other input that has ended, Ctrl-D is typed after 1.5 s and each 5 s
        check(False, "the guest has ended", vm.returncode, os.read(vm.stdout.fileno(), 4096))
    except subprocess.TimeoutExpired:
        pass
    vm.kill()
    vm.communicate()


def sockets():
    """A socket that is in use is refused; one that a killed process left behind is not."""
    with scratch() as path:
        def start():
            return subprocess.Popen([DOPPEL, "run", "--kernel", guest("vmlinuz-6.1"), "--device",
                                     f"console,a=unix:{path('socket')}"], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        first = start()
        connect(path("socket")).close()
        done = run("run", "--device", f"console,a=unix:{path('socket')}", stdin=None)
        check_run(done, 125, b"")
        check(b"somebody listens there" in done.stderr, done.stderr)
        first.kill()
        first.wait()
        second = start()
        connect(path("socket")).close()
        second.terminate()
        second.wait()


main(ports, typed, given, no_input, sockets)
