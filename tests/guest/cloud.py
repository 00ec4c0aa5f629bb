#!/usr/bin/python3
"""`doppel create --from IMAGE --cloud-init FILE`: an image that knows nothing of doppel is configured at its first boot.

Debian has no package with such an image, so one is made as those are, by other programs than ours: mmdebstrap installs
Debian 13 with cloud-init, mke2fs puts it into the first of three partitions of a GPT. A part of `make soak-debian`.
"""
import os
import struct
import subprocess
import sys
import time
import uuid
import zlib

from debian import BOOT, MADE, Host
from vm import check, check_run, main, scratch, terminal, write

MIB = 1 << 20
SECTOR = 512
ROOT_FIRST = 262144  # sectors, as in Debian's own
SIZE = 2560 * MIB
PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "systemd-resolved", "udev", "dbus", "cloud-init",
            "cloud-guest-utils", "fdisk", "netplan.io", "openssh-server", "sudo", "iproute2", "passwd", "login", "e2fsprogs"]
LINUX, BIOS, EFI = (uuid.UUID(text) for text in (
    "0fc63daf-8483-4772-8e79-3d69d8477de4", "21686148-6449-6e6f-744e-656564454649", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"))


def header(size, entries, own, other, table):
    """A GPT header in sector OWN, whose copy is in sector OTHER (UEFI 2.10, 5.3.2)."""
    last = size // SECTOR - 1
    head = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, last - 33,
                       uuid.uuid4().bytes_le, table, 128, 128, zlib.crc32(entries))
    return head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]


def partition(path, size):
    """Writes tables with a root partition, number 1, and two others in front of it."""
    last = size // SECTOR - 1
    entries = bytearray(128 * 128)
    for number, kind, first, end in ((1, LINUX, ROOT_FIRST, last - 2048), (14, BIOS, 2048, 8191), (15, EFI, 8192, ROOT_FIRST - 1)):
        struct.pack_into("<16s16sQQQ72s", entries, (number - 1) * 128, kind.bytes_le, uuid.uuid4().bytes_le, first, end, 0, b"")
    mbr = bytearray(SECTOR)
    struct.pack_into("<B3xB3xII", mbr, 446, 0, 0xEE, 1, last)
    mbr[510:] = b"\x55\xaa"
    entries = bytes(entries)
    with open(path, "wb") as disk:
        disk.truncate(size)
        disk.write(bytes(mbr) + header(size, entries, 1, last, 2).ljust(SECTOR, b"\0") + entries)
        disk.seek((last - 32) * SECTOR)
        disk.write(entries + header(size, entries, last, 1, last - 32).ljust(SECTOR, b"\0"))
    return (last - 2048 - ROOT_FIRST + 1) * SECTOR


def make_image(user, path):
    """Makes the disk; as root, or as root of a user namespace."""
    room = partition(path("cloud.raw"), SIZE)
    write(path("fstab"), b"LABEL=root / ext4 rw,discard,errors=remount-ro 0 1\n")
    script = write(path("script"), f"""set -e
mmdebstrap --mode=root --variant=minbase --include={','.join(PACKAGES)} --skip=output/dev \\
    --customize-hook='upload {path("fstab")} /etc/fstab' --customize-hook='rm "$1"/etc/hostname' \\
    trixie {path("tree")} "deb ${{DOPPEL_MIRROR:-http://deb.debian.org/debian}} trixie main"
mke2fs -q -t ext4 -L root -d {path("tree")} -E offset={ROOT_FIRST * SECTOR} {path("cloud.raw")} {room // 4096}
rm -rf {path("tree")}
""".encode())
    namespace = [] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]
    os.chmod(path(""), 0o755)
    done = subprocess.run([*namespace, "sh", script], env=user.env, check=False, stdin=subprocess.DEVNULL, timeout=MADE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(done.returncode == 0, done.stdout.decode()[-3000:])


USER_DATA = b"""#cloud-config
package_update: false
runcmd:
- [sh, -c, "echo cloud-init has run for $(hostname) >/dev/ttyS0"]
"""


def cloud():
    """It gets its host name, our key and commands, and its partition grows."""
    with scratch() as path:
        os.mkdir(path("home"), 0o755)
        user = Host(path("home"), "trixie", keep=False)
        make_image(user, path)
        check_run(user.run("image", "convert", path("cloud.raw"), path("cloud.qcow2")), 0)
        os.unlink(path("cloud.raw"))
        data = write(path("user-data"), USER_DATA)
        check_run(user.run("create", "--from", path("cloud.qcow2"), "--cloud-init", data, "--size", "6G", user.name), 0)
        with open(user.machine("machine.yaml"), "a", encoding="utf-8") as file:
            file.write("ssh:\n  user: debian\n")
        start = time.monotonic()
        with terminal("run", user.name, env=user.env) as term:
            term.expect(b"cloud-init has run for %s\r\n" % user.name.encode(), BOOT)
            print(f"cloud-init has run after {time.monotonic() - start:.1f} s")
            check(user.ssh("id", "-un") == "debian\n", "the image's user")
            check("DataSourceNoCloud" in user.ssh("sudo", "cat", "/run/cloud-init/status.json"), "the data source")
            check(user.ssh("hostname") == user.name + "\n", "the host name")
            check(int(user.ssh("df", "--output=size", "-BM", "/").split()[1].rstrip("M")) > 5000, "it has grown")
            user.run("ssh", user.name, "--", "sudo", "poweroff")
            check(term.wait(300) == 0, "status", term.process.returncode)
        user.remove()


if __name__ == "__main__":
    main(cloud)
