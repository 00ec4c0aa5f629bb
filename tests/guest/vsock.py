#!/usr/bin/python3
"""Virtio sockets: programs of the default guest and of the host are connected, from both sides."""
import contextlib
import hashlib
import os
import random
import socket
import subprocess
import threading
import time

from vm import DOPPEL, archive, check, check_complaint, check_run, environment, guest, main, run, scratch, write

CONNECTIONS = 100
DATA = random.Random(7).randbytes(3000000)


def client(path, port):
    """Connects to the guest's PORT. Returns the socket, or None if the guest refuses."""
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    made.sendall(b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n"):
        byte = made.recv(1)
        if not byte:
            check(line == b"", line)
            made.close()
            return None
        line += byte
    check(line.startswith(b"OK ") and line[3:-1].isdigit(), line)
    return made


def read_all(stream):
    """Everything up to the end of the socket STREAM."""
    pieces = []
    while piece := stream.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def exchange(path, port, data):
    """Sends DATA, and then its end. Returns what comes back meanwhile and afterwards."""
    with client(path, port) as stream:
        def send():
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = read_all(stream)
        sender.join()
    return back


def answer(listener):
    """Takes a connection of the guest's, reads to its end, and answers with a digest."""
    stream = listener.accept()[0]
    with stream:
        stream.sendall(hashlib.md5(read_all(stream)).hexdigest().encode() + b"\n")


def initrd_with_program(at):
    """The default guest's initramfs, with the program of the test in it."""
    with open(guest("initrd.img"), "rb") as initrd, open(os.environ["VSOCK_GUEST"], "rb") as program:
        image = initrd.read()
        return write(at("initrd"), image + b"\0" * (-len(image) % 4) +
                     archive(("bin/vsock-guest", program.read())))


SCRIPT = f"""
vsock-guest cid
head -c 2000000 /dev/urandom >/tmp/data
md5sum </tmp/data
vsock-guest connect 5000 </tmp/data
vsock-guest connect 5001
vsock-guest echo 1024 {CONNECTIONS + 3}
"""


def connects(kernel):
    """All of it under KERNEL."""
    with scratch() as at, contextlib.ExitStack() as stack:
        path = at("socket")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path + "_5000")
        listener.listen(1)
        answerer = threading.Thread(target=answer, args=(listener,), daemon=True)
        answerer.start()
        vm = subprocess.Popen([DOPPEL, "run", "--kernel", guest(kernel), "--initrd", initrd_with_program(at),
                               "--vsock", f"cid=1234,socket={path}", "--", "sh", "-c", SCRIPT],
                              env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        stack.callback(vm.wait)
        stack.callback(vm.kill)
        check(vm.stdout.readline() == b"cid 1234\n", "the guest has another address")
        digest = vm.stdout.readline().split()[0]
        check(vm.stdout.readline() == digest + b"\n", "the host has got something else than the guest has sent")
        line = vm.stdout.readline()
        check(line == b"connect: Connection reset by peer\n", line)
        line = vm.stdout.readline()
        check(line == b"listening\n", line)
        check(client(path, 1025) is None, "a port where nobody listens takes a connection")
        check(exchange(path, 1024, DATA) == DATA, "other bytes come back")
        check(exchange(path, 1024, b"") == b"", "bytes come back of none")
        with client(path, 1024) as waits:
            for number in range(CONNECTIONS):
                data = b"%d" % number
                check(exchange(path, 1024, data) == data, number)
            waits.sendall(b"still there")
            check(waits.recv(11) == b"still there", "the first connection is gone")
        check(vm.wait(120) == 0, "the guest fails")
        check(not os.path.exists(path), "the socket stays behind")


def kernel_6_1():
    connects("vmlinuz-6.1")


def kernel_6_12():
    guest("modules-6.12.img")
    connects("vmlinuz-6.12")


def named():
    """A machine with a name has such a socket, and doppel connect waits there for a guest that boots."""
    with scratch() as at, contextlib.ExitStack() as stack:
        env = {**environment(), "XDG_DATA_HOME": at(""), "XDG_RUNTIME_DIR": at("")}
        os.makedirs(at("doppel/machines/web"))
        os.chmod(at("doppel"), 0o700)
        initrd_with_program(at)
        write(at("doppel/machines/web/machine.yaml"), b"version: 1\ninitrd: ../../../initrd\nvsock: cid=77\n")
        vm = subprocess.Popen([DOPPEL, "run", "web", "--", "sh", "-c", "vsock-guest cid; vsock-guest echo 1024 2"],
                              env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        stack.callback(vm.wait)
        stack.callback(vm.kill)
        while b'"running"' not in run("list", "--json", env=env).stdout:
            check(vm.poll() is None, "it has ended")
            time.sleep(0.1)
        done = run("connect", "--wait", "240", "web", "1024", stdin=DATA, env=env)
        check(done.returncode == 0 and not done.stderr, done.returncode, done.stderr)
        check(done.stdout == DATA, "other bytes come back:", len(done.stdout))
        check_run(run("connect", "web", "1024", env=env), 0, b"", b"")  # with which the guest ends
        check(vm.wait(120) == 0 and vm.stdout.read() == b"cid 77\nlistening\n", "the guest fails")
        check(os.listdir(at("doppel")) == ["machines"], os.listdir(at("doppel")))


def refused():
    """What is wrong with an option is one clear line."""
    with scratch() as at:
        write(at("file"), b"")
        check_complaint(run("run", "--vsock", f"socket={at('file')}", stdin=None), at("file"), "exists")
        check_complaint(run("run", "--vsock", "cid=2,socket=x", stdin=None), "cid must be a number from 3")
        check_complaint(run("run", "--vsock", "cid=5", stdin=None), "no socket is given")
        check_complaint(run("run", "--vsock", f"socket={at('none/x')}", stdin=None), "No such file")
        check_complaint(run("run", "--vsock", f"socket={'x' * 98}", stdin=None), "96 bytes")
        check(sorted(os.listdir(at(""))) == ["file"], os.listdir(at("")))


main(kernel_6_1, kernel_6_12, named, refused)
