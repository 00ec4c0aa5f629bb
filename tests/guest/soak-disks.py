#!/usr/bin/python3
"""Keeps disks busy for some minutes and checks what comes of it: fio verifies what it has written, over
formats, cache modes, depths and numbers of queues, and again after a reboot; ext4 and xfs are under
stress-ng and then looked at from the host; what is deleted is given back to the host; and a host whose
disk is full holds the machine up, no more.

    soak-disks.py DOPPEL [NAME...]

NAME chooses among the jobs, by a part of their names. All output of a job that fails is shown.
"""
import hashlib
import itertools
import os
import re
import subprocess
import sys
import time

from disk import Running
from vm import DOPPEL, ROOT, attempt, check, check_run, run, scratch

IMAGES = os.path.join(ROOT, "bench", "cache")
INITRD = os.path.join(IMAGES, "disks.img")
TOOLS = os.path.join(IMAGES, "disks")  # the guest's programs, for use on the host
MIB = 1 << 20
COMPLAINTS = "dmesg | grep -E 'BUG:|WARNING:|Oops|stall|lockup|hung task|I/O error|EXT4-fs error|XFS.*[Cc]orrupt'"
LOAD = "for m in /lib/modules/$(uname -r)/filesystems/*.ko; do insmod $m; done"


def doppel(disk, script, cpus=1, timeout=1200):
    """Runs SCRIPT in a guest with the disk; the kernel must have nothing to complain of."""
    done = run("run", "--cpus", str(cpus), "--memory", "1G", "--initrd", INITRD, "--disk", disk, "--", "sh", "-ec",
               f"{script}\n! {COMPLAINTS} >&2", timeout=timeout, stderr=subprocess.STDOUT)
    check_run(done, 0)
    return done.stdout.decode(errors="replace")


def image(path, size, kind):
    """Makes an image of SIZE bytes and returns its path."""
    made = subprocess.run([DOPPEL, "image", "create", "--format", kind, path, str(size)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    check(made.returncode == 0, made.stdout)
    return path


def tool(program, *arguments):
    """Runs one of the guest's programs here. Returns its status and output."""
    libraries = ":".join(os.path.join(TOOLS, d) for d in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    done = subprocess.run([os.path.join(TOOLS, "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), "--library-path",
                           libraries, os.path.join(TOOLS, program), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def used(path):
    return os.stat(path).st_blocks * 512


# ---- fio ----


def fio(kind, cache, depth, queues):
    """Random reads, writes and trims of all sizes, verified as they go; and once more after a reboot."""
    common = ("fio --name=x --thread --filename=/dev/vda --direct=1 --ioengine=libaio --size=48m --bsrange=512-256k "
              f"--bs_unaligned=0 --blockalign=512 --iodepth={depth} --numjobs={queues} --offset_increment=48m "
              "--verify=crc32c --verify_fatal=1 --randseed=1974 --norandommap=0 --serialize_overlap=1 ")
    with scratch() as at:
        disk = image(at("disk"), 200 * MIB, kind) + f",format={kind},cache={cache},queues={queues}"
        doppel(disk, common + "--rw=randwrite --do_verify=1 --fsync=64 >/tmp/said || { cat /tmp/said; exit 1; }", queues)
        doppel(disk, common + "--rw=randwrite --verify_only >/tmp/said || { cat /tmp/said; exit 1; }", queues)


# ---- File systems ----


STRESS = """
    mkdir /m; mount -t {fs} /dev/vda /m
    cd /m; stress-ng --hdd 2 --hdd-bytes 32M --hdd-opts wr-rnd,rd-rnd,fsync --dir 2 --rename 2 --temp-path /m \\
        --verify --timeout 20 >/tmp/said 2>&1 || {{ cat /tmp/said; exit 1; }}
    for n in $(seq 40); do dd if=/dev/urandom of=/m/f$n bs=37k count=$n 2>/dev/null; done
    sync; md5sum /m/f*; cd /; umount /m
"""


def sums(text):
    return dict(reversed(line.split()) for line in text.splitlines() if re.match(r"[0-9a-f]{32}  /m/f", line))


def look_at_ext4(path, wanted, at):
    """Every file, read out of the image on the host."""
    status, said = tool("sbin/e2fsck", "-fn", path)
    check(status == 0, said)
    for name, digest in wanted.items():
        out = at("out")
        status, said = tool("sbin/debugfs", "-R", f"dump {name[2:]} {out}", path)
        with open(out, "rb") as file:
            check(hashlib.md5(file.read()).hexdigest() == digest, name, said)


def look_at_xfs(path, wanted, _):
    """The file system by its own tool on the host; its files by a guest that cannot write."""
    status, said = tool("sbin/xfs_repair", "-n", "-f", path)
    check(status == 0, said)
    seen = sums(doppel(path + ",readonly", f"{LOAD}; mkdir /m; mount -t xfs -o ro /dev/vda /m; md5sum /m/f*"))
    check(seen == wanted, "files have changed:", seen, wanted)


def filesystem(kind, cache, cpus):
    """stress-ng, and 40 files whose sums are compared from the host."""
    look, options = {"ext4": (look_at_ext4, "-q -F"), "xfs": (look_at_xfs, "-q -f")}[kind]
    with scratch() as at:
        path = image(at("disk"), 512 * MIB, "raw")
        said = doppel(f"{path},cache={cache}", f"{LOAD}; mkfs.{kind} {options} /dev/vda" + STRESS.format(fs=kind), cpus)
        wanted = sums(said)
        check(len(wanted) == 40, said)
        look(path, wanted, at)


def fstrim(kind):
    """800 MiB are written, deleted and trimmed: the image is as small as before."""
    with scratch() as at:
        disk = image(at("disk"), 2048 * MIB, kind) + f",format={kind}"
        doppel(disk, "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda; mkdir /m; mount /dev/vda /m; umount /m")
        before = used(at("disk"))
        doppel(disk, """mkdir /m; mount /dev/vda /m
            dd if=/dev/urandom of=/tmp/r bs=1M count=100 2>/dev/null
            for n in 1 2 3 4 5 6 7 8; do dd if=/tmp/r of=/m/$n bs=1M 2>/dev/null; done; umount /m""")
        full = used(at("disk"))
        check(full >= before + 800 * MIB, "800 MiB take", full - before)
        doppel(disk, "mkdir /m; mount /dev/vda /m; rm /m/?; sync; fstrim /m; umount /m")
        after = used(at("disk"))
        check(after <= before + 40 * MIB, f"of 800 MiB {(after - before) / MIB:.1f} MiB were not given back")


def full_disk():
    """A file system of the host's that is too small, and then is not."""
    with scratch() as at:
        os.mkdir(at("small"))
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", at("small")], stderr=subprocess.DEVNULL,
                          check=False).returncode:
            return "left out: needs root, to mount a small file system"
        try:
            path = image(at("small/disk"), 200 * MIB, "raw")
            guest = Running("""dd if=/dev/urandom of=/tmp/r bs=1M count=100 2>/dev/null
                dd if=/tmp/r of=/dev/vda bs=1M conv=fsync 2>/dev/null; md5sum </tmp/r""",
                            "--memory", "512M", "--disk", path)
            guest.expect(b"the host's disk is full")
            check(guest.listen(5) == 0, "the machine goes on")
            subprocess.run(["mount", "-o", "remount,size=150m", at("small")], check=True)
            guest.expect(b"there is room again")
            check(guest.finish() == 0, guest.said.values())
            with open(path, "rb") as file:
                check(hashlib.md5(file.read(100 * MIB)).hexdigest().encode() in guest.out(), "lost bytes")
        finally:
            subprocess.run(["umount", "-l", at("small")], check=False)
    return "ok"


def jobs():
    """What there is to do: name, function, arguments."""
    for kind, cache, depth, queues in itertools.product(("raw", "qcow2"), ("writeback", "none"), (1, 32), (1, 2, 4)):
        yield f"fio {kind} cache={cache} depth={depth} queues={queues}", fio, (kind, cache, depth, queues)
    for kind, cache, cpus in (("ext4", "writeback", 1), ("ext4", "none", 2), ("xfs", "writeback", 2), ("xfs", "none", 1)):
        yield f"{kind} cache={cache} cpus={cpus}", filesystem, (kind, cache, cpus)
    for kind in ("raw", "qcow2"):
        yield f"fstrim {kind}", fstrim, (kind,)
    yield "full disk", full_disk, ()


def main():
    if not os.path.exists(INITRD):
        print(f"{INITRD} is missing (bench/make-image disks)")
        return 2
    start, done, failed = time.monotonic(), 0, []
    for name, function, arguments in jobs():
        if sys.argv[2:] and not any(part in name for part in sys.argv[2:]):
            continue
        verdict, seconds = attempt(function, *arguments)
        if verdict == "FAILED":
            failed.append(name)
        done += 1
        print(f"{verdict}: {name} ({seconds:.0f} s)", flush=True)
    print(f"soak-disks: {done} jobs in {time.monotonic() - start:.0f} s, {len(failed)} failed"
          + "".join(f"\n  {name}" for name in failed))
    return bool(failed) or not done


if __name__ == "__main__":
    sys.exit(main())
