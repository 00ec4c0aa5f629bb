#!/usr/bin/python3
"""Named machines: definitions, running, listing, renaming and removing them, and ways to their guests. No
guest gets as far as booting here."""
import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import threading

from home import PLAIN, home
from vm import (DEBUG_EXIT, DOPPEL, FOREVER, ROOT, Terminal, check, check_complaint, check_run, main, multiboot,
                vm_process, wait_gone, write)


def listing():
    """Lists, with what definitions say and what they do not."""
    with home() as user:
        check_run(user.run("list"), 0, b"", b"")
        check_run(user.run("list", "--json"), 0, b"[]\n", b"")
        user.define("web", PLAIN + "memory: 1G\ncpus: 2\nbase: debian\n")
        user.define("a", PLAIN)
        user.define("bad", "kernel: [x]\n")
        os.mkdir(user.machine("empty"))
        os.mkdir(user.machine("No Name"))
        done = user.run("list")
        lines = done.stdout.decode().splitlines()
        check(done.returncode == 0 and [line.split()[0] for line in lines] ==
              ["NAME", "a", "bad", "empty", "web"], done)
        check(lines[4].split()[1:6] == ["stopped", "-", "1", "GiB", "2"], lines)
        check("damaged" in lines[2] and "damaged" in lines[3], lines)
        complaints = done.stderr.decode().splitlines()
        check(len(complaints) == 2 and "machine.yaml:2: a text is expected" in complaints[0] and
              "No such file" in complaints[1], complaints)
        entries = user.list()
        check(entries["web"]["memory"] == 1 << 30 and entries["web"]["cpus"] == 2 and
              entries["web"]["base"] == "debian" and "pid" not in entries["web"], entries)
        check(entries["a"]["memory"] == 512 << 20 and entries["a"]["folder"] == user.machine("a")[:-1], entries)
        check(entries["bad"]["state"] == "damaged" and "machine.yaml:2" in entries["bad"]["error"], entries)
        check_run(user.run("list", "--names"), 0, b"a\nbad\nempty\nweb\n", b"")


def documented():
    """The definition in machines.md is one."""
    with home() as user, open(os.path.join(ROOT, "docs/machines.md"), encoding="utf-8") as page:
        text = page.read().partition("\n    version: 1")[2].partition("\n\n")[0]
        user.define("web", text.partition("\n")[2].replace("\n    ", "\n").removeprefix("    "))
        entry = user.list()["web"]
        check(entry["state"] == "stopped" and entry["memory"] == 2 << 30 and entry["base"] == "debian-bookworm", entry)


def running():
    """A definition's options, and those that override it."""
    with home() as user:
        log = user.path("log")
        user.define("web", PLAIN + "memory: 64M\ncpus: 2\n")

        def logged(*args):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(log)
            check_run(user.run("run", "web", "--log", log, *args), 11, b"", b"")
            with open(log, encoding="ascii") as file:
                return file.read()

        text = logged()
        check("2 vCPUs, 64 MiB" in text and f"kernel {user.machine('web', 'kernel')}" in text, text)
        check(not os.path.exists(user.run_folder("web")), "the run folder is still there")
        text = logged("--memory", "32M", "--cpus", "1")
        check("1 vCPU, 32 MiB" in text, text)
        other = write(user.path("other"), multiboot(DEBUG_EXIT % 7))
        check_run(user.run("run", "--kernel", other, "web"), 15, b"", b"")
        check_complaint(user.run("run", "web", "--", "true"), "a command needs")
        check_complaint(user.run("run", "web", "--memory", "1"), "--memory")
        check(not os.path.exists(user.run_folder("web")), "the run folder is still there")
        check_complaint(user.run("run", "web", "a"), "unexpected argument 'a'")
        check_complaint(user.run("run", "nonesuch"), "'nonesuch' is no machine", "doppel list", "goes after --")
        check_complaint(user.run("run", "../web"), "'../web' is no machine")


def disks():
    """A definition's disks are the machine's own if their names are relative, and options add to them."""
    with home() as user:
        user.define("web", PLAIN + "disks:\n- disk.img\n- sub/b,,c.img,readonly\n")
        check_complaint(user.run("run", "web"), user.machine("web", "disk.img"), "No such file")
        write(user.machine("web", "disk.img"), bytes(4096))
        check_complaint(user.run("run", "web"), user.machine("web", "sub/b,c.img"), "No such file")
        os.mkdir(user.machine("web", "sub"))
        write(user.machine("web", "sub/b,c.img"), bytes(4096))
        check_run(user.run("run", "web"), 11, b"", b"")
        check_complaint(user.run("run", "web", "--disk", "none.img"), "none.img", "No such file")
        check_complaint(user.run("run", "web", "--device", "debug-exit"), "overlap")


def damaged():
    """Definitions that are damaged or hostile: one line each."""
    with home() as user:
        for text, word in [(b"", "is empty"), (b"version: 2\n", "later doppel"), (b"\0\0\0", "is no text"),
                           (b"version: 1\nkernal: x\n", "machine.yaml:2: there is no key 'kernal'"),
                           (b"version: 1\nkernel: \"\\e[2J\"\n", "control characters"),
                           (b"version: 1\nappend: &a [*a, *a]\n", "anchors"),
                           (b"[" * 60000, "'KEY: VALUE' is expected"),
                           (b"x" * 100000, "larger than 65536 bytes")]:
            user.define("web")
            write(user.machine("web", "machine.yaml"), text)
            check_complaint(user.run("run", "web"), user.machine("web"), word)
        os.unlink(user.machine("web", "machine.yaml"))
        check_complaint(user.run("run", "web"), "machine.yaml", "No such file")
        os.mkfifo(user.machine("web", "machine.yaml"))
        check_complaint(user.run("run", "web"), "not a regular file")
        check(not os.path.exists(user.run_folder("web")), "the run folder is still there")


def exclusive():
    """A machine runs once at a time, and is neither renamed nor removed while it does."""
    with home() as user:
        user.define("web", PLAIN, FOREVER)
        user.define("db", PLAIN)
        with user.running("web") as process:
            entry = user.list()["web"]
            check(entry["pid"] == process.pid, entry)
            told = f"'web' runs (process {process.pid})"
            check_complaint(user.run("run", "web"), told)
            check_complaint(user.run("rm", "--force", "web"), told)
            check_complaint(user.run("rename", "web", "other"), told)
            check_complaint(user.run("rename", "db", "web"), "there is a machine 'web' already")
            check_run(user.run("gc"), 0, b"", b"")
            check(os.path.exists(user.machine("web", "machine.yaml")), "it has been removed")
            check_run(user.run("rm", "-f", "db"), 0, b"", b"")
            process.send_signal(signal.SIGTERM)
            check(process.wait(240) == 128 + signal.SIGTERM, process.returncode)
            check(not os.path.exists(user.run_folder("web")), "the run folder is still there")
        check(user.state("web") == "stopped", user.list())


def killed():
    """A machine whose processes are killed leaves what the next run, or gc, cleans up."""
    with home() as user:
        user.define("web", PLAIN, FOREVER)
        for clean in "run", "gc":
            with user.running("web") as process:
                vm = vm_process(process.pid)
                process.kill()
                process.wait()
                wait_gone(vm)
            check(os.path.exists(user.run_folder("web", "lock")), "nothing was left")
            check(user.state("web") == "stopped", user.list())
            if clean == "run":
                check_run(user.run("run", "web", "--kernel", write(user.path("k"), multiboot(DEBUG_EXIT % 5))), 11)
            else:
                check_run(user.run("gc", "--dry-run"), 0, f"would remove {user.run_folder('web')[:-1]}\n".encode(), b"")
                check_run(user.run("gc"), 0, f"removed {user.run_folder('web')[:-1]}\n".encode(), b"")
            check(not os.path.exists(user.run_folder("web")), "the run folder is still there")


def removing():
    """rm takes what is the machine's, and asks."""
    with home() as user:
        outside = write(user.path("outside.img"), bytes(4096))
        for name in "web", "db", "a":
            user.define(name, PLAIN + f"disks: [{outside}]\n")
        os.symlink(user.folder, user.machine("web", "link"))
        check_complaint(user.run("rm", "web"), "--force")
        check_complaint(user.run("rm"), "no name")
        check_complaint(user.run("rm", "-f", "nonesuch"), "no machine 'nonesuch'")
        check_complaint(user.run("rm", "-f", "../machines"), "is not a name")
        check_run(user.run("rm", "--force", "web", "db"), 0, b"", b"")
        check(list(user.list()) == ["a"] and os.path.exists(outside), user.list())
        check(sorted(os.listdir(user.machine(""))) == [".lock", "a"], os.listdir(user.machine("")))
        for answer, left in (b"n\r", True), (b"\x04", True), (b"y\r", False):
            term = Terminal("-c", 'exec "$0" rm a', DOPPEL, program="/bin/sh", env=user.env)
            try:
                term.expect(rb"Remove 'a' with its disks \([^)]*\)\? \[y/N\] ", 60)
                term.send(answer)
                check(term.wait() == (125 if left else 0), term.seen)
            finally:
                term.close()
            check(("a" in user.list()) == left, answer)
        os.makedirs(user.machine(".new-x-123456"))
        write(user.machine(".new-x-123456", "disk"), b"half")
        check_run(user.run("gc"), 0, f"removed {user.machine('.new-x-123456')[:-1]}\n".encode(), b"")


def base_images():
    """gc removes the base images that no definition names and nobody has, and nothing if it cannot tell."""
    with home() as user:
        def image(name):
            return os.path.join(user.data, "images", name)

        for name in "used", "unused", "taken", ".new-broken", ".old-broken":
            os.makedirs(image(name))
            write(os.path.join(image(name), "disk.img"), bytes(4096))
            os.chmod(os.path.join(image(name), "disk.img"), 0o400)
        user.define("web", PLAIN + "base: used\n")
        user.define("bad", "base: [x]\n")
        taken = hold(image("taken.lock"))
        check_complaint(user.run("gc"), "base images stay", "bad/machine.yaml:2")
        check(os.path.exists(image("unused")), "it has been removed")
        check_run(user.run("rm", "-f", "bad"), 0)
        told = user.run("gc", "--dry-run").stdout.decode().splitlines()
        check(f"would remove {image('unused')}" in told, told)
        check(not any(name in line for line in told for name in ("/used", "/taken")), told)
        check(os.path.exists(image("unused")), "it has been removed")
        check_run(user.run("gc"), 0, stderr=b"")
        check(sorted(name for name in os.listdir(image("")) if not name.endswith(".lock")) == ["taken", "used"],
              os.listdir(image("")))
        os.close(taken)
        check_run(user.run("rename", "web", "db"), 0)
        check_run(user.run("gc"), 0, f"removed {image('taken')}\n".encode(), b"")
        check_run(user.run("rm", "-f", "db"), 0)
        check_run(user.run("gc"), 0, f"removed {image('used')}\n".encode(), b"")
        check_run(user.run("gc"), 0, b"", b"")


def showing():
    """A definition as text, which is a definition, and as JSON."""
    with home() as user:
        text = PLAIN + "memory: 64M\ncpus: 2\nnets:\n  - user,forward=8080:80\nssh:\n  user: me\n  port: 2222\n"
        user.define("web", text)
        done = user.run("show", "web")
        check_run(done, 0, stderr=b"")
        write(user.machine("web", "machine.yaml"), done.stdout)
        check(user.run("show", "web").stdout == done.stdout and b"cpus: 2" in done.stdout, done)
        shown = json.loads(user.run("show", "--json", "web").stdout)
        check(shown == {"name": "web", "folder": user.machine("web")[:-1], "definition": {
            "kernel": "kernel", "initrd": "", "memory": 64 << 20, "cpus": 2, "nets": ["user,forward=8080:80"],
            "devices": ["debug-exit"], "ssh": {"user": "me", "port": 2222}}}, shown)
        check_complaint(user.run("show", "other"), "no machine 'other'")
        user.define("web", PLAIN, FOREVER)
        with user.running("web"):
            shown = json.loads(user.run("show", "--json", "web").stdout)
            check(shown.get("state", {"engine": "bt"})["engine"] == "bt", shown)


def editing():
    """A definition is edited: what is saved and is a definition takes the old one's place, nothing else does."""
    with home() as user:
        user.define("web", PLAIN, FOREVER)
        before = user.run("show", "web").stdout

        def edit(command, **options):
            write(user.path("editor"), b"#!/bin/sh\n" + command.encode() + b"\n")
            os.chmod(user.path("editor"), 0o700)
            user.env["EDITOR"] = user.path("editor")
            return user.run("edit", "web", **options)

        check_run(edit("true"), 0, b"", b"")
        check_complaint(edit("echo 'frob: 1' >>\"$1\""), "machine.yaml:5", "frob")
        check_complaint(edit("rm \"$1\""), "No such file")
        check_complaint(edit("echo 'cpus: 2' >>\"$1\"; exit 1"), "the editor", "nothing is changed")
        check_complaint(edit(f"echo 'cpus: 2' >>\"$1\"; echo >>{user.machine('web', 'machine.yaml')}"), "meanwhile")
        check(user.run("show", "web").stdout == before, "it has changed")
        check_run(edit("echo 'cpus: 2' >>\"$1\""), 0, b"", b"")
        check(user.list()["web"]["cpus"] == 2, user.list())
        with user.running("web"):
            done = edit("echo 'memory: 64M' >>\"$1\"")
            check(done.returncode == 0 and b"next start" in done.stdout, done)
        check(sorted(os.listdir(user.machine("web"))) == ["kernel", "lock", "log", "machine.yaml"],
              os.listdir(user.machine("web")))
        check_complaint(user.run("edit", "other"), "no machine 'other'")
        user.env["EDITOR"] = user.path("editor")
        write(user.path("editor"), b"#!/bin/sh\nif grep -q frob \"$1\"; then sed -i s/frob/append/ \"$1\"; "
                                   b"else echo 'frob: quiet' >>\"$1\"; fi\n")
        term = Terminal("edit", "web", env=user.env)
        try:
            term.expect(rb"Edit it again")
            term.send(b"y\n")
            check(term.wait() == 0, term.seen)
        finally:
            term.close()
        check(b"append: quiet" in user.run("show", "web").stdout, "not edited again")


def renaming():
    """rename moves a machine, with what ssh was told of it."""
    with home() as user:
        user.define("old", PLAIN + "disks: [disk.img]\n")
        write(user.machine("old", "disk.img"), bytes(4096))
        user.define("other", PLAIN)
        check_complaint(user.run("rename", "old"), "too few arguments", "OLD NEW")
        check_complaint(user.run("rename", "old", "other"), "there is a machine 'other' already")
        check_complaint(user.run("rename", "old", "old"), "there is a machine 'old' already")
        check_complaint(user.run("rename", "nonesuch", "x"), "no machine 'nonesuch'")
        check_complaint(user.run("rename", "old", "New"), "'New' is not a name")
        check_run(user.run("rename", "old", "new"), 0, b"", b"")
        check(list(user.list()) == ["new", "other"], user.list())
        check_run(user.run("run", "new"), 11, b"", b"")


def folders():
    """Folders of the user that others could write to, or that cannot be made."""
    with home() as user:
        user.define("web", PLAIN)
        os.chmod(user.data, 0o777)
        check_complaint(user.run("list"), user.data, "open to other users")
        os.chmod(user.data, 0o700)
        os.mkdir(user.run_folder("")[:-1], 0o755)
        check_complaint(user.run("run", "web"), user.run_folder("")[:-1], "chmod 700")
        os.rmdir(user.run_folder("")[:-1])
        user.env["XDG_RUNTIME_DIR"] = "/proc/nonesuch"
        check_complaint(user.run("run", "web"), "/proc/nonesuch", "cannot make the folder")
        user.env["HOME"] = ""
        check_complaint(user.run("list"), "HOME")
        check_run(user.run("--version"), 0, stderr=b"")


def hold(path):
    """Locks the file PATH as doppel does. Returns its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))
    return descriptor


class Guest:
    """Takes the place of a machine that runs, NAME, and of its vsock device: ANSWER is called for each connection
    with a socket."""

    def __init__(self, user, name, answer):
        self.answer = answer
        os.makedirs(user.run_folder(name), 0o700)
        os.chmod(user.run_folder(""), 0o700)
        self.lock = hold(user.run_folder(name, "lock"))
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(user.run_folder(name, "vsock.sock"))
        self.socket.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.answer(connection)

    def close(self):
        """Ends the machine."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()
        os.close(self.lock)


@contextlib.contextmanager
def guest_of(user, name, answer):
    """A Guest that ends with the block."""
    guest = Guest(user, name, answer)
    try:
        yield guest
    finally:
        guest.close()


def read_line(connection):
    """Reads a line, byte by byte."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return line
        line += byte
    return line


def connecting():
    """doppel connect: both ways, with the ends of both, and with guests that are late or do not know how."""
    asked = []

    def echo(connection):
        asked.append(read_line(connection))
        connection.sendall(b"OK 1073741824\n")
        data = b""
        while chunk := connection.recv(65536):  # to the end of input
            data += chunk
        connection.sendall(data[::-1])

    with home() as user:
        user.define("web")
        check_complaint(user.run("connect", "web", "5"), "'web' does not run (doppel run web)")
        check_complaint(user.run("connect", "web"), "too few arguments", "NAME PORT")
        check_complaint(user.run("connect", "nonesuch", "5"), "no machine 'nonesuch'")
        check_complaint(user.run("connect", "web", "x"), "'x' is no port")
        with guest_of(user, "web", echo):
            data = os.urandom(1 << 20)
            check_run(user.run("connect", "web", "5000", stdin=data), 0, data[::-1], b"")
            check(asked == [b"CONNECT 5000\n"], asked)
            # Its output's reader goes away.
            with open("/dev/full", "wb") as full:
                check_complaint(user.run("connect", "web", "5", stdin=b"x", stdout=full), "standard output")
            # The connection itself, for ssh.
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    check_run(user.run("connect", "--pass-fd", "web", "7", stdout=theirs), 0, stderr=b"")
                byte, passed, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
                (descriptor,) = array.array("i", passed[0][2])
                with socket.socket(fileno=descriptor) as connection:
                    connection.sendall(b"abc")
                    connection.shutdown(socket.SHUT_WR)
                    check(byte == b"\0" and connection.recv(10) == b"cba", byte)
            check_complaint(user.run("connect", "--pass-fd", "web", "7"), "takes no descriptor")


def not_answering():
    """Guests that do not listen, answer something else, or begin late."""
    with home() as user:
        user.define("web")
        user.define("none", "vsock: none\n")
        for answer in (b"", b"NO\n", b"OK\n", b"OK 1x\n", b"OK 12345678901234567890123456789012345\n", b"x" * 1000):
            def reply(connection, answer=answer):
                read_line(connection)
                connection.sendall(answer)

            with guest_of(user, "web", reply):
                done = user.run("connect", "web", "5")
                check_complaint(done, "'web'", "vsock port 5")
            os.unlink(user.run_folder("web", "vsock.sock"))
            os.unlink(user.run_folder("web", "lock"))
            os.rmdir(user.run_folder("web"))
        tries = []

        def late(connection):
            tries.append(read_line(connection))
            if len(tries) < 3:
                return
            connection.sendall(b"OK 9\n")
            if len(tries) > 3:  # a server that has begun, at last
                connection.sendall(b"SSH-2.0-x\r\n")

        with guest_of(user, "web", late):
            check_run(user.run("connect", "--wait", "60", "web", "ssh"), 0, b"SSH-2.0-x\r\n", b"")
            check(tries == [b"CONNECT 22\n"] * 4, tries)
        check_complaint(user.run("connect", "none", "ssh"), "'none' has no vsock device")


FAKE_SSH = """#!/bin/sh
[ -z "$REAL" ] || { "$REAL" -G -F "$2" web | grep -i -E '^(user|hostname|identityfile|userknownhostsfile|proxy)'; }
printf '%s\\n' "$@"
exit 7
"""


def ssh():
    """doppel ssh: ssh gets a key, and a configuration that it understands, and the words as they are."""
    with home() as user:
        real = next((path for path in ("/usr/bin/ssh", "/bin/ssh") if os.path.exists(path)), "")
        user.define("web", "ssh: {user: me}\n")
        os.mkdir(user.path("bin"))
        write(user.path("bin/ssh"), FAKE_SSH.encode())
        os.chmod(user.path("bin/ssh"), 0o755)
        user.env |= {"PATH": user.path("bin") + ":" + user.env["PATH"], "REAL": real}
        check_complaint(user.run("ssh", "web"), "'web' does not run")
        check_complaint(user.run("ssh"), "too few arguments", "NAME")
        check_complaint(user.run("ssh", "nonesuch"), "no machine 'nonesuch'")
        check_complaint(user.run("ssh", "web", "id"), "unexpected argument 'id'", "after --")
        check_complaint(user.run("ssh", "web", "--"), "no command")
        with guest_of(user, "web", lambda connection: None):
            done = user.run("ssh", "--wait", "5", "web", "--", "echo", "a  b", "it's", "$x")
            check_run(done, 7, stderr=b"")
            words = done.stdout.decode().splitlines()
            key, config = os.path.join(user.data, "ssh/id_ed25519"), user.machine("web", "ssh.config")
            check(words[-7:-5] == ["-F", config], words)
            check(words[-5] == "-o" and words[-4] == f"ProxyCommand='{os.path.realpath(DOPPEL)}' connect "
                  "--pass-fd --wait 5 web ssh", words)
            check(words[-3:] == ["--", "web", r"'echo' 'a  b' 'it'\''s' '$x'"], words)
            if real:
                said = dict(line.split(" ", 1) for line in words[:-7])
                check(said["user"] == "me" and said["identityfile"] == key and
                      said["userknownhostsfile"] == user.machine("web", "known_hosts") and
                      said["proxycommand"].endswith("connect --pass-fd --wait 120 web ssh"), said)
            check(os.stat(key).st_mode & 0o777 == 0o600 and os.path.exists(key + ".pub"), "no key")
            with open(key, "rb") as file:
                before = file.read()
            # The key stays, and a plain ssh finds the machine by the file for all.
            check_run(user.run("ssh", "web"), 7, stderr=b"")
            with open(key, "rb") as file:
                check(file.read() == before, "another key")
            if real:
                said = subprocess.run([real, "-G", "-F", os.path.join(user.data, "ssh/config"), "web"],
                                      capture_output=True, check=True, env=user.env).stdout.decode()
                check("user me\n" in said, said)
        check_run(user.run("rename", "web", "web2"), 0, b"", b"")
        with open(user.machine("web2", "ssh.config"), encoding="ascii") as file:
            text = file.read()
        check("Host web2\n" in text and "web ssh" not in text and user.machine("web2") in text, text)


def ssh_reaches():
    """The real ssh gets to the guest's server, by doppel ssh and by itself."""
    greetings = []

    def server(connection):
        check(read_line(connection) == b"CONNECT 22\n", "something else was asked for")
        connection.sendall(b"OK 1024\nSSH-2.0-test\r\n")
        greetings.append(read_line(connection))
        connection.sendall(b"no more\n")

    with home() as user:
        user.define("web")
        with guest_of(user, "web", server):
            done = user.run("ssh", "web", "--", "true")
            check(done.returncode == 255 and len(greetings) == 1 and greetings[0].startswith(b"SSH-2.0-"),
                  done, greetings)
            done = subprocess.run(["ssh", "-F", user.machine("web", "ssh.config"), "web"], env=user.env, timeout=60,
                                  stdin=subprocess.DEVNULL, capture_output=True, check=False)
            check(done.returncode == 255 and len(greetings) == 2, done, greetings)


COMPLETE = """
source "$0"
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _doppel "$1"; echo "${COMPREPLY[*]}"; }
complete_words "$@"
"""


def completion():
    """Bash completes subcommands, options and names."""
    def complete(*words):
        script = os.path.join(ROOT, "src/cli/completion.bash")
        return subprocess.run(["bash", "-c", COMPLETE, script, DOPPEL, *words], env=user.env, timeout=60,
                              capture_output=True, check=True).stdout.decode().split()

    with home() as user:
        for name in "web", "web-2", "db":
            user.define(name)
        check(set(complete("r")) >= {"run", "rm", "rename"}, complete("r"))
        for command in ("rm", "run", "start", "stop", "restart", "kill", "pause", "resume", "console", "logs",
                        "events", "show", "edit", "enable", "disable"):
            check(complete(command, "we") == ["web", "web-2"], complete(command, "we"))
        check(complete("ssh", "--wait", "5", "d") == ["db"], complete("ssh", "--wait", "5", "d"))
        check(complete("exec", "-t", "d") == ["db"], complete("exec", "-t", "d"))
        check(set(complete("cp", "we")) >= {"web:", "web-2:"}, complete("cp", "we"))
        check(complete("list", "--n") == ["--names"], complete("list", "--n"))
        check(complete("run", "web", "--", "we") == [], "a command's words are completed")


def ssh_missing():
    """Without ssh's programs: one line, and nothing is left."""
    with home() as user:
        user.define("web")
        user.env["PATH"] = user.path("nonesuch")
        with guest_of(user, "web", lambda connection: None):
            check_complaint(user.run("ssh", "web"), "ssh-keygen is not installed", "openssh-client")
            check(os.listdir(os.path.join(user.data, "ssh")) == ["lock"], os.listdir(os.path.join(user.data, "ssh")))


main(listing, documented, showing, editing, running, disks, damaged, exclusive, killed, removing, base_images, renaming, folders,
     connecting, not_answering, ssh, ssh_reaches, ssh_missing, completion)
