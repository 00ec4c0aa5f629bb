#!/usr/bin/python3
"""`doppel create`: tar archives and images become disks, with e2fsck and debugfs as the judges of what it makes.
No guest boots here."""
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time

from vm import DOPPEL, GUESTS, check, check_complaint, check_run, environment, main, run as run_doppel, scratch, write

MIB = 1 << 20
ENV = environment()
SBIN = {**ENV, "PATH": ENV["PATH"] + ":/usr/sbin:/sbin"}


class Home:
    """A user's folders of a test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.data = os.path.join(folder, "data", "doppel")
        self.env = {k: v for k, v in SBIN.items() if not k.startswith(("XDG_", "DEBIAN_"))}
        for name in ("run", "data", "cache", "config"):
            os.mkdir(os.path.join(folder, name), 0o700)
        self.env |= {"HOME": folder, "XDG_RUNTIME_DIR": folder + "/run", "XDG_DATA_HOME": folder + "/data",
                     "XDG_CACHE_HOME": folder + "/cache", "XDG_CONFIG_HOME": folder + "/config",
                     "TMPDIR": folder}

    def create(self, *args, **options):
        """Runs `doppel create`."""
        return run_doppel("create", *args, env=self.env, stdin=None, timeout=120, **options)

    def good(self, *args):
        """Runs it, and it must succeed in silence."""
        check_run(self.create(*args), 0, stdout=b"", stderr=b"")

    def images(self):
        """What is in the folder of base images, but for locks."""
        folder = os.path.join(self.data, "images")
        return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else ())
                      if not name.endswith(".lock"))

    def machines(self):
        """The machines that there are, complete or not."""
        folder = os.path.join(self.data, "machines")
        return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name != ".lock")

    def image(self, file=""):
        """The path of FILE in the one base image that there is."""
        check(len(self.images()) == 1, "one base image", self.images())
        return os.path.join(self.data, "images", self.images()[0], file)

    def refused(self, *args, words, **options):
        """Runs it, and it must fail with one line that has WORDS, and leave nothing behind."""
        before = self.images(), self.machines()
        check_complaint(self.create(*args, **options), *words)
        check((self.images(), self.machines()) == before, "left behind:", self.images(), self.machines())


@contextlib.contextmanager
def home():
    """A home, and a function for paths of other files."""
    with scratch() as path:
        os.mkdir(path("home"), 0o700)
        yield Home(path("home")), path


def judge(disk):
    """Has e2fsck look at a disk; it must find nothing."""
    done = subprocess.run(["e2fsck", "-fn", disk], env=SBIN, capture_output=True, timeout=120, check=False)
    check(done.returncode == 0, "e2fsck:", done.stdout.decode())


def debugfs(disk, command):
    """What debugfs prints."""
    done = subprocess.run(["debugfs", "-R", command, disk], env=SBIN, capture_output=True, timeout=60, check=True)
    return done.stdout


# ---- Archives ----

class Tar:
    """A tar archive that is written entry by entry."""

    def __init__(self, path, mode="w"):
        self.path = path
        self.tar = tarfile.open(path, mode, format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", **fields):
        """Adds an entry of any kind."""
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(data)
        info.mtime = 1600000000
        for field, value in fields.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def close(self):
        """Ends the archive; returns its path."""
        self.tar.close()
        return self.path


def system(tar):
    """What a system has that can be started: its kernel is none, but nobody looks at that here."""
    tar.add("./", tarfile.DIRTYPE, mode=0o755)
    tar.add("./etc/os-release", data=b"ID=test\n")
    tar.add("./boot/vmlinuz-6.1", data=b"old kernel")
    tar.add("./boot/vmlinuz-6.12", data=b"kernel")
    tar.add("./boot/initrd.img-6.12", data=b"initrd")
    return tar


def contents():
    """All kinds of files come along, with owners, times, extended attributes, holes and long directories."""
    with home() as (h, path):
        capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
        tar = system(Tar(path("a.tar.gz"), "w:gz"))
        tar.add("usr/bin/ping", data=b"ping", mode=0o4755, uid=70000, gid=5,
                pax_headers={"SCHILY.xattr.security.capability": capability.decode("latin-1"),
                             "SCHILY.xattr.user.note": "hello"})
        tar.add("bin", tarfile.SYMTYPE, linkname="usr/bin")
        tar.add("bin/", tarfile.DIRTYPE)
        tar.add("bin/true", data=b"t" * 70000)
        tar.add("bin/also-true", tarfile.LNKTYPE, linkname="usr/bin/true")
        tar.add("dev/console", tarfile.CHRTYPE, devmajor=5, devminor=1, mode=0o600)
        tar.add("dev/large", tarfile.BLKTYPE, devmajor=259, devminor=70000)
        tar.add("run/fifo", tarfile.FIFOTYPE)
        tar.add("höflich/" + "ü" * 100, data="ä".encode())
        tar.add("long", tarfile.SYMTYPE, linkname="/x" * 500)
        for number in range(3000):
            tar.add(f"many/a-file-with-number-{number}", data=b"%d" % number)
        h.good("--from", tar.close(), "m")
        disk = h.image("disk.img")
        judge(disk)
        check(debugfs(disk, "cat /usr/bin/true") == b"t" * 70000, "contents")
        check(debugfs(disk, "cat /bin/also-true") == b"t" * 70000, "a hard link")
        check("Links: 2" in debugfs(disk, "stat /usr/bin/true").decode(), "two names")
        shown = debugfs(disk, "stat /usr/bin/ping").decode()
        check(re.search(r"Mode:\s+04755", shown) and re.search(r"User:\s+70000\s+Group:\s+5", shown), shown)
        check("security.capability" in shown and 'user.note (5) = "hello"' in shown, shown)
        check("mtime: 0x5f5e1000" in shown, shown)
        check("5:1" in debugfs(disk, "stat /dev/console").decode().replace("05:01", "5:1"), "a device")
        check(debugfs(disk, "cat /höflich/" + "ü" * 100) == "ä".encode(), "names in UTF-8")
        check(debugfs(disk, "cat /many/a-file-with-number-2999") == b"2999", "the last of many")
        check(b"Indexed directory" in debugfs(disk, "htree_dump /many") or
              b"Root node dump" in debugfs(disk, "htree_dump /many"), "a hash tree")
        with open(h.image("vmlinuz"), "rb") as kernel, open(h.image("initrd.img"), "rb") as initrd:
            check((kernel.read(), initrd.read()) == (b"kernel", b"initrd"), "the newest kernel")


def shared():
    """A second machine of the same contents stands on the same image; gc keeps it as long as one needs it."""
    with home() as (h, path):
        tar = system(Tar(path("a.tar"))).close()
        h.good("--from", tar, "one")
        stamp = os.stat(h.image("disk.img")).st_ino
        h.good("--from", shutil.copy(tar, path("b.tar")), "--memory", "2G", "--cpus", "2", "--append", "debug", "two")
        check(os.stat(h.image("disk.img")).st_ino == stamp, "made again")
        h.refused("--from", tar, "one", words=["one", "rm"])
        for name in ("one", "two"):
            with open(os.path.join(h.data, "machines", name, "machine.yaml"), encoding="utf-8") as file:
                text = file.read()
            check(f"base: {h.images()[0]}" in text and "root=/dev/vda rw" in text, text)
        check("memory: 2G" in text and "cpus: 2" in text and "debug" in text, text)


def sparse():
    """Holes stay holes, as GNU tar finds them."""
    with home() as (h, path):
        os.mkdir(path("tree"))
        with open(path("tree/sparse"), "wb") as file:
            file.write(b"begin")
            file.seek(100 * MIB)
            file.write(b"middle")
            file.truncate(300 * MIB)
        system(Tar(path("a.tar"))).close()
        for form in ("gnu", "posix"):
            subprocess.run(["tar", "-C", path("tree"), "-S", "--format=" + form, "-cf", path("s.tar"), "sparse"], check=True)
            subprocess.run(["tar", "--concatenate", "-f", path("s.tar"), path("a.tar")], check=True)
            h.good("--from", path("s.tar"), form)
        for name in h.images():
            disk = os.path.join(h.data, "images", name, "disk.img")
            judge(disk)
            check(os.stat(disk).st_blocks * 512 < 20 * MIB, "its holes", os.stat(disk).st_blocks)
            check("Size: 314572800" in debugfs(disk, "stat /sparse").decode(), "its size")
            subprocess.run(["debugfs", "-R", f"dump /sparse {path('out')}", disk], env=SBIN, check=True, capture_output=True)
            check(subprocess.run(["cmp", path("tree/sparse"), path("out")], check=False).returncode == 0, "its contents")


def hostile():
    """Archives that are damaged, or lead out of the image."""
    with home() as (h, path):
        good = system(Tar(path("good.tar"))).add("big", data=os.urandom(3 * MIB)).close()
        with open(good, "rb") as file:
            data = file.read()
        for name, text in {"cut.tar": data[:2 * MIB + 100], "cut2.tar": data[:MIB], "empty.tar": b"", "text.tar": b"x" * 5000,
                           "endless.tar": data.rstrip(b"\0")[:-512] + b"z" * 512}.items():
            h.refused("--from", write(path(name), text), "m", words=[name])
        end = data.rstrip(b"\0")
        whole = len(end) + -len(end) % 512
        h.refused("--from", write(path("noend.tar"), data[:whole]), "m", words=["noend.tar", "incomplete"])
        for number, (name, kind, link) in enumerate([
                ("../../etc/passwd", tarfile.REGTYPE, ""), ("a/../../b", tarfile.DIRTYPE, ""), ("a/..", tarfile.DIRTYPE, ""),
                ("x", tarfile.LNKTYPE, "../../etc/passwd"), ("x", tarfile.LNKTYPE, "/etc/none"),
                ("etc/os-release/x", tarfile.REGTYPE, ""), ("etc", tarfile.REGTYPE, ""), ("n" * 300, tarfile.REGTYPE, "")]):
            bad = system(Tar(path(f"bad{number}.tar"))).add(name, kind, linkname=link).close()
            h.refused("--from", bad, "m", words=[f"bad{number}.tar" if number != 7 else "too long"])
        # Links are followed inside the image: nothing is outside.
        tar = system(Tar(path("links.tar"))).add("out", tarfile.SYMTYPE, linkname="/../../../..")
        tar.add("out/inside", data=b"inside")
        tar.add("abs", tarfile.SYMTYPE, linkname=path("home")).add("abs/x", data=b"x")
        h.good("--from", tar.close(), "m")
        check(debugfs(h.image("disk.img"), "cat /inside") == b"inside", "the root's parent is the root")
        check(not os.path.exists(path("home") + "/x"), "written outside")
        judge(h.image("disk.img"))


def layers():
    """The layers of an OCI image, with what they remove."""
    def blob(data):
        digest = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()
        write(path(f"oci/blobs/sha256/{digest}"), data)
        return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": "x"}

    with home() as (h, path):
        os.makedirs(path("oci/blobs/sha256"))
        one = system(Tar(path("1.tar"))).add("gone/a", data=b"a").add("gone/b", data=b"b").add("cleared/old", data=b"o")
        two = Tar(path("2.tar.gz"), "w:gz").add("gone/.wh.a").add("cleared/new", data=b"n").add("cleared/.wh..wh..opq")
        blobs = []
        for tar in (one, two):
            with open(tar.close(), "rb") as file:
                blobs.append(blob(file.read()))
        manifest = blob(json.dumps({"schemaVersion": 2, "layers": blobs}, indent="\t").encode())
        other = dict(manifest, platform={"os": "linux", "architecture": "arm64"})
        index = {"manifests": [other, dict(manifest, platform={"os": "linux", "architecture": "amd64"})]}
        write(path("oci/index.json"), json.dumps(index).encode())
        h.good("--from", path("oci"), "m")
        disk = h.image("disk.img")
        judge(disk)
        check(debugfs(disk, "cat /gone/b") == b"b" and debugfs(disk, "cat /cleared/new") == b"n", "what stays")
        check(b"old" not in debugfs(disk, "ls /cleared") and b" a " not in debugfs(disk, "ls /gone"), "what goes")
        for text, words in ((b"{", ["JSON"]), (b"{}", ["no image"]), (b'{"manifests": [{"digest": "sha256:../../x"}]}', ["digest"]),
                            (b"[" * 100000, ["JSON"]), (json.dumps({"manifests": [other]}).encode(), ["no image"])):
            write(path("oci/index.json"), text)
            h.refused("--from", path("oci"), "other", words=words)


def images():
    """Disk images: a whole-disk file system, and one in a partition with /boot in another."""
    with home() as (h, path):
        system(Tar(path("a.tar"))).close()
        h.good("--from", path("a.tar"), "--size", "64M", "m")
        whole = shutil.copy(h.image("disk.img"), path("whole.raw"))
        os.chmod(whole, 0o600)
        check_run(run_doppel("rm", "--force", "m", env=h.env, stdin=None), 0)
        check_run(run_doppel("gc", env=h.env, stdin=None), 0)
        check(h.images() == [], "gc leaves an image", h.images())
        with open(whole, "rb") as file, open(path("parted.img"), "wb") as disk:
            table = bytearray(512)
            struct.pack_into("<B3xB3xII", table, 446, 0, 0x83, 2048, 64 * 2048)
            table[510:] = b"\x55\xaa"
            disk.write(table)
            disk.seek(MIB)
            disk.write(file.read())
        subprocess.run([DOPPEL, "image", "convert", path("parted.img"), path("parted.qcow2")], check=True)
        h.good("--from", path("parted.qcow2"), "q")
        with open(os.path.join(h.data, "machines/q/machine.yaml"), encoding="utf-8") as file:
            check("root=/dev/vda1 rw" in file.read(), "the partition")
        judge_part = h.image("disk.img")
        with open(judge_part, "rb") as disk:
            disk.seek(MIB)
            write(path("part"), disk.read())
        judge(path("part"))
        write(path("ud"), b"#cloud-config\n")
        h.good("--from", path("parted.qcow2"), "--cloud-init", path("ud"), "--hostname", "host", "ci")
        with open(os.path.join(h.data, "machines/ci/seed.iso"), "rb") as file:
            seed = file.read()
        check(b"CIDATA" in seed.upper()[32768:34816] and b"#cloud-config" in seed and b"local-hostname: host" in seed, "seed")
        h.refused("--from", write(path("zero.raw"), bytes(MIB)), "z", words=["zero.raw", "--kernel"])


def refused():
    """What cannot be asked for, and what fails: one line, and nothing stays."""
    with home() as (h, path):
        tar = system(Tar(path("a.tar"))).add("big", data=os.urandom(8 * MIB)).close()
        for args, words in (
                (["debian"], ["NAME"]), (["ubuntu", "x"], ["ubuntu"]), (["debian", "a", "b"], ["b"]),
                (["debian", "Bad_Name"], ["Bad_Name"]), (["debian", "--suite", "sid", "x"], ["sid"]),
                (["debian", "--size", "5", "x"], ["--size"]), (["debian", "--size", "64M", "x"], ["1G"]),
                (["debian", "--cpus", "0", "x"], ["--cpus"]), (["debian", "--user", "a b", "x"], ["--user"]),
                (["debian", "--hostname", "-x", "x"], ["--hostname"]), (["debian", "--format", "raw", "x"], ["--format"]),
                (["debian", "--ssh-key", path("none"), "x"], ["none"]), (["--from", path("none.tar"), "x"], ["none.tar"]),
                (["--from", tar, "--user", "u", "x"], ["--user"]), (["--from", tar, "--format", "zip", "x"], ["zip"]),
                (["--from", tar, "--kernel", path("none"), "x"], ["none"]), (["--from", tar], ["NAME"]),
                (["--from", Tar(path("plain.tar")).add("f").close(), "x"], ["no kernel"])):
            check_complaint(h.create(*args), *words)
            check(h.machines() == [], "a machine", args, h.machines())
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))
        h.refused("--from", tar, "x", words=["large"], preexec_fn=limit)


def imported():
    """Images of other programs, with qemu-img as the one that makes them; and what is refused."""
    def image(*args, **options):
        return run_doppel("image", "import", *args, stdin=None, timeout=120, **options)

    with scratch() as path:
        data = os.urandom(3 * MIB) + bytes(5 * MIB)
        write(path("a.raw"), data)
        for form, name in (("vmdk", "a.vmdk"), ("vhdx", "a.vhdx"), ("vdi", "a.vdi")):
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, path("a.raw"), path(name)], check=True)
        with tarfile.open(path("a.ova"), "w") as ova:
            ova.add(path("a.raw"), "a.ovf")
            ova.add(path("a.vmdk"), "a-disk1.vmdk")
        for number, name in enumerate(["a.vmdk", "a.vhdx", "a.vdi", "a.ova"]):
            target = path(f"{number}.qcow2")
            check_run(image(path(name), target), 0, b"", b"")
            subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", target, path("a.raw")], check=True)
            check_complaint(image(path(name), target), "exists")
        check_run(image(path("a.vdi"), path("b.raw")), 0, b"", b"")
        with open(path("b.raw"), "rb") as file:
            check(file.read() == data, "the raw image")
        before = sorted(os.listdir(path("")))
        # An image that names a file of the user's.
        secret = write(path("secret"), b"secret" * 1000)
        text = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "{secret}" 0\n'
        check_complaint(image(write(path("flat.vmdk"), text.encode()), path("x.raw")), "flat.vmdk")
        check_complaint(image(write(path("none.vmdk"), b"KDMV" + bytes(600)), path("x.raw")), "none.vmdk")
        check_complaint(image(write(path("bad.vdi"), bytes(70000)), path("x.raw")), "vdi")
        check_complaint(image(write(path("bad.ova"), b"x" * 2000), path("x.raw")), "bad.ova")
        check_complaint(image(path("a.raw"), path("x.raw")), "--format")
        check_complaint(image("--format", "iso", path("a.raw"), path("x.raw")), "iso")
        check_complaint(image(path("a.vdi"), path("x.raw"), env=ENV | {"PATH": path("")}), "qemu-img", "qemu-utils")
        gone = set(os.listdir(path(""))) - set(before) - {"secret", "flat.vmdk", "none.vmdk", "bad.vdi", "bad.ova"}
        check(not gone, "left behind", gone)


def debian_mirror():
    """A mirror that is not there, and one that does not answer while somebody loses patience."""
    with home() as (h, path):
        h.env["DOPPEL_MIRROR_TIMEOUT"] = "60"
        h.refused("debian", "--mirror", "http://127.0.0.1:9/debian", "x", words=["127.0.0.1:9"])
        check(not [name for name in os.listdir(h.folder) if name.startswith("doppel-debian")], "left behind")
        with socket.create_server(("127.0.0.1", 0)) as server:
            uri = f"http://127.0.0.1:{server.getsockname()[1]}/debian"
            process = subprocess.Popen([DOPPEL, "create", "debian", "--mirror", uri, "x"], env=h.env,
                                       stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            server.settimeout(60)
            connection = server.accept()[0]
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=30)[1]
            connection.close()
        check(process.returncode == -signal.SIGINT, "status", process.returncode, errors)
        check(h.images() == [] and h.machines() == [], "left behind:", h.images(), h.machines())
        check(not [name for name in os.listdir(h.folder) if name.startswith("doppel-debian")], "left behind")


if __name__ == "__main__":
    main(contents, shared, sparse, hostile, layers, images, imported, refused, debian_mirror)
