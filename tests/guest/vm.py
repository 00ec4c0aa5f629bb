"""What the whole-machine tests share: starting doppel, with pipes or under a pseudo-terminal, tiny
guests made on the spot, and checks that say what they saw.

Each test is a program called with the path of doppel. It exits with 0, 1, or 77 when a guest that
it needs has not been made (guests/make).
"""
import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
GUESTS = os.environ.get("DOPPEL_GUESTS", os.path.join(ROOT, "guests", "cache"))
DOPPEL = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(ROOT, "build", "doppel")

# Where doppel keeps machines and their sockets; removed in the end.
FOLDERS = tempfile.TemporaryDirectory()

# Generous: a slow, loaded host is no mistake. What must be fast is measured, not timed out.
BOOT_TIMEOUT = 240


class Failure(Exception):
    """A check that did not hold."""


def check(condition, *what):
    """Fails the test with WHAT was seen unless CONDITION holds."""
    if not condition:
        raise Failure(" ".join(str(w) for w in what))


def guest(name):
    """The path of a guest file; skips the test when it has not been made."""
    path = os.path.join(GUESTS, name)
    if not os.path.exists(path):
        print(f"skipped: {path} is missing (guests/make)")
        sys.exit(77)
    return path


def environment():
    """Ours, with the default guest of this tree and the same engine everywhere, and without the machines of whoever
    runs the test."""
    return {**os.environ, "DOPPEL_GUESTS": GUESTS, "TERM": "vt100", "XDG_DATA_HOME": FOLDERS.name,
            "XDG_RUNTIME_DIR": FOLDERS.name, "DOPPEL_ENGINE": "bt"}


def run(*args, stdin=b"", timeout=BOOT_TIMEOUT, **options):
    """Runs doppel with ARGS and the bytes STDIN as its input (None: /dev/null)."""
    if stdin is None:
        options["stdin"] = subprocess.DEVNULL
    else:
        options["input"] = stdin
    options.setdefault("env", environment())
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    try:
        done = subprocess.run([DOPPEL, *args], timeout=timeout, check=False, **options)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"doppel {' '.join(args)}: not done after {timeout} s; "
                      f"stdout {late.stdout}, stderr {late.stderr}") from late
    print(f"doppel {' '.join(args)}: status {done.returncode}")
    return done


def check_run(done, status, stdout=None, stderr=None):
    """Checks what run() returned; STDOUT and STDERR are what they must be."""
    seen = f"stdout {done.stdout!r}, stderr {done.stderr!r}"
    check(done.returncode == status, f"status {done.returncode}, not {status}:", seen)
    check(stdout is None or done.stdout == stdout, "other output:", seen)
    check(stderr is None or done.stderr == stderr, "other error output:", seen)


def without_steps(done):
    """What run() returned, without the lines that say what is being done ("doppel: WHAT ...")."""
    done.stderr = b"".join(line for line in done.stderr.splitlines(True) if not line.endswith(b" ...\n"))
    return done


def check_complaint(done, *words, status=125):
    """Checks that doppel failed with one clear line that has all of WORDS."""
    text = done.stderr.decode()
    check(done.returncode == status, f"status {done.returncode}, not {status}: {text!r}")
    check(text.startswith("doppel: ") and text.endswith("\n") and text.count("\n") == 1,
          f"not one line: {text!r}")
    for word in words:
        check(word in text, f"no '{word}' in {text!r}")


def children(pid):
    """The processes whose parent is PID, with their names."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                text = file.read()
        except OSError:
            continue  # it has ended meanwhile
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found[int(name)] = text[text.index("(") + 1:text.rindex(")")]
    return found


def vm_process(supervisor):
    """The VM process of the doppel that was started as process SUPERVISOR."""
    end = time.monotonic() + 60
    while True:
        found = [pid for pid, name in children(supervisor).items() if name == "doppel-vm"]
        if found:
            return found[0]
        check(time.monotonic() < end, f"process {supervisor} has no VM process")
        time.sleep(0.02)


def thread_names(pid):
    """What the threads of PID are called; nothing if it has ended."""
    names = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii") as file:
                names.append(file.read().strip())
    except OSError:
        pass
    return names


def wait_gone(pid, within=20):
    """Waits until there is no process PID any more, or only what is left of it for its parent."""
    end = time.monotonic() + within
    while True:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return
        except OSError:
            return
        check(time.monotonic() < end, f"process {pid} is still there")
        time.sleep(0.02)


class Terminal:
    """doppel, or another PROGRAM, under a pseudo-terminal of its own."""

    def __init__(self, *args, program=DOPPEL, env=None):
        self.seen = b""
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen([program, *args], stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, env=env or environment(),
                                        start_new_session=True, preexec_fn=self._control)

    def _control(self):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have used nohup
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 1)

    def resize(self, rows, columns):
        """Changes the window's size, as a terminal emulator does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, timeout):
        """Reads what comes within TIMEOUT seconds. False when nothing did."""
        if not select.select([self.master], [], [], max(0, timeout))[0]:
            return False
        self.seen += os.read(self.master, 65536)
        return True

    def expect(self, pattern, timeout=BOOT_TIMEOUT):
        """Waits for the regular expression PATTERN and forgets what came up to its end."""
        end = time.monotonic() + timeout
        while not (match := re.search(pattern, self.seen)):
            left = end - time.monotonic()
            check(left > 0, f"no {pattern!r} in {timeout} s: {self.seen[-2000:]!r}")
            self.read(min(left, 1))
            check(self.process.poll() is None or self.read(0.2) or re.search(pattern, self.seen),
                  f"ended without {pattern!r}: {self.seen[-2000:]!r}")
        self.seen = self.seen[match.end():]
        return match

    def send(self, data):
        """Types DATA."""
        os.write(self.master, data)

    def raw(self):
        """Whether the terminal is in raw mode now."""
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def wait_raw(self):
        """Waits until doppel has put the terminal into raw mode."""
        end = time.monotonic() + 30
        while not self.raw():
            check(time.monotonic() < end, f"never raw: {self.seen!r}")
            self.read(0.05)

    def wait(self, timeout=60):
        """Waits for doppel's end, still reading. Returns its status."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            check(time.monotonic() < end, f"does not end: {self.seen[-2000:]!r}")
            self.read(0.05)
        while self.read(0.1):
            pass
        return self.process.returncode

    def check_restored(self, within=2):
        """Checks that the terminal is as it was before doppel."""
        end = time.monotonic() + within
        while termios.tcgetattr(self.slave) != self.before:
            check(time.monotonic() < end, "the terminal was not restored")
            time.sleep(0.02)

    def close(self):
        """Ends everything, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def terminal(*args, **options):
    """A Terminal that is closed in the end."""
    term = Terminal(*args, **options)
    try:
        yield term
    finally:
        term.close()


def multiboot(code):
    """A Multiboot 1 kernel, a 32-bit ELF file at 1 MiB, that executes the bytes CODE."""
    header = struct.pack("<3I", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)
    content = header + code
    entry = 0x100000 + len(header)
    elf = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1,
                      0, 0, 0)
    segment = struct.pack("<8I", 1, 0x1000, 0x100000, 0x100000, len(content), len(content), 7,
                          0x1000)
    return (elf + segment).ljust(0x1000, b"\0") + content


def write_com1(text, then):
    """Code that writes TEXT to COM1, waiting for room, and goes on with the bytes THEN."""
    code = b""
    for byte in text:
        code += b"\x66\xba\xfd\x03"      # mov $0x3fd, %dx
        code += b"\xec\xa8\x20\x74\xfb"  # 1: in %dx, %al; test $0x20, %al; jz 1b
        code += b"\x66\xba\xf8\x03\xb0" + bytes([byte]) + b"\xee"  # out
    return code + then


DEBUG_EXIT = b"\xb0%c\xe6\xf4"                     # mov $V, %al; out %al, $0xf4
FOREVER = b"\xeb\xfe"                              # jmp .
JUMP_BACK = b"\xeb\xee"                            # jmp to the start of a one-byte write_com1
HALT = b"\xfa\xf4"                                 # cli; hlt
TRIPLE_FAULT = b"\x0f\x01\x1d\0\0\0\0\xcc"         # lidt 0; int3 (address 0 holds zeros)


@contextlib.contextmanager
def scratch():
    """A folder that is removed in the end, as a function that gives paths in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield lambda name: os.path.join(folder, name)


def write(path, data):
    """Writes DATA to PATH, which it returns."""
    with open(path, "wb") as file:
        file.write(data)
    return path


def archive(*files):
    """A cpio archive (newc) of executables: pairs of name and contents."""
    out = b""
    for number, (name, data) in enumerate((*files, ("TRAILER!!!", b"")), 1):
        fields = (number, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return out


def attempt(job, *arguments):
    """Does a job of a long run, whose output is shown if it fails. Returns what it returns or "FAILED", and the
    seconds that it took."""
    start = time.monotonic()
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            verdict = job(*arguments)
    except Failure as failure:
        verdict = "FAILED"
        print(output.getvalue(), failure)
    return verdict or "ok", time.monotonic() - start


def main(*tests):
    """Runs the TESTS and exits. More words on the command line choose among them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = sys.argv[2:]
    if chosen and not any(test.__name__ in chosen for test in tests):
        sys.exit(f"no test is called {chosen[0]}")
    failed = 0
    for test in tests:
        if chosen and test.__name__ not in chosen:
            continue
        start = time.monotonic()
        try:
            test()
            result = "ok"
        except Failure as failure:
            failed += 1
            result = f"FAILED: {failure}"
        print(f"{test.__name__}: {result} ({time.monotonic() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else 0)
