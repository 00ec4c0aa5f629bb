"""A user with folders of a test's own, and machines in them."""
import contextlib
import json
import os
import subprocess
import tempfile
import time

from vm import DEBUG_EXIT, DOPPEL, GUESTS, check, check_run, environment, multiboot, run as run_doppel, write

PLAIN = "kernel: kernel\ninitrd: ''\ndevices: [debug-exit]\n"


class Home:
    """A user's folders of a test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.runtime = os.path.join(folder, "run")
        self.data = os.path.join(folder, ".local/share/doppel")
        os.mkdir(self.runtime, 0o700)
        self.env = {k: v for k, v in environment().items() if not k.startswith("XDG_")}
        self.env |= {"HOME": folder, "XDG_RUNTIME_DIR": self.runtime, "DOPPEL_GUESTS": GUESTS}

    def path(self, name):
        """A path in the user's home."""
        return os.path.join(self.folder, name)

    def machine(self, name, file=""):
        """The path of FILE in a machine's folder."""
        return os.path.join(self.data, "machines", name, file)

    def run_folder(self, name, file=""):
        """The path of FILE in a machine's run folder."""
        return os.path.join(self.runtime, "doppel", name, file)

    def define(self, name, text="", code=DEBUG_EXIT % 5):
        """Writes a machine's definition, and its kernel, which executes CODE."""
        os.makedirs(self.machine(name), 0o700, exist_ok=True)
        os.chmod(self.data, 0o700)
        write(self.machine(name, "kernel"), multiboot(code))
        write(self.machine(name, "machine.yaml"), b"version: 1\n" + text.encode())

    def run(self, *args, **options):
        """Runs doppel as this user."""
        return run_doppel(*args, env=self.env, stdin=options.pop("stdin", None), timeout=240, **options)

    @contextlib.contextmanager
    def running(self, name, *args):
        """A doppel that runs the machine NAME until the end of the block."""
        process = subprocess.Popen([DOPPEL, "run", name, *args], env=self.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            end = time.monotonic() + 240
            while self.state(name) != "running":
                check(process.poll() is None and time.monotonic() < end, "never ran:", process.poll(),
                      process.stderr.read() if process.poll() is not None else "")
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
            process.communicate()

    def list(self, silent=False):
        """What doppel list --json says, by name. On a slow host a machine may be SILENT that does not hang."""
        while True:
            done = self.run("list", "--json")
            check_run(done, 0)
            entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
            if silent or "silent" not in {entry["state"] for entry in entries.values()}:
                return entries

    def state(self, name):
        """The state that a machine is listed with."""
        return self.list()[name]["state"]


@contextlib.contextmanager
def home():
    """A Home that is removed in the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield Home(folder)
