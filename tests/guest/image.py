#!/usr/bin/python3
"""`doppel image`, with qemu-img as the judge of what it makes."""
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time

import nbd
from vm import DOPPEL, check, check_complaint, check_run, main, run, scratch, write

MIB = 1 << 20
CLUSTER = 65536


def image(*args, **options):
    """Runs `doppel image`."""
    return run("image", *args, stdin=None, timeout=60, **options)


def good(*args):
    """Runs `doppel image`, which must succeed in silence on standard error. Returns its output."""
    done = image(*args)
    check_run(done, 0, stderr=b"")
    return done.stdout.decode()


def qemu(tool, *args, status=0):
    """Runs qemu-img or qemu-io, which must end with STATUS. Returns its output."""
    done = subprocess.run([tool, *args], capture_output=True, timeout=60, check=False)
    check(done.returncode == status, tool, *args, "status", done.returncode, done.stdout, done.stderr)
    return done.stdout.decode()


def judge(path, other=None, other_format="raw"):
    """Has qemu-img check the qcow2 image at PATH, and compare it with another."""
    qemu("qemu-img", "check", "-q", "-f", "qcow2", path)
    if other:
        qemu("qemu-img", "compare", "-q", "-f", "qcow2", "-F", other_format, path, other)


def disk(path, size=8 * MIB, seed=1):
    """Writes a raw disk with some data, some of it easy to compress, and holes."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(24):
            file.seek(rng.randrange(size // 512 - 256) * 512)
            length = rng.randrange(1, 256) * 512
            file.write(rng.randbytes(length) if rng.random() < 0.5 else b"easy " * (length // 5))
        file.seek(size - 512)
        file.write(b"end." * 128)
    return path


def digest(path):
    """What a file holds, in short; None if there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return None


def used(path):
    """The bytes that a file takes on the disk."""
    return os.stat(path).st_blocks * 512


# ---- What it is for ----

def create():
    """Images of all kinds are as qemu-img expects them."""
    with scratch() as path:
        good("create", path("a.raw"), "5M")
        check(os.path.getsize(path("a.raw")) == 5 * MIB and used(path("a.raw")) == 0, "not a sparse file")
        good("create", path("odd.raw"), "1000")
        check(os.path.getsize(path("odd.raw")) == 1024, "not rounded up to a sector")
        good("create", path("comma,,name.raw"), "1M")
        check(os.path.exists(path("comma,name.raw")), "two commas are not one")
        for name, options, expected in [
                ("plain", [], {"compat": "1.1", "lazy-refcounts": False, "compression-type": "zlib"}),
                ("lazy", ["--lazy-refcounts"], {"lazy-refcounts": True}),
                ("zstd", ["--compression", "zstd"], {"compression-type": "zstd"}),
                ("small", ["--cluster-size", "512"], {}), ("large", ["--cluster-size", "2M"], {})]:
            file = path(name + ".qcow2")
            good("create", *options, file, "1G")
            judge(file)
            seen = json.loads(qemu("qemu-img", "info", "--output=json", file))
            check(seen["virtual-size"] == 1 << 30, seen)
            data = seen["format-specific"]["data"]
            check(all(data[key] == value for key, value in expected.items()), name, data)
            check(seen["cluster-size"] == {"small": 512, "large": 2 * MIB}.get(name, CLUSTER), seen)


def backing():
    """An image on another one, raw or qcow2; and a chain, which is followed only if asked."""
    with scratch() as path:
        disk(path("base"))
        good("create", "-b", "base", path("a.qcow2"))
        good("create", "--format=qcow2", "--backing=a.qcow2", "--backing-format=qcow2", path("b"))
        judge(path("a.qcow2"), path("base"))
        judge(path("b"), path("base"))
        seen = json.loads(good("info", "--json", "-f", "qcow2", path("b")))
        check(seen["backing-filename"] == "a.qcow2" and seen["backing-filename-format"] == "qcow2", seen)
        chain = json.loads(good("info", "--json", "-f", "qcow2", "--backing-chain", path("b")))
        check([os.path.basename(link["filename"]) for link in chain] == ["b", "a.qcow2", "base"], chain)
        good("create", "-b", "base", path("larger.qcow2"), "20M")
        check(json.loads(good("info", "--json", path("larger.qcow2")))["virtual-size"] == 20 * MIB, "size")
        # Not named, it is not followed: what the image lacks cannot be read.
        check_complaint(image("convert", path("a.qcow2"), path("out")), "base")
        check(not os.path.exists(path("out")), "something was left")
        good("convert", path("a.qcow2") + ",backing=" + path("base"), path("out"))
        check(digest(path("out")) == digest(path("base")), "not the backing file's contents")


def advised(complaint, text, image_name):
    """TEXT, a disk that was refused, with what the COMPLAINT says to add behind IMAGE_NAME in it."""
    added = re.search(r"add '(,+backing=[^']*)' behind it", complaint.stderr.decode())
    check(added, complaint.stderr)
    return text.replace(image_name, image_name + added[1])


def advice():
    """What messages say of backing files helps if it is done, in any folder and at any level."""
    with scratch() as path:
        os.mkdir(path("a,b"))
        disk(path("a,b/base"))
        good("create", "-b", "base", path("a,,b/1.qcow2"), "2M")
        good("create", "-b", "1.qcow2", path("a,,b/2.qcow2"))
        good("create", "-b", "2.qcow2", path("a,,b/3.qcow2"))
        escaped = path("a,,b/3.qcow2")
        text = escaped
        for name in escaped, path("a,,,,b/2.qcow2"), path("a,,,,,,,,b/1.qcow2"):
            text = advised(image("convert", text, path("out")), text, name)
        good("convert", text, path("out"))
        with open(path("a,b/base"), "rb") as base, open(path("out"), "rb") as out:
            check(base.read(2 * MIB) == out.read(), "other contents")
        text = path("a,,b/1.qcow2")
        good("resize", advised(image("resize", text, "+1M"), text, text), "+1M")


def other_backing():
    """A backing file other than the one that the image names is taken, with a warning."""
    with scratch() as path:
        disk(path("base"))
        disk(path("other"))
        os.symlink(path("."), path("here"))
        good("create", "-b", "base", path("a.qcow2"))
        good("create", "-b", path("here/./base"), path("b.qcow2"))
        for text in (path("a.qcow2") + ",backing=" + path("base"), path("here/a.qcow2") + ",backing=" + path("base"),
                     path("a.qcow2") + ",backing=" + path("here/base"),
                     path("b.qcow2") + ",backing=" + path("here/./base")):
            done = image("convert", text, path("out"))
            check(done.returncode == 0 and not done.stderr, done.stderr)
        text = path("a.qcow2") + ",backing=" + path("other")
        for done in (image("convert", text, path("out")), run("run", "--disk", text, "--", "true")):
            check(done.returncode == 0 and done.stderr.count(b"\n") == 1, done.stderr)
            check(b"its backing file is 'base' by its own account" in done.stderr, done.stderr)


def info():
    """The same facts as qemu-img's."""
    with scratch() as path:
        disk(path("raw"))
        qemu("qemu-img", "convert", "-O", "qcow2", path("raw"), path("a.qcow2"))
        qemu("qemu-img", "snapshot", "-c", "first", path("a.qcow2"))
        for name in ["raw", "a.qcow2"]:
            theirs = json.loads(qemu("qemu-img", "info", "--output=json", path(name)))
            ours = json.loads(good("info", "--json", path(name)))
            for key in ["filename", "format", "virtual-size", "actual-size"]:
                check(ours[key] == theirs[key], key, ours, theirs)
        check(ours["cluster-size"] == theirs["cluster-size"], ours)
        check([s["name"] for s in ours["snapshots"]] == ["first"], ours)
        for key in ["id", "name", "date-sec", "date-nsec", "vm-state-size"]:
            check(ours["snapshots"][0][key] == theirs["snapshots"][0][key], key, ours, theirs)
        os.link(path("a.qcow2"), path("other"))
        done = image("info", path("other"))
        check(done.returncode == 0 and b"file format: raw" in done.stdout and b"-f qcow2?" in done.stderr, done)
        check("file format: raw" in good("info", "-f", "raw", path("other")), "a question that was answered")
        write(path("empty"), b"")
        check_complaint(image("info", "-f", "qcow2", path("empty")), "0 bytes")
        text = good("info", path("a.qcow2"))
        for line in ["file format: qcow2", "virtual size: 8 MiB (8388608 bytes)", "first"]:
            check(line in text, f"no '{line}' in {text}")


def convert():
    """All ways between raw and qcow2, sparse and compressed."""
    with scratch() as path:
        disk(path("raw"))
        good("convert", path("raw"), path("a.qcow2"))
        judge(path("a.qcow2"), path("raw"))
        good("convert", path("a.qcow2"), path("back"))
        check(digest(path("back")) == digest(path("raw")), "other contents after two conversions")
        check(used(path("back")) <= used(path("raw")) + MIB, "not sparse")
        for compression in "zlib", "zstd":
            for threads in "1", "4":
                good("convert", "-c", "--compression", compression, "-m", threads, path("raw"), path("c.qcow2"))
                judge(path("c.qcow2"), path("raw"))
                check(os.path.getsize(path("c.qcow2")) < 0.9 * os.path.getsize(path("a.qcow2")), "not compressed")
                done = json.loads(qemu("qemu-img", "check", "--output=json", path("c.qcow2")))
                check(done.get("compressed-clusters", 0) > 10, done)
        for options in [["--cluster-size", "512"], ["--cluster-size", "2M"], ["--lazy-refcounts"]]:
            good("convert", *options, path("c.qcow2"), path("d.qcow2"))
            judge(path("d.qcow2"), path("raw"))
        qemu("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compat=0.10", path("raw"), path("old.qcow2"))
        good("convert", "-O", "raw", path("old.qcow2"), path("e.qcow2"))
        check(digest(path("e.qcow2")) == digest(path("raw")), "qemu-img's image was not read rightly")
        good("convert", path("raw") + ",offset=1M,size=2M", path("part"))
        with open(path("raw"), "rb") as whole, open(path("part"), "rb") as part:
            check(whole.read()[MIB:3 * MIB] == part.read(), "not that part")
        good("create", path("empty"), "4T")
        start = time.monotonic()
        good("convert", path("empty"), path("empty.qcow2"))
        check(time.monotonic() - start < 20, "holes were read")
        judge(path("empty.qcow2"))


def disk_and_other(path, more):
    """A disk in the file raw, and a file with something else that has MORE bytes; returns what is in both."""
    disk(path("raw"))
    with open(path("raw"), "rb") as file:
        new = file.read()
    old = random.Random(7).randbytes(len(new) + more)
    write(path("file"), old)
    return new, old


def over(old, new):
    """What OLD is when NEW has been written over it."""
    return new + old[len(new):]


def in_place():
    """What is there is written over, zeros too: a file, a part of one, a server's disk. Nothing else is touched."""
    with scratch() as path:
        new, old = disk_and_other(path, 3 * MIB)
        inode = os.stat(path("file")).st_ino
        good("convert", path("raw"), path("a.qcow2"))
        for source in "raw", "a.qcow2":
            write(path("file"), old)
            good("convert", "--in-place", path(source), path("file"))
            with open(path("file"), "rb") as file:
                check(file.read() == over(old, new), source, "other contents")
        check(os.stat(path("file")).st_ino == inode, "another file")
        write(path("file"), old)
        good("convert", "--in-place", path("raw"), path("file") + f",offset=1M,size={len(new)}")
        with open(path("file"), "rb") as file:
            check(file.read() == old[:MIB] + over(old[MIB:], new), "other contents of a part")
        with contextlib.closing(nbd.Server(path("socket"), len(old))) as server:
            server.bytes[:] = old
            good("convert", "--in-place", path("a.qcow2"), server.uri)
            check(bytes(server.bytes) == over(old, new), "other contents of a server's disk")
        before = digest(path("file"))
        for words, complaint in [
                ([path("raw"), path("none")], "none"), ([path("file"), path("raw")], "bytes"),
                ([path("raw"), path("a.qcow2")], "is qcow2"), ([path("raw"), path("raw")], "use"),
                (["-c", path("raw"), path("file")], "--compress"), ([path("raw"), path("file") + ",readonly"], "readonly"),
                ([path("raw"), path("file") + ",offset=4M,size=4M"], "bytes")]:
            check_complaint(image("convert", "--in-place", *words), complaint)
        check(digest(path("file")) == before, "the target was changed")


@contextlib.contextmanager
def loop_device(path):
    """A block device with the bytes of a file; skips the test if there can be none."""
    done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, check=False)
    if done.returncode:
        print("skipped: no loop device can be made here:", done.stderr.decode().strip())
        sys.exit(77)
    device = done.stdout.decode().strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def device():
    """A block device is written over if that is wanted, and refused otherwise."""
    with scratch() as path:
        new, old = disk_and_other(path, 2 * MIB)
        with loop_device(path("file")) as name:
            check_complaint(image("convert", path("raw"), name), name, "--in-place")
            check_complaint(image("convert", "--in-place", path("raw"), name + ",size=4M"), "bytes")
            good("convert", "--in-place", path("raw"), name)
            good("convert", "--in-place", name + f",size={len(new)}", path("raw"))
            with open(name, "rb") as file:
                check(file.read() == over(old, new), "other contents")
        with open(path("file"), "rb") as file:
            check(file.read() == over(old, new), "other contents of its file")


def replaced():
    """A target is replaced in whole, where it stands, or stays as it was."""
    with scratch() as path:
        disk(path("raw"))
        write(path("old"), b"old")
        os.chmod(path("old"), 0o640)
        os.symlink("old", path("link"))
        good("convert", path("raw"), path("link"))
        check(os.path.islink(path("link")) and digest(path("old")) == digest(path("raw")), "the link was replaced")
        check(os.stat(path("old")).st_mode & 0o777 == 0o640, "other permissions")
        write(path("old"), b"old")
        if os.geteuid() == 0:
            os.chown(path("old"), 1234, 4321)
            good("convert", path("raw"), path("old"))
            seen = os.stat(path("old"))
            check((seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (1234, 4321, 0o640), "other owner", seen)
            write(path("old"), b"old")
        os.symlink("nowhere", path("dangling"))
        check_complaint(image("convert", path("raw"), path("dangling")), "dangling", "leads to no file")
        os.unlink(path("dangling"))
        with locked(path("old")):
            check_complaint(image("convert", path("raw"), path("old")), "old")
        check_complaint(image("convert", path("raw"), path("raw")), "raw")
        check_complaint(image("convert", path("raw"), path(".")), "not a regular file")
        check_complaint(image("convert", path("raw"), path("none/x")), "none/x")
        check_complaint(image("convert", path("none"), path("old")), "none")
        check_complaint(image("convert", path("raw"), path("old"), preexec_fn=small_files), "old")
        check(open(path("old"), "rb").read() == b"old", "the target was changed")
        check(sorted(os.listdir(path("."))) == ["link", "old", "raw"], os.listdir(path(".")))


def interrupted():
    """A signal ends a conversion, which leaves nothing behind."""
    with scratch() as path:
        with open(path("raw"), "wb") as file:
            for seed in range(16):
                file.write(random.Random(seed).randbytes(4 * MIB))
        write(path("old.qcow2"), b"old")
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGKILL:
            process = subprocess.Popen([DOPPEL, "image", "convert", "-c", "-m", "1", path("raw"), path("old.qcow2")],
                                       stderr=subprocess.PIPE)
            wait_busy(process)
            process.send_signal(number)
            process.communicate(timeout=60)
            check(process.returncode == -number, "status", process.returncode)
            check(open(path("old.qcow2"), "rb").read() == b"old", "the target was changed")
            check(sorted(os.listdir(path("."))) == ["old.qcow2", "raw"], os.listdir(path(".")))


def wait_busy(process):
    """Waits until a process has used some processor time, so that it is at its work."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            if sum(map(int, file.read().rpartition(")")[2].split()[11:13])) > 10:
                return
        time.sleep(0.01)
    check(False, "it never began, or ended", process.returncode)


@contextlib.contextmanager
def locked(path):
    """Holds the locks of a program that writes to the image, as QEMU has them."""
    with open(path, "r+b") as file:
        for byte in 100, 101, 103, 200, 201, 203:
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(file, 37, lock)  # F_OFD_SETLK
        yield


def small_files():
    """For a child: no file may grow beyond 1 MiB, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))


def resize():
    """Larger and smaller, and only what was asked for."""
    with scratch() as path:
        disk(path("raw"))
        good("convert", path("raw"), path("a.qcow2"))
        for name in "raw", "a.qcow2":
            before = digest(path(name))
            check_complaint(image("resize", path(name), "4M"), "--shrink")
            check_complaint(image("resize", path(name), "-1M"), "--shrink")
            check_complaint(image("resize", path(name), "--shrink", "-9M"), "-9M")
            check_complaint(image("resize", path(name), "much"), "much")
            check_complaint(image("resize", path(name), "+16777215T"), "16777215T")
            check(digest(path(name)) == before, "it was changed")
            good("resize", path(name), "+3M")
            good("resize", "--shrink", path(name), "10M")
        judge(path("a.qcow2"), path("raw"))
        check(os.path.getsize(path("raw")) == 10 * MIB, "raw: other size")
        for size in "1G", "5M", "6M":
            good("resize", "--shrink", path("raw"), size)
            good("resize", "--shrink", path("a.qcow2"), size)
            judge(path("a.qcow2"), path("raw"))
        # What a longer backing file has behind the old end does not come to light.
        disk(path("base"))
        good("create", "-b", "base", path("over.qcow2"), "2M")
        check_complaint(image("resize", path("over.qcow2"), "8M"), "backing=")
        good("resize", path("over.qcow2") + ",backing=" + path("base"), "8M")
        good("convert", path("over.qcow2") + ",backing=" + path("base"), path("out"))
        with open(path("base"), "rb") as base, open(path("out"), "rb") as out:
            check(base.read(2 * MIB) == out.read(2 * MIB), "other contents")
            check(not any(out.read()), "what was added is not zero")


def snapshots():
    """Made by us and by qemu-img, for each other."""
    with scratch() as path:
        disk(path("raw"))
        file = path("a.qcow2")
        good("convert", path("raw"), file)
        good("snapshot", "create", file, "one")
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 300k", file)
        qemu("qemu-img", "snapshot", "-c", "two", file)
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 8 3M 300k", file)
        judge(file)
        seen = json.loads(good("snapshot", "list", "--json", file))["snapshots"]
        check([s["name"] for s in seen] == ["one", "two"], seen)
        check("two" in good("snapshot", "list", file), "not in the list")
        check_complaint(image("snapshot", "create", file, "one"), "one")
        check_complaint(image("snapshot", "apply", file, "none"), "none")
        check_complaint(image("snapshot", "delete", file, "none"), "none")
        qemu("qemu-img", "convert", "-l", "one", "-O", "raw", file, path("one"))
        check(digest(path("one")) == digest(path("raw")), "the snapshot has other contents")
        qemu("qemu-img", "convert", "-l", "two", "-O", "raw", file, path("two"))
        good("snapshot", "apply", file, "two")
        judge(file, path("two"))
        good("snapshot", "apply", file, "1")
        judge(file, path("raw"))
        good("snapshot", "delete", file, "one")
        qemu("qemu-img", "snapshot", "-d", "two", file)
        judge(file, path("raw"))
        check(good("snapshot", "list", file) == "", "not empty")


# ---- What can be wrong ----

def usage():
    """Words on the command line that mean nothing."""
    with scratch() as path:
        good("create", path("a.qcow2"), "1M")
        disk(path("raw"))
        before = digest(path("a.qcow2"))
        for args, word in [
                ([], "no action"), (["nonesuch"], "nonesuch"), (["--bogus"], "--bogus"),
                (["create"], "FILE"), (["create", path("b")], "no size"), (["create", "", "1M"], "file"),
                (["create", path("b"), "1M", "2M"], "2M"), (["create", path("b"), "1Q"], "1Q"),
                (["create", path("b"), "-1M"], "-1M"), (["create", path("b"), "99999999T"], "99999999T"),
                (["create", "-f", "vmdk", path("b"), "1M"], "vmdk"),
                (["create", "--cluster-size", "3K", "-f", "qcow2", path("b"), "1M"], "3K"),
                (["create", "--cluster-size", "4M", "-f", "qcow2", path("b"), "1M"], "4M"),
                (["create", "--compression", "lzma", "-f", "qcow2", path("b"), "1M"], "lzma"),
                (["create", "--lazy-refcounts", path("b"), "1M"], "--lazy-refcounts"),
                (["create", "-b", "a.qcow2", path("b")], "--backing"),
                (["create", "-b", "none", path("b.qcow2")], "none"),
                (["create", "-F", "raw", path("b.qcow2"), "1M"], "--backing"),
                (["create", "-b", "a.qcow2", "-F", "vhd", path("b.qcow2")], "vhd"),
                (["create", path("a.qcow2"), "1M"], "remove it"), (["create", path("."), "1M"], "not a file"),
                (["create", path("none/b"), "1M"], "none/b"),
                (["create", "nbd://localhost/x", "1M"], "nbd"), (["create", "vhost-user=x", "1M"], "x"),
                (["create", path("b") + ",bogus=1", "1M"], "bogus"),
                (["create", path("b.qcow2,readonly"), "1M"], "readonly"),
                (["create", path("b.qcow2,offset=1M"), "1M"], "offset"), (["create", "-", "1M"], "standard output"),
                (["convert", path("raw"), path("a.qcow2,offset=1M")], "offset"),
                (["convert", path("raw"), path("a.qcow2,backing=raw")], "backing"),
                (["convert", path("raw"), path("a.qcow2,cache=none")], "cache"),
                (["convert", path("raw"), path("a.qcow2,discard=ignore,queues=2")], "discard"),
                (["convert", path("raw"), "-"], "standard output"),
                (["info"], "FILE"), (["info", path("none")], "none"), (["info", path("a.qcow2"), "x"], "x"),
                (["info", path(".")], path(".")), (["info", "-f", "qcow2", path("raw")], "raw"),
                (["check"], "FILE"), (["check", path("none.qcow2")], "none"),
                (["convert", path("raw")], "SOURCE"), (["convert", "-c", path("raw"), path("b")], "--compress"),
                (["convert", "-m", "0", path("raw"), path("b")], "--threads"),
                (["resize", path("a.qcow2")], "FILE"), (["snapshot", "list"], "FILE"),
                (["snapshot", "bogus", path("a.qcow2")], "bogus"),
                (["snapshot", "create", path("a.qcow2")], "name"),
                (["snapshot", "list", path("a.qcow2"), "x"], "x"),
                (["snapshot", "create", "--json", path("a.qcow2"), "x"], "--json"),
                (["create", "-b", "raw", "-F", "qcow2", path("b.qcow2")], "format as raw"),
                (["snapshot", "list", path("raw")], "raw")]:
            check_complaint(image(*args), word)
        done = image("check", path("raw"))
        check_complaint(done, "raw", status=63)
        for action in "create", "info", "convert", "check", "resize", "snapshot":
            check("Usage" in good(action, "--help"), action)
            check(run("help", "image", action).stdout == image(action, "--help").stdout, action)
        check("convert" in good("--help"), "no help")
        check_complaint(run("help", "image", "create", "x"), "x")
        check_complaint(run("help", "run", "x"), "x")
        check(sorted(os.listdir(path("."))) == ["a.qcow2", "raw"], os.listdir(path(".")))
        check(digest(path("a.qcow2")) == before, "it was changed")
        with open("/dev/full", "wb") as full:
            check_complaint(image("info", path("a.qcow2"), stdout=full), "No space")


def forbid():
    """For a child: root may not read and write what it likes, so permissions count."""
    libc = ctypes.CDLL(None)
    for capability in 1, 2:  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def files():
    """Files that may not be read or written, or not grow."""
    with scratch() as path:
        good("create", path("a.qcow2"), "1M")
        disk(path("raw"))
        os.chmod(path("a.qcow2"), 0)
        for args in [["info"], ["check"], ["check", "--repair"], ["snapshot", "list"]]:
            check_complaint(image(*args, path("a.qcow2"), preexec_fn=forbid), "a.qcow2", "ermission")
        check_complaint(image("convert", path("raw"), path("a.qcow2"), preexec_fn=forbid), "a.qcow2", "ermission")
        os.chmod(path("a.qcow2"), 0o400)
        before = digest(path("a.qcow2"))
        for args in [["resize"], ["snapshot", "create"]]:
            done = image(*args, path("a.qcow2"), "2M", preexec_fn=forbid)
            check_complaint(done, "a.qcow2", "ermission")
            check(b"readonly" not in done.stderr, done.stderr)
        check_complaint(run("run", "--disk", path("a.qcow2"), "--", "true", preexec_fn=forbid), "readonly")
        os.mkdir(path("sealed"), 0o500)
        check_complaint(image("create", path("sealed/b"), "1M", preexec_fn=forbid), "sealed/b", "ermission")
        check_complaint(image("create", path("b.raw"), "2M", preexec_fn=small_files), "b.raw")
        for kind in "qcow2", "raw":
            with open(path("raw"), "ab") as raw:
                raw.truncate(200 * MIB)
            done = image("convert", "-O", kind, path("raw"), path("b"), preexec_fn=small_files)
            check_complaint(done, path("b"))
            check(b"/proc/" not in done.stderr, done.stderr)
        done = image("create", "--cluster-size", "2M", path("b.qcow2"), "1M", preexec_fn=small_files)
        check_complaint(done, path("b.qcow2"))
        check(b"/proc/" not in done.stderr, done.stderr)
        check(digest(path("a.qcow2")) == before and sorted(os.listdir(path("."))) == ["a.qcow2", "raw", "sealed"],
              "something was changed")


# Fields of the header, by offset and width (docs/interop/qcow2.rst).
FIELDS = {"magic": (0, 4), "version": (4, 4), "backing": (8, 8), "backing size": (16, 4), "cluster bits": (20, 4),
          "size": (24, 8), "crypt": (32, 4), "L1 size": (36, 4), "L1": (40, 8), "refcounts": (48, 8),
          "refcount clusters": (56, 4), "snapshots": (60, 4), "snapshot table": (64, 8), "incompatible": (72, 8),
          "refcount order": (96, 4), "header length": (100, 4)}


def field(data, name):
    """The value of a header's field."""
    offset, width = FIELDS[name]
    return int.from_bytes(data[offset:offset + width], "big")


def changed(data, *changes):
    """A copy of DATA in which CHANGES, pairs of an offset or a field's name and a value, are made."""
    data = bytearray(data)
    for where, value in changes:
        offset, width = FIELDS.get(where, (where, 8))
        data[offset:offset + width] = value.to_bytes(width, "big")
    return bytes(data)


def refused():
    """Files that are no qcow2 image, or whose header cannot be true: one line, and nothing changes."""
    with scratch() as path:
        disk(path("raw"))
        qemu("qemu-img", "convert", "-O", "qcow2", path("raw"), path("good"))
        with open(path("good"), "rb") as file:
            whole = file.read()
        write(path("target"), b"old")
        cases = [("empty", b""), ("short", whole[:50]), ("text", b"This is not an image.\n" * 5000),
                 ("zeros", bytes(CLUSTER)), ("header only", whole[:112])]
        for name, values in [
                ("magic", [0]), ("version", [0, 1, 4, 0xFFFFFFFF]), ("cluster bits", [0, 8, 22, 63, 0xFFFFFFFF]),
                ("size", [1 << 63, (1 << 64) - 512]), ("crypt", [1, 2, 9]),
                ("L1 size", [0xFFFFFFFF, 0x2000001]), ("L1", [1, 512, 1 << 62, (1 << 64) - CLUSTER]),
                ("refcounts", [1, 1 << 62]), ("refcount clusters", [0, 0xFFFFFFFF]),
                ("snapshots", [1, 0xFFFFFFFF]), ("incompatible", [1 << 5, 1 << 63, 4]),
                ("refcount order", [7, 0xFFFFFFFF]), ("header length", [0, 8, 1 << 20, 0xFFFFFFFF])]:
            cases += [(f"{name} {value:#x}", changed(whole, (name, value))) for value in values]
        cases += [("long backing name", changed(whole, ("backing", 512), ("backing size", 5000))),
                  ("backing name outside", changed(whole, ("backing", 1 << 40), ("backing size", 5)))]
        for name, data in cases:
            file = write(path("bad.qcow2"), data)
            reading = [["info", file], ["convert", file, path("target")]]
            if name.startswith("refcount"):
                reading = []  # who only reads does not need them
            for args in [*reading, ["resize", file, "+1M"], ["snapshot", "create", file, "x"], ["check", file]]:
                done = image(*args)
                check(done.returncode == 125 or (args[0] == "check" and done.returncode == 2), name, args,
                      done.returncode, done.stdout, done.stderr)
                if done.returncode == 125:
                    check_complaint(done, file)
                check(digest(file) == hashlib.sha256(data).hexdigest(), name, args, "changed the file")
            repair(name, file)
        check(open(path("target"), "rb").read() == b"old", "the target was changed")


def repair(name, file):
    """Repairs what cannot be used. If that is said to be done, qemu-img has to agree; if it cannot be begun,
    nothing has changed."""
    before = digest(file)
    done = image("check", "--repair", file)
    check(done.returncode in (0, 2, 3, 125), name, "status", done.returncode, done.stderr)
    if done.returncode == 0:
        judge(file)
    if done.returncode == 125:
        check_complaint(done, "bad.qcow2")
        check(digest(file) == before, name, "the repair has changed the file")


def l2_table(data):
    """Where the first L2 table is."""
    return int.from_bytes(data[field(data, "L1"):][:8], "big") & 0x00FFFFFFFFFFFE00


def corrupt():
    """Tables that overlap, point into themselves or nowhere: found, and repaired or refused."""
    copied = 1 << 63
    with scratch() as path:
        disk(path("raw"))
        qemu("qemu-img", "convert", "-O", "qcow2", path("raw"), path("good"))
        with open(path("good"), "rb") as file:
            whole = file.read()
        l1, l2, refcounts = field(whole, "L1"), l2_table(whole), field(whole, "refcounts")
        block = int.from_bytes(whole[refcounts:refcounts + 8], "big")
        data = int.from_bytes(whole[l2:l2 + 8], "big") & ~copied
        end = len(whole)
        cases = [(f"{what} at {name}", changed(whole, (entry, copied | at)))
                 for what, entry in [("an L2 table", l1), ("a cluster", l2 + 8)]
                 for name, at in [("the header", 0), ("the L1 table", l1), ("the L2 table", l2),
                                  ("the refcount table", refcounts), ("the refcount block", block),
                                  ("another cluster", data), ("half a cluster", l2 + 512),
                                  ("the end", end + CLUSTER), ("no place", 0x00FFFFFFFFFF0000)]
                 if (what, at) != ("an L2 table", l2)]
        cases += [(f"a refcount block at {name}", changed(whole, (refcounts, at)))
                  for name, at in [("the header", 0), ("the L1 table", l1), ("itself", refcounts), ("half", block + 512),
                                   ("no place", 0x00FFFFFFFFFF0000)]]
        cases += [("refcounts of zero", whole[:block] + bytes(CLUSTER) + whole[block + CLUSTER:]),
                  ("cut off", whole[:len(whole) // 2])]
        for name, bad in cases:
            file = write(path("bad.qcow2"), bad)
            done = image("check", file)
            check(done.returncode in (2, 125), name, "status", done.returncode, done.stdout)
            if done.returncode == 125:
                check_complaint(done, "bad.qcow2")
            check(digest(file) == hashlib.sha256(bad).hexdigest(), name, "check changed the file")
            done = image("convert", file, path("out"))
            if done.returncode:
                check_complaint(done, "bad.qcow2")
            check(digest(file) == hashlib.sha256(bad).hexdigest(), name, "convert changed the file")
            repair(name, file)


def leaked():
    """Clusters that nothing uses are no errors, and can be given back."""
    with scratch() as path:
        disk(path("raw"))
        qemu("qemu-img", "convert", "-O", "qcow2", path("raw"), path("a.qcow2"))
        with open(path("a.qcow2"), "rb") as file:
            whole = file.read()
        file = write(path("a.qcow2"), changed(whole, (l2_table(whole), 0)))
        done = image("check", "--json", file)
        check(done.returncode == 3 and json.loads(done.stdout)["leaks"] == 1, done.stdout, done.stderr)
        check(b"1 leaked clusters" in image("check", file).stdout, "not said")
        done = image("check", "--repair", "--json", file)
        check(done.returncode == 0 and json.loads(done.stdout)["leaks-fixed"] == 1, done.stdout, done.stderr)
        judge(file)
        check(json.loads(good("check", "--json", file))["leaks"] == 0, "still there")


def marked():
    """The mark of a corrupt image is told of, and cleared when the image has no errors."""
    with scratch() as path:
        disk(path("raw"))
        good("convert", path("raw"), path("a.qcow2"))
        with open(path("a.qcow2"), "rb") as file:
            whole = file.read()
        check("marked" not in good("check", path("a.qcow2")), "marked without cause")
        file = write(path("a.qcow2"), changed(whole, ("incompatible", 2)))
        check("marked as corrupt (--repair clears it)" in good("check", file), "not said")
        check(json.loads(good("check", "--json", file))["marked-corrupt"], "not said in JSON")
        check("The mark was cleared." in good("check", "--repair", file), "not cleared")
        check(not json.loads(good("info", "--json", file))["format-specific"]["data"]["corrupt"], "not cleared")
        check(not json.loads(good("check", "--json", file))["marked-corrupt"], "not cleared in JSON")
        judge(file, path("raw"))
        # Data that lies behind the end of the file: no repair knows where it is.
        l2 = l2_table(whole)
        entry = int.from_bytes(whole[l2:l2 + 8], "big")
        file = write(path("b.qcow2"), changed(whole, ("incompatible", 2), (l2 + 8, entry & ~511 | 1 << 40)))
        done = image("check", "--repair", file)
        check(done.returncode == 2 and b"doppel image convert" in done.stdout, done.stdout, done.stderr)
        check(b"The image is marked as corrupt." in done.stdout, done.stdout)


def circles():
    """Backing files that stand on themselves, are missing, or are of an unknown format."""
    with scratch() as path:
        good("create", path("a.qcow2"), "1M")
        good("create", "-b", "a.qcow2", path("b.qcow2"))
        qemu("qemu-img", "rebase", "-u", "-b", "b.qcow2", "-F", "qcow2", path("a.qcow2"))
        before = digest(path("a.qcow2"))
        check_complaint(image("info", "--backing-chain", path("a.qcow2")), "itself")
        good("info", path("a.qcow2"))
        check_complaint(image("convert", path("a.qcow2"), path("out")), "b.qcow2")
        own = path("a.qcow2") + ",backing=" + path("a.qcow2")
        check(image("convert", own, path("out")).returncode in (0, 125), "backed by itself")
        check_complaint(image("convert", path("b.qcow2") + ",backing=" + path("a.qcow2"), path("out")), "a.qcow2")
        qemu("qemu-img", "rebase", "-u", "-b", "gone", "-F", "raw", path("b.qcow2"))
        check_complaint(image("info", "--backing-chain", path("b.qcow2")), "gone")
        check_complaint(image("convert", path("b.qcow2") + ",backing=" + path("gone"), path("out2")), "gone")
        check(digest(path("a.qcow2")) == before and not os.path.exists(path("out2")), "something was changed")


# The one that may have to be skipped is a test of its own.
if sys.argv[2:] == ["device"]:
    main(device)
main(create, backing, advice, other_backing, info, convert, in_place, replaced, interrupted, resize, snapshots, usage,
     files, refused, corrupt, leaked, marked, circles)
