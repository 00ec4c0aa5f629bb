#!/usr/bin/python3
"""`doppel create`: tar archives and images become disks, with e2fsck and debugfs as the judges of what it makes.
No guest boots here."""
import os
import re
import resource
import shutil
import struct
import subprocess
import tarfile

from machines import ENV, SBIN, Layout, Tar, home, system
from vm import DOPPEL, check, check_complaint, check_run, main, run as run_doppel, scratch, write

MIB = 1 << 20


def judge(disk):
    """Has e2fsck look at a disk; it must find nothing."""
    done = subprocess.run(["e2fsck", "-fn", disk], env=SBIN, capture_output=True, timeout=120, check=False)
    check(done.returncode == 0, "e2fsck:", done.stdout.decode())


def debugfs(disk, command):
    """What debugfs prints."""
    done = subprocess.run(["debugfs", "-R", command, disk], env=SBIN, capture_output=True, timeout=60, check=True)
    return done.stdout


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
    with home() as (h, path):
        oci = Layout(path("oci"))
        one = system(Tar(path("1.tar"))).add("gone/a", data=b"a").add("gone/b", data=b"b").add("cleared/old", data=b"o")
        two = Tar(path("2.tar.gz"), "w:gz").add("gone/.wh.a").add("cleared/new", data=b"n").add("cleared/.wh..wh..opq")
        two.add("cleared/.wh.none", data=b"x" * 100000)
        # Annotations hold any characters, written as JSON may write them; and the key of one is long.
        manifest = oci.image(oci.archive(one), oci.archive(two), annotations={"\U0001f427": "/\t\x7f", "k" * 2000: "v"})
        other = dict(manifest, platform={"os": "linux", "architecture": "arm64"})
        oci.index(other, manifest)
        h.good("--from", path("oci"), "m")
        disk = h.image("disk.img")
        judge(disk)
        check(debugfs(disk, "cat /gone/b") == b"b" and debugfs(disk, "cat /cleared/new") == b"n", "what stays")
        check(b"old" not in debugfs(disk, "ls /cleared") and b" a " not in debugfs(disk, "ls /gone"), "what goes")


def images():
    """Disk images: a whole-disk file system, and one in a partition with /boot in another."""
    with home() as (h, path):
        system(Tar(path("a.tar"))).close()
        h.good("--from", path("a.tar"), "--size", "64M", "m")
        whole = shutil.copy(h.image("disk.img"), path("whole.raw"))
        os.chmod(whole, 0o600)
        check_run(run_doppel("rm", "--force", "m", env=h.env, stdin=None), 0)
        h.gc()
        check(h.images(True) == [], "gc leaves an image", h.images(True))
        with open(whole, "rb") as file, open(path("parted.img"), "wb") as disk:
            table = bytearray(512)
            struct.pack_into("<B3xB3xII", table, 446, 0, 0x83, 2048, 64 * 2048)
            table[510:] = b"\x55\xaa"
            disk.write(table)
            disk.seek(MIB)
            disk.write(file.read())
        subprocess.run([DOPPEL, "image", "convert", path("parted.img"), path("parted.qcow2")], check=True)
        os.rename(path("parted.qcow2"), path("parted, of us.qcow2"))
        h.good("--from", path("parted, of us.qcow2"), "q")
        os.rename(path("parted, of us.qcow2"), path("parted.qcow2"))
        with open(os.path.join(h.data, "machines/q/machine.yaml"), encoding="utf-8") as file:
            check("root=/dev/vda1 rw" in file.read(), "the partition")
        judge_part = h.image("disk.img")
        with open(judge_part, "rb") as disk:
            disk.seek(MIB)
            write(path("part"), disk.read())
        judge(path("part"))
        write(path("ud"), b"#cloud-config\n")
        write(path("keys"), b"# mine\n\nssh-rsa AAAA it's\n")
        h.good("--from", path("parted.qcow2"), "--cloud-init", path("ud"), "--hostname", "host", "--ssh-key", path("keys"), "ci")
        with open(os.path.join(h.data, "machines/ci/seed.iso"), "rb") as file:
            seed = file.read()
        check(b"CIDATA" in seed.upper()[32768:34816] and b"#cloud-config" in seed and b"local-hostname: host" in seed, "seed")
        with open(os.path.join(h.data, "ssh/id_ed25519.pub"), "rb") as key:
            check(b"\npublic-keys:\n- '" + key.read().strip() + b"'\n- 'ssh-rsa AAAA it''s'\n" in seed, "keys", seed)
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
                (["debian", "--user", "a\nProxyCommand x", "x"], ["--user"]), (["debian", "--user", "-a", "x"], ["--user"]),
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
        check_complaint(image(path("missing"), path("x.raw")), "missing", "No such file")
        os.mkfifo(path("pipe.vdi"))
        check_complaint(image(path("pipe.vdi"), path("x.raw")), "pipe.vdi", "regular")
        os.unlink(path("pipe.vdi"))
        check_complaint(image("--format", "iso", path("a.raw"), path("x.raw")), "iso")
        check_complaint(image(path("a.vdi"), path("x.raw"), env=ENV | {"PATH": path("")}), "qemu-img", "qemu-utils")
        gone = set(os.listdir(path(""))) - set(before) - {"secret", "flat.vmdk", "none.vmdk", "bad.vdi", "bad.ova"}
        check(not gone, "left behind", gone)


if __name__ == "__main__":
    main(contents, shared, sparse, hostile, layers, images, imported, refused)
