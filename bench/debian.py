#!/usr/bin/python3
"""Measures how long the image of `doppel create debian` takes from its start to the login prompt, under doppel's
translator and under QEMU's TCG: same kernel, initramfs, command line, memory and disk, in turn. Each boot begins
with a fresh machine: what one writes is forgotten.

    bench/debian.py [ROUNDS]        (default: 5)

The base image is made in bench/cache on the first time.
"""
import os
import re
import select
import statistics
import subprocess
import sys
import time

from machines import CACHE, DOPPEL, QEMU

PROMPT = b"login: "
PATIENCE = 600
SUITE = "bookworm"


def base():
    """The folder of the base image, which a machine keeps that is made on the first time."""
    env = os.environ | {"XDG_DATA_HOME": os.path.join(CACHE, "data")}
    os.makedirs(env["XDG_DATA_HOME"], 0o700, exist_ok=True)
    name = "bench"
    path = os.path.join(env["XDG_DATA_HOME"], "doppel", "machines", name, "machine.yaml")
    if os.path.exists(path):
        subprocess.run([DOPPEL, "rm", "--force", name], env=env, check=True, stdin=subprocess.DEVNULL)
    subprocess.run([DOPPEL, "create", "debian", "--suite", SUITE, name], env=env, check=True)
    with open(path, encoding="utf-8") as file:
        found = re.search(r"^base: (\S+)$", file.read(), re.M).group(1)
    return os.path.join(env["XDG_DATA_HOME"], "doppel", "images", found)


def doppel(folder, append):
    return [DOPPEL, "run", "--engine", "bt", "--memory", "1G", "--kernel", f"{folder}/vmlinuz", "--initrd",
            f"{folder}/initrd.img", "--append", append, "--disk", f"{folder}/disk.img,snapshot", "--net", "user"]


def qemu(folder, append):
    return [QEMU, "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "1G", "-kernel", f"{folder}/vmlinuz", "-initrd",
            f"{folder}/initrd.img", "-append", f"console=ttyS0 {append}", "-nodefaults", "-no-user-config", "-nographic",
            "-serial", "stdio", "-drive", f"file={folder}/disk.img,if=virtio,format=raw,snapshot=on", "-nic",
            "user,model=virtio-net-pci"]


def seconds(command):
    """From the start of COMMAND to the prompt."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = b""
    try:
        while PROMPT not in seen:
            left = start + PATIENCE - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise SystemExit(f"no login within {PATIENCE} s: {seen[-500:]}")
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                raise SystemExit(f"ended without a login: {seen[-500:]}")
            seen = seen[-100:] + piece
        return time.monotonic() - start
    finally:
        process.kill()
        process.wait()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder, append = base(), "root=/dev/vda rw quiet"
    kinds = {"doppel bt": doppel(folder, append), "QEMU TCG": qemu(folder, append)}
    times = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, command in kinds.items():
            times[name].append(seconds(command))
            print(f"{name:10} {times[name][-1]:6.2f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["doppel bt"] / medians["QEMU TCG"]
    print(f"\nboot of Debian ({SUITE}) to the login prompt, median of {rounds}:")
    for name, value in medians.items():
        print(f"  {name:10} {value:6.2f} s")
    print(f"  ratio      {ratio:6.2f}   (at most 0.4 is wanted)")


if __name__ == "__main__":
    main()
