#!/usr/bin/python3
"""`doppel create debian`: a machine is made, boots to a login, is reached by ssh and installs a package; its file
system is as it should be before and after.

    debian.py DOPPEL [NAME...]

Packages and base images stay in guests/cache from one run to the next, since what they are made of is in their
names. The first test is for continuous integration; `make soak-debian` runs them all.
"""
import contextlib
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from vm import DOPPEL, GUESTS, check, check_run, environment, main, run as run_doppel, scratch, terminal, without_steps

MADE = 1500  # seconds that installing all packages may take on a slow host
BOOT = 600
SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"


class Host:
    """A user of this host with machines of their own, for as long as a test runs."""

    def __init__(self, folder, suite, before=(), keep=True):
        self.folder, self.suite, self.before = folder, suite, list(before)
        self.name = f"test-{os.getpid()}"
        self.data = os.path.join(GUESTS, "machines") if keep else os.path.join(folder, "data")
        self.env = environment() | {"HOME": folder, "PATH": SBIN, "XDG_DATA_HOME": self.data,
                                    "XDG_CACHE_HOME": os.path.join(folder, "cache"),
                                    "DEBIAN_CACHE": os.path.join(GUESTS if keep else folder, "debian")}
        os.makedirs(self.data, 0o700, exist_ok=True)

    def run(self, *args, timeout=300, stdin=None):
        """Runs doppel as this user."""
        if not self.before:
            return run_doppel(*args, env=self.env, stdin=stdin, timeout=timeout)
        return subprocess.run([*self.before, DOPPEL, *args], env=self.env, stdin=subprocess.DEVNULL, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)

    def machine(self, file):
        """The path of FILE in the machine's folder."""
        return os.path.join(self.data, "doppel/machines", self.name, file)

    def base(self):
        """The name of the machine's base image."""
        with open(self.machine("machine.yaml"), encoding="utf-8") as file:
            return re.search(r"^base: (\S+)$", file.read(), re.M).group(1)

    def create(self, *options):
        """Makes the machine; returns the seconds that took. Base images of another make are removed."""
        start = time.monotonic()
        done = self.run("create", "debian", "--suite", self.suite, *options, self.name, timeout=MADE)
        check_run(without_steps(done), 0, b"", b"")
        took = time.monotonic() - start
        images = os.path.join(self.data, "doppel/images")
        for name in os.listdir(images):
            if name.startswith(f"debian-{self.suite}-") and not name.startswith(self.base()):
                path = os.path.join(images, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        return took

    def judge(self):
        """Has e2fsck look at the machine's disk, and at the one that it stands on."""
        base = os.path.join(self.data, "doppel/images", self.base(), "disk.img")
        raw = os.path.join(self.folder, "disk.raw")
        done = self.run("image", "convert", "-O", "raw", f"{self.machine('disk.qcow2')},backing={base}", raw)
        check_run(done, 0)
        for disk in base, raw:
            done = subprocess.run(["e2fsck", "-fn", disk], env=self.env, capture_output=True, timeout=300, check=False)
            check(done.returncode == 0, "e2fsck:", done.stdout.decode())
        os.unlink(raw)

    def ssh(self, *command, timeout=300):
        """Runs COMMAND in the guest; returns its output."""
        done = self.run("ssh", self.name, "--", *command, timeout=timeout)
        check(done.returncode == 0, "ssh", *command, "status", done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def remove(self):
        """Removes the machine; its base image stays."""
        self.run("rm", "--force", self.name)


@contextlib.contextmanager
def host(suite, **options):
    """A Host whose machine is gone in the end."""
    with scratch() as path:
        os.mkdir(path("home"), 0o755)
        user = Host(path("home"), suite, **options)
        try:
            yield user
        finally:
            user.remove()


def reachable(uri):
    """Whether this host gets something from URI."""
    try:
        with urllib.request.urlopen(uri, timeout=20) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def install(user):
    """Has the guest install a package by way of the user network, if this host can."""
    mirror = user.ssh("cut", "-d", " ", "-f", "2", "/etc/apt/sources.list").split()[0]
    if not reachable(f"{mirror.rstrip('/')}/dists/{user.suite}/Release"):
        print(f"not installed: this host does not reach {mirror}")
        return
    user.ssh("sudo", "sed", "-i", "1q", "/etc/apt/sources.list")
    user.ssh("sudo", "apt-get", "-q", "update", timeout=900)
    user.ssh("sudo", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qy", "install", "hello", timeout=900)
    check(user.ssh("hello") == "Hello, world!\n", "what was installed")


def agent(user):
    """The agent of doppel's is there, goes on when it is killed or its unit restarted, and knows the machine's users."""
    def exec_(*words, options=()):
        return user.run("exec", *options, user.name, "--", *words, stdin=b"")

    done = exec_("sh", "-c", "id -un; pwd; systemctl is-active doppel-agent")
    check(done.returncode == 0 and done.stdout == b"root\n/root\nactive\n" and not done.stderr, done)
    done = exec_("sh", "-c", "id -un; echo $HOME; sudo -n id -un; exit 3", options=["-u", "me"])
    check(done.returncode == 3 and done.stdout == b"me\n/home/me\nroot\n", done)
    done = exec_("sh", "-c", "systemctl restart doppel-agent; echo goes on")
    check(done.returncode == 0 and done.stdout == b"goes on\n", done)
    done = exec_("systemctl", "kill", "--kill-who=main", "-s", "KILL", "doppel-agent")
    check(done.returncode == 0, done)
    done = exec_("dpkg", "-S", "/usr/local/sbin/doppel-agent", "/etc/systemd/system/doppel-agent.service")
    check(done.returncode == 1 and not done.stdout, "a package has the agent's files:", done)


def use(user, network=True):
    """Boots the machine to its login, works in it and powers it off."""
    release = {"bookworm": "12", "trixie": "13"}[user.suite]
    start = time.monotonic()
    with terminal("run", user.name, env=user.env) as term:
        term.expect(rb"%s login: " % user.name.encode(), BOOT)
        print(f"a login after {time.monotonic() - start:.1f} s")
        term.send(b"me\n")
        term.expect(rb"me@%s:~\$ " % user.name.encode(), BOOT)
        term.send(b"sudo systemctl is-system-running --wait; systemctl --failed --no-legend | grep -c . ; id -un\n")
        term.expect(rb"running\r\n0\r\n(\x1b\[\S+)?me\r\n", BOOT)
        check(user.ssh("uname", "-n").strip() == user.name, "the host name")
        check(user.ssh("cat", "/etc/debian_version").startswith(release), "the release")
        check(int(user.ssh("df", "--output=size", "-BM", "/").split()[1].rstrip("M")) > 11000, "it has grown")
        check(user.ssh("sudo", "stat", "-c", "%n", "/etc/ssh/ssh_host_ed25519_key").startswith("/etc"), "a host key")
        agent(user)
        if network:
            # Names that nobody knows are refused at once: an ssh server asks for one at each login.
            took = user.ssh("bash", "-c", "SECONDS=0; getent hosts UNKNOWN; echo $SECONDS")
            check(int(took) < 3, "an unknown name takes long:", took)
            check("nameserver" in user.ssh("grep", "^nameserver", "/etc/resolv.conf"), "a name server")
            check(user.ssh("ip", "-4", "-o", "addr", "show", "scope", "global"), "an address by DHCP")
            install(user)
        term.send(b"sudo poweroff\n")
        check(term.wait(300) == 0, "status", term.process.returncode)


def bookworm():
    """Debian 12: made, used, and whole afterwards; a second one takes a moment."""
    with host("bookworm") as user:
        print(f"made in {user.create('--user', 'me', '--size', '12G'):.1f} s")
        user.judge()
        use(user)
        user.judge()
        name, user.name = user.name, user.name + "-b"
        check(user.create() < 30, "the second one takes long")
        user.remove()
        user.name = name


def trixie():
    """Debian 13."""
    with host("trixie") as user:
        print(f"made in {user.create('--user', 'me', '--size', '12G'):.1f} s")
        user.judge()
        use(user)
        user.judge()


def in_a_machine(suite="bookworm"):
    """Packages are installed in a virtual machine: neither root nor user namespaces nor mmdebstrap are needed."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    with host(suite, before=nobody, keep=False) as user:
        for path in (os.path.dirname(user.folder), user.folder, user.data):
            os.chmod(path, 0o755)
            if nobody:
                os.chown(path, 65534, 65534)
        os.mkdir(os.path.join(user.folder, "run"), 0o700)
        user.env |= {"XDG_RUNTIME_DIR": user.folder + "/run", "TMPDIR": user.folder}
        if nobody:
            os.chown(user.folder + "/run", 65534, 65534)
        print(f"made in {user.create('--user', 'me', '--size', '12G'):.1f} s")
        user.judge()
        done = user.run("run", user.name, "--append", "root=/dev/vda rw systemd.unit=poweroff.target", timeout=BOOT)
        check(done.returncode == 0 and b"reboot: Power down" in done.stdout, done.stdout[-2000:], done.stderr)
        user.judge()


def trixie_in_a_machine():
    """Debian 13 alike."""
    in_a_machine("trixie")


if __name__ == "__main__":
    main(bookworm, trixie, in_a_machine, trixie_in_a_machine)
