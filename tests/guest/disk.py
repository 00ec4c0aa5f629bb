#!/usr/bin/python3
"""Disks of whole guests: /dev/vda is simply there, and what the guest reads, writes, flushes and
discards is what the host finds in the image.
"""
import contextlib
import hashlib
import os
import random
import select
import subprocess
import time

import nbd
from vm import DOPPEL, check, check_complaint, check_run, environment, guest, main, run, scratch, write

MIB = 1 << 20


def pattern(size, seed):
    return random.Random(seed).randbytes(size)


def digest(data):
    return hashlib.md5(data).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def boot(script, *options, kernel=None):
    """Runs SCRIPT in a guest and returns what it says, line by line. Nothing may go wrong."""
    kernel = ["--kernel", guest(kernel)] if kernel else []
    done = run("run", *kernel, *options, "--", "sh", "-ec", script)
    check_run(done, 0)
    return done.stdout.decode().splitlines()


def gives_space_back(path):
    """Whether files beside PATH can have holes punched into them."""
    write(path, bytes(MIB))
    punched = subprocess.run(["fallocate", "--punch-hole", "--length", str(MIB), path],
                             stderr=subprocess.DEVNULL, check=False).returncode == 0
    return punched and os.stat(path).st_blocks == 0


def contents():
    """Two vCPUs and so two queues: reads, writes past the guest's cache, flushes, a discard."""
    with scratch() as at:
        model = bytearray(pattern(24 * MIB, 1))
        image = write(at("a,disk.raw"), model)
        before = os.stat(image).st_blocks
        said = boot("""
            cat /sys/block/vda/serial; echo; cat /sys/block/vda/size; ls /sys/block/vda/mq | wc -l
            cat /sys/block/vda/queue/logical_block_size /sys/block/vda/queue/write_cache
            md5sum </dev/vda
            dd if=/dev/vda of=/tmp/part bs=4k skip=77 count=300 iflag=direct 2>/dev/null
            md5sum </tmp/part
            dd if=/tmp/part of=/dev/vda bs=4k seek=4096 oflag=direct conv=fsync 2>/dev/null &
            dd if=/tmp/part of=/dev/vda bs=512 seek=999 oflag=direct 2>/dev/null
            wait
            blkdiscard -o 8388608 -l 4194304 /dev/vda
            sync; echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/vda
            """, "--cpus", "2", "--disk", image.replace(",", ",,") + ",serial=D-1")
        part = bytes(model[77 * 4096:377 * 4096])
        serial, sectors, queues, block, cache, whole, piece, after = said
        check(serial == "D-1" and int(sectors) == len(model) // 512, said)
        check((queues, block, cache) == ("2", "512", "write back"), said)
        check(whole.split()[0] == digest(model) and piece.split()[0] == digest(part), said)
        model[4096 * 4096:4096 * 4096 + len(part)] = part
        model[999 * 512:999 * 512 + len(part)] = part
        model[8 * MIB:12 * MIB] = bytes(4 * MIB)
        check(after.split()[0] == digest(model), "the guest reads something else than it wrote")
        check(read(image) == model, "the host finds something else than the guest")
        if gives_space_back(at("hole")):
            check(before - os.stat(image).st_blocks >= 4 * MIB // 512, "nothing was given back")


def readonly():
    """A write fails in the guest, and the image stays as it is, discard and all."""
    with scratch() as at:
        data = pattern(MIB, 2)
        image = write(at("disk.raw"), data)
        os.chmod(image, 0o444)
        said = boot("""
            cat /sys/block/vda/ro; md5sum </dev/vda
            ! dd if=/dev/zero of=/dev/vda count=1 2>/dev/null
            ! blkdiscard /dev/vda 2>/dev/null
            """, "--disk", image + ",readonly")
        check(said[0] == "1" and said[1].split()[0] == digest(data), said)
        check(read(image) == data, "the image has changed")


def several():
    """Each disk has its own letter, in the order of their PCI slots; one is past the host's cache."""
    with scratch() as at:
        images = [write(at(f"{n}.raw"), pattern(MIB, n)) for n in range(3)]
        said = boot("""
            for d in a b c; do md5sum </dev/vd$d; done
            for d in a b c; do echo $d | dd of=/dev/vd$d bs=512 conv=sync,fsync 2>/dev/null; done
            ls /sys/block/vdb/mq | wc -l
            """, "--disk", images[0], "--device", "rng", "--device", f"disk,slot=9,file={images[2]}",
                    "--disk", images[1] + ",cache=none,queues=1")
        check([line.split()[0] for line in said[:3]] == [digest(pattern(MIB, n)) for n in range(3)], said)
        check(said[3] == "1", said)
        for n, letter in enumerate(b"abc"):
            check(read(images[n])[:4] == bytes((letter, 10, 0, 0)), f"disk {n} was not written")


def images():
    """A qcow2 image, one whose changes are forgotten, and one that has a process of its own."""
    with scratch() as at:
        data = pattern(MIB, 5)
        kept, own = write(at("kept.raw"), data), write(at("own.raw"), data)
        check_run(run("image", "create", at("new.qcow2"), "4M"), 0)
        said = boot("""
            dd if=/dev/vdb of=/dev/vda bs=64k conv=fsync 2>/dev/null
            for d in b c; do tac </dev/vdc | head -c 9999 | dd of=/dev/vd$d bs=9999 conv=fsync 2>/dev/null; done
            md5sum </dev/vda; md5sum </dev/vdb; md5sum </dev/vdc
            """, "--disk", at("new.qcow2"), "--disk", kept + ",snapshot", "--disk", own + ",isolate=on")
        seen = [line.split()[0] for line in said]
        check(seen[0] == digest(data + bytes(3 * MIB)), said)
        check_run(run("image", "check", at("new.qcow2")), 0)
        check_run(run("image", "convert", "-O", "raw", at("new.qcow2"), at("new.raw")), 0)
        check(read(at("new.raw")) == data + bytes(3 * MIB), "the image has something else than the guest")
        check(read(kept) == data and seen[1] != digest(data), "changes were kept, or not made")
        check(digest(read(own)) == seen[2] != digest(data), "the image has something else than the guest")


def kernels():
    """The drivers of the other kernels."""
    for kernel in ("6.12", "686-pae"):
        guest(f"modules-{kernel}.img")
        guest("initrd-i386.img")
        with scratch() as at:
            data = pattern(MIB, 3)
            image = write(at("disk.raw"), data)
            said = boot("""
                md5sum </dev/vda; dd if=/dev/vda of=/tmp/x bs=512 count=9 2>/dev/null
                dd if=/tmp/x of=/dev/vda bs=512 seek=1000 conv=fsync 2>/dev/null
                """, "--disk", image, kernel=f"vmlinuz-{kernel}")
            check(said[0].split()[0] == digest(data), kernel, said)
            check(read(image)[512000:516608] == data[:4608], kernel, "has not written")


def locked():
    """A second writer is refused with one line that says why; a reader beside a writer, too."""
    with scratch() as at:
        image = write(at("disk.raw"), bytes(MIB))
        first = subprocess.Popen([DOPPEL, "run", "--disk", image, "--", "sh", "-c", "echo up; cat"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        try:
            check(first.stdout.readline() == b"up\n", "the first does not run")
            check_complaint(run("run", "--disk", image, "--", "true"), image, "use")
            check_complaint(run("run", "--disk", image + ",readonly", "--", "true"), image, "use")
        finally:
            first.stdin.close()
            check(first.wait(60) == 0, "the first has failed")
        boot("true", "--disk", image)
        check_complaint(run("run", "--disk", image, "--disk", image, "--", "true"), image, "named twice")


@contextlib.contextmanager
def server(path, size):
    """An NBD server that is closed in the end."""
    made = nbd.Server(path, size)
    try:
        yield made
    finally:
        made.close()


class Running:
    """doppel that runs SCRIPT, as its output comes."""

    def __init__(self, script, *options):
        self.process = subprocess.Popen([DOPPEL, "run", *options, "--", "sh", "-ec", script], env=environment(),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said = {self.process.stdout: b"", self.process.stderr: b""}

    def listen(self, seconds):
        """Returns how many bytes of standard output came within SECONDS."""
        before, end = len(self.out()), time.monotonic() + seconds
        while time.monotonic() < end:
            for stream in select.select(list(self.said), [], [], 0.05)[0]:
                self.said[stream] += os.read(stream.fileno(), 65536)
        return len(self.out()) - before

    def out(self):
        return self.said[self.process.stdout]

    def errors(self):
        return self.said[self.process.stderr]

    def expect(self, words, timeout=120):
        """Waits until standard error has WORDS."""
        end = time.monotonic() + timeout
        while words not in self.errors():
            check(time.monotonic() < end and self.process.poll() is None, f"no {words!r}:", self.said.values())
            self.listen(0.05)

    def finish(self):
        """Returns the exit status, when all that was said is in."""
        status = self.process.wait(120)
        self.listen(0.2)
        return status


def full():
    """The host's disk is full: the machine stands still, says why, and goes on when there is room. The
    guest does not notice."""
    with scratch() as at, server(at("socket"), 4 * MIB) as disk:
        disk.fails[nbd.WRITE] = nbd.ENOSPC
        guest_runs = Running("""
            (while :; do echo tick; sleep 0.05; done) &
            dd if=/dev/urandom of=/tmp/x bs=4k count=64 2>/dev/null
            dd if=/tmp/x of=/dev/vda bs=4k conv=fsync 2>/dev/null
            kill $!; md5sum </tmp/x; dmesg | grep -E "error|stall|hung" || true
            """, "--disk", disk.uri)
        guest_runs.expect(b"the host's disk is full")
        guest_runs.listen(0.5)  # what was on its way
        check(guest_runs.listen(1) == 0, "the machine does not stand still")
        tries, end = disk.counts[nbd.WRITE], time.monotonic() + 60
        while disk.counts[nbd.WRITE] == tries:
            check(time.monotonic() < end, "it is not tried again")
            guest_runs.listen(0.1)
        disk.fails.clear()
        guest_runs.expect(b"there is room again")
        check(guest_runs.finish() == 0, guest_runs.said.values())
        last = guest_runs.out().decode().splitlines()[-1]
        check(last.split()[0] == digest(bytes(disk.bytes[:256 << 10])), "lost:", last)
        check(guest_runs.errors().count(b"\n") == 2, guest_runs.errors())


def errors():
    """What the host cannot read or write, the guest cannot, and the machine lives on."""
    with scratch() as at, server(at("socket"), 4 * MIB) as disk:
        disk.bytes[:] = pattern(4 * MIB, 4)
        guest_runs = Running("""
            echo up; while dd if=/dev/vda of=/dev/null iflag=direct bs=4k count=4 2>/dev/null; do sleep 0.05; done
            echo failed; until md5sum </dev/vda; do sleep 0.05; done
            """, "--disk", disk.uri)
        end = time.monotonic() + 120
        while b"up\n" not in guest_runs.out() and time.monotonic() < end:
            guest_runs.listen(0.05)
        disk.fails[nbd.READ] = nbd.EIO
        while b"failed\n" not in guest_runs.out() and time.monotonic() < end:
            guest_runs.listen(0.05)
        disk.fails.clear()
        check(guest_runs.finish() == 0, guest_runs.said.values())
        check(digest(bytes(disk.bytes)).encode() in guest_runs.out(), guest_runs.said.values())


def gone():
    """A server that leaves: the user is told, once, and the machine lives on."""
    with scratch() as at, server(at("socket"), 4 * MIB) as disk:
        guest_runs = Running("""
            while dd if=/dev/vda of=/dev/null iflag=direct bs=4k count=4; do echo read; sleep 0.05; done
            """, "--disk", disk.uri)
        end = time.monotonic() + 120
        while b"read\n" not in guest_runs.out() and time.monotonic() < end:
            guest_runs.listen(0.05)
        disk.fails[nbd.READ] = nbd.HANG_UP
        guest_runs.expect(b"the server is gone")
        check(guest_runs.finish() == 0, guest_runs.said.values())
        lines = [line for line in guest_runs.errors().splitlines() if line.startswith(b"doppel:")]
        check(len(lines) == 1, guest_runs.errors())


if __name__ == "__main__":
    main(contents, readonly, several, images, kernels, locked, full, errors, gone)
