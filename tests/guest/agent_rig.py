"""Guests with an agent, and agents that a test plays: what the tests of doppel exec and doppel cp share."""
import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time

from vm import BOOT_TIMEOUT, DOPPEL, check, environment, guest, run as run_doppel, scratch, terminal, write

AGENT_PORT = 716


class Machine:
    """A machine "web" with the default guest and folders of its own, which runs until close()."""

    def __init__(self, at):
        self.at = at
        self.env = {**environment(), "XDG_DATA_HOME": at("data"), "XDG_RUNTIME_DIR": at("run")}
        for folder in "data/doppel", "run":
            os.makedirs(at(folder), 0o700)
        os.makedirs(at("data/doppel/machines/web"))
        self.process = None

    def define(self, text):
        """Writes its definition."""
        write(self.at("data/doppel/machines/web/machine.yaml"), b"version: 1\n" + text.encode())

    def start(self):
        """Starts it, and waits until it counts as running."""
        guest("initrd.img")
        self.define("memory: 96M\nnets: [user]\n")
        self.process = subprocess.Popen([DOPPEL, "run", "web", "--", "sleep", "100000"], env=self.env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while b'"running"' not in self.run("list", "--json").stdout:
            check(self.process.poll() is None, "it has ended")
            time.sleep(0.05)

    def run(self, *args, **options):
        """Runs doppel as this machine's user."""
        return run_doppel(*args, env=self.env, **options)

    def exec(self, *args, options=(), **more):
        """Runs a command in the guest."""
        return self.run("exec", *options, "web", "--", *args, **more)

    def popen(self, *args, **options):
        """A doppel that runs a command in the guest, as it runs."""
        return subprocess.Popen([DOPPEL, "exec", "web", "--", *args], env=self.env, **options)

    def terminal(self, *args):
        """The same on a terminal."""
        return terminal("exec", *args, env=self.env)

    def await_guest(self, script):
        """Waits until SCRIPT succeeds in the guest."""
        end = time.monotonic() + BOOT_TIMEOUT
        while status := self.exec("sh", "-c", script).returncode:
            check(status == 1, "status", status, "of", script)
            check(time.monotonic() < end, "never:", script)
            time.sleep(0.1)

    def close(self):
        """Ends it."""
        if self.process:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def machine():
    """A Machine that runs until the end of the block."""
    with scratch() as at:
        made = Machine(at)
        try:
            made.start()
            yield made
        finally:
            made.close()


def frame(kind, payload=b""):
    """A frame of the agent's protocol."""
    return kind + b"\0\0\0" + struct.pack("<I", len(payload)) + payload


HELLO = frame(b"H", struct.pack("<I", 1))


@contextlib.contextmanager
def played(ports):
    """The user of a machine "web" whose guest is played: PORTS has functions for connections, by port."""
    with scratch() as at:
        user = Machine(at)
        user.define("")
        os.makedirs(at("run/doppel/web"), 0o700)
        os.chmod(at("run/doppel"), 0o700)
        lock = os.open(at("run/doppel/web/lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(at("run/doppel/web/vsock.sock"))
        listener.listen()

        def serve():
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    port = int(connection.makefile("rb", buffering=0).readline().split()[1])
                    if port in ports:
                        connection.sendall(b"OK 1\n")
                        ports[port](connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield user
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            listener.close()
            os.close(lock)


def saying(*pieces):
    """An agent that says PIECES, whatever it is asked."""
    def play(connection):
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    return play
