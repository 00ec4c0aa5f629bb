"""The machines that bench/run.py compares: this host itself, doppel with each of its engines, and QEMU
with its translator TCG. All of them run the program in bench/guest and are told over their standard
input and output what to do; for a guest that is its first serial line.
"""
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
import tty

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CACHE = os.path.join(HERE, "cache")
DOPPEL = os.environ.get("DOPPEL", os.path.join(ROOT, "build", "doppel"))
QEMU = os.environ.get("QEMU", os.path.join(CACHE, "qemu", "qemu-system-x86_64"))  # make-qemu's
KERNEL = os.path.join(ROOT, "guests", "cache", "vmlinuz-6.1")
PROGRAM = os.path.join(CACHE, "bench")
SMALL, LARGE = os.path.join(CACHE, "small.img"), os.path.join(CACHE, "large.img")
DISKS = os.path.join(CACHE, "disks.img")  # what boots where disks are tested
DISK_BYTES = 128 << 20
AGENT, UP = "/bench/bench", "/bench/up"

# Guests have no AVX-512, so the C library and OpenSSL do without it natively, too: the same code is
# to be compared. (OpenSSL's mask: AVX512F, DQ, IFMA, CD, BW, VL, VAES, VPCLMULQDQ.)
NATIVE_ENV = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(
        f"-AVX512{x}" for x in ("F", "CD", "BW", "DQ", "VL")),
    "OPENSSL_ia32cap": ":~0x600D0230000",
}
START_S, ANSWER_S = 120, 120
DRIFT_S = 10


class Failed(Exception):
    """The machine did not do what it was told."""


def command_line(init):
    """As the default guest has it: without the self-tests of the kernel's cryptography."""
    return f"quiet loglevel=0 cryptomgr.notests rdinit={init}"


def qemu(machine, cpus, memory, initrd, init, disk=None):
    plugged = ["-drive", f"file={disk},if=none,id=disk,format=raw,cache=writeback",
               "-device", "virtio-blk-pci,drive=disk,disable-legacy=on"] if disk else []
    return [QEMU, "-M", machine, "-accel", "tcg", "-cpu", "max",
            "-smp", str(cpus), "-m", f"{memory}M", "-kernel", KERNEL, "-initrd", initrd,
            "-append", f"console=ttyS0 {command_line(init)}", "-nodefaults", "-no-user-config",
            "-nographic", "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line", *plugged]


def doppel(engine, cpus, memory, initrd, init, disk=None):
    return [DOPPEL, "run", "--engine", engine, "--cpus", str(cpus), "--memory", f"{memory}M",
            "--kernel", KERNEL, "--initrd", initrd, "--append", command_line(init),
            *(["--disk", disk] if disk else [])]


def disk_image(name):
    """The image of the machine called NAME, which is locked while the machine runs."""
    path = os.path.join(CACHE, f"disk-{name}.raw")
    with open(path, "wb") as image:
        image.write(os.urandom(DISK_BYTES))
    return path


COUNTING = ["--stats", "--json"]  # for doppel; its guests run slower when instructions are counted


class Kind:
    """A way to run the benchmark. ARGV makes the command that boots a guest, None: natively; ENGINE is
    doppel's."""

    def __init__(self, name, argv, engine=None, boots_only=False):
        self.name, self.argv, self.engine, self.boots_only = name, argv, engine, boots_only
        self.emulated = argv is not None and engine is None  # by QEMU


def kinds():
    """Every kind of machine by name, in the order of the tables."""
    known = [Kind("native", None)]
    for engine in engines():
        known.append(Kind(engine, lambda *a, e=engine: doppel(e, *a), engine))
    known.append(Kind("tcg", lambda *a: qemu("pc", *a)))
    # Only good for booting: it has nothing that Linux could calibrate its clock with, so time there
    # is up to a third off. With ACPI, it does not boot this kernel to the end when that is quiet.
    known.append(Kind("tcg-microvm", lambda *a: qemu("microvm,acpi=off", *a), boots_only=True))
    return {kind.name: kind for kind in known}


def kvm_is_real():
    """Whether hardware executes the kernels of KVM's guests here; what emulates them takes hours."""
    said = subprocess.run([DOPPEL, "doctor", "--json"], stdout=subprocess.PIPE, check=False).stdout
    return bool(json.loads(said or "{}").get("kvm_native"))


def engines():
    """The engines that doppel knows and that are worth measuring here, the reference last; not auto, which is one
    of them."""
    said = subprocess.run([DOPPEL, "run", "--engine", "?"], stderr=subprocess.PIPE, text=True,
                          check=False).stderr
    known = re.search(r"\(known: (.*)\)", said)
    if not known:
        raise Failed(f"cannot tell the engines of {DOPPEL}: {said.strip()}")
    found = set(known.group(1).split(", ")) - {"auto"}
    if "kvm" in found and not kvm_is_real():
        found.remove("kvm")
    return sorted(found, key=lambda e: (e == "interp", e))


class Process:
    """A machine's process, the lines it writes and what was said to it."""

    def __init__(self, argv, env=None):
        # A terminal, because what comes in otherwise doppel would type at a human pace.
        self.line, slave = pty.openpty()
        tty.setraw(slave)
        self.start = time.monotonic_ns()
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})}, start_new_session=True)
        os.close(slave)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = b""
        self.errors, self.said = [], threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stderr:
            with self.said:
                self.errors.append(line.decode(errors="replace").strip())
                self.said.notify_all()

    def _more(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
            raise Failed("no answer in time")
        read = self.process.stdout.read()
        if read == b"":
            self.process.wait()
            time.sleep(0.1)
            raise Failed("ended" + "".join(f": {e}" for e in self.errors[-1:]))
        self.text += read or b""

    def wait_for(self, mark, timeout):
        """Waits until the bytes MARK have come. Returns when, in ns since the start."""
        deadline = time.monotonic() + timeout
        while mark not in self.text:
            self._more(deadline)
        self.text = self.text.split(mark, 1)[1]
        return time.monotonic_ns() - self.start

    def answer(self, timeout):
        """The next line that begins with "@@", without that, as words, and when it came."""
        deadline = time.monotonic() + timeout
        while True:
            line, newline, rest = self.text.partition(b"\n")
            if newline:
                self.text = rest
                at = line.find(b"@@")
                if at >= 0:
                    text = line[at + 2:].decode(errors="replace").strip("\r")
                    return text, time.monotonic_ns()
                continue
            self._more(deadline)

    def tell(self, text):
        os.write(self.line, text.encode() + b"\n")

    def statistics(self, timeout=5):
        """What doppel has counted so far."""
        with self.said:
            seen = len(self.errors)
            self.process.send_signal(signal.SIGUSR1)
            if not self.said.wait_for(lambda: len(self.errors) > seen, timeout):
                raise Failed("no statistics")
            return json.loads(self.errors[-1])

    def family(self):
        """The process and what it has started, as far as it lives."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                    parents[int(pid)] = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                pass  # it has ended meanwhile
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def processor_ns(self):
        """The processor time of all its threads so far."""
        ticks = 0
        for pid in self.family():
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                ticks += sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
        return ticks * 1e9 / os.sysconf("SC_CLK_TCK")

    def beside_guest(self, memory):
        """Bytes in memory beside the guest's own: what is not in a mapping of MEMORY bytes or more."""
        found = 0
        for pid in self.family():
            with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as maps:
                size = 0
                for line in maps:
                    word, *rest = line.split()
                    if word == "Size:":
                        size = int(rest[0]) * 1024
                    elif word == "Pss:" and size < memory:
                        found += int(rest[0]) * 1024
        return found

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        os.close(self.line)


class Machine:
    """A machine that waits for tests to run. COUNTING: one that can be asked for statistics. DISK: one
    with a disk, /dev/vda, whose image is in the host's page cache."""

    def __init__(self, kind, cpus, image, memory, counting=False, disk=False):
        self.kind, self.first, self.last = kind, None, None
        self.memory = memory << 20
        self.data = "" if kind.argv else os.path.join(CACHE, "root")
        if kind.argv:
            argv = kind.argv(cpus, memory, image, AGENT, disk_image(kind.name) if disk else None)
            self.process = Process(argv + COUNTING * counting)
        else:
            self.process = Process([PROGRAM, self.data], NATIVE_ENV)
        try:
            self._until_ready(START_S)
            if disk:
                self.program("/dev/null", False, ["/bin/sh", "-c",
                                                  "for m in /lib/modules/$(uname -r)/*.ko; do insmod $m; done"])
        except BaseException:
            self.end()
            raise

    def _until_ready(self, timeout):
        lines = []
        while True:
            text, when = self.process.answer(timeout)
            if text == "ready":
                return lines
            lines.append((text, when))

    def list(self):
        """The tests there are: name, group, CPUs, what one operation is."""
        self.process.tell("list")
        lines = self._until_ready(ANSWER_S)
        return [text.split(" ", 4)[1:] for text, _ in lines if text.startswith("test ")]

    def run(self, command):
        """Runs one command. Returns ns per operation, the number of operations and the output's
        lines."""
        self.process.tell(command)
        output, result = [], None
        for text, when in self._until_ready(ANSWER_S):
            word, _, rest = text.partition(" ")
            if word == "error":
                raise Failed(rest)
            if word in ("begin", "end"):
                self.last = int(rest), when
                self.first = self.first or self.last
            elif word == "out":
                output.append(rest)
            elif word == "result":
                ns, ops = rest.split()
                result = float(ns), int(ops)
        if result is None:
            raise Failed("no result")
        return (*result, output)

    def drift(self):
        """By what fraction this machine's clock has gone wrong so far; None: too early to tell, for
        what is compared are two lines, and they may come late."""
        if not self.last or self.last[1] - self.first[1] < DRIFT_S * 1e9:
            return None
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1]) - 1

    def test(self, name, ms):
        return self.run(f"test {name} {ms}")

    def operations(self, name, ops):
        return self.run(f"ops {name} {ops}")

    def program(self, stdin, show, words):
        """Runs a program. In its words, @ stands for the directory with the files."""
        stdin = stdin.replace("@", self.data + "/data/")
        return self.run("exec " + "\t".join([stdin, "show" if show else "hide", *words]))

    def statistics(self):
        return self.process.statistics()

    def end(self):
        self.process.end()


def boot(kind, counting=False, memory=512):
    """Boots the default guest. Returns the ns until its first program began and until its shell
    asked for a command, and what doppel counted if COUNTING."""
    process = Process(kind.argv(1, memory, SMALL, UP) + COUNTING * counting)
    try:
        up = process.wait_for(b"@@up", START_S)
        shell = process.wait_for(b"# ", START_S)
        return up, shell, process.statistics() if counting else None
    finally:
        process.end()
