#!/usr/bin/python3
"""Measures shared folders: doppel's virtio-fs beside QEMU's 9P (TCG), with the same kernel, image and tree of
70,000 files, in turn. Prints the medians in seconds, by the guest's clock, and the ratios.

Usage: bench/folders.py [ROUNDS]        (first: bench/make-image folders, bench/make-qemu)
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile

from machines import CACHE, DOPPEL, QEMU

KERNEL, IMAGE = os.path.join(CACHE, "vmlinuz-folders"), os.path.join(CACHE, "folders.img")
FOLDERS, FILES = 700, 100
STEPS = {"first-status", "status", "find", "find-attributes", "read", "write", "read-large"}  # of folders-init
TIMEOUT_S = 1200


def make_tree(top):
    """A repository with a clean tree."""
    for folder in range(FOLDERS):
        path = os.path.join(top, str(folder % 20), str(folder))
        os.makedirs(path)
        for name in range(FILES):
            with open(os.path.join(path, str(name)), "w", encoding="ascii") as file:
                file.write("x" * 3 * name)
    git = ["git", "-C", top, "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for words in ["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]:
        subprocess.run([*git, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def doppel(tree):
    return [DOPPEL, "run", "--memory", "1G", "--kernel", KERNEL, "--initrd", IMAGE, "--append", "quiet rdinit=/init",
            "--share", f"{tree},tag=tree"]


def qemu(tree):
    return [QEMU, "-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "1G", "-kernel", KERNEL, "-initrd", IMAGE,
            "-append", "console=ttyS0 quiet rdinit=/init folder=9p", "-nodefaults", "-no-user-config", "-nographic",
            "-serial", "stdio", "-fsdev", f"local,id=tree,path={tree},security_model=none", "-device",
            "virtio-9p-pci,fsdev=tree,mount_tag=tree"]


def measure(argv):
    """Boots the guest of ARGV. Returns the seconds of each step."""
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=TIMEOUT_S, check=False, text=True, errors="replace").stdout
    # QEMU's firmware leaves its last line without an end, so a step may follow it there.
    steps = {name: float(after) - float(before)
             for name, before, after in re.findall(r"step ([a-z-]+) ([0-9.]+) ([0-9.]+)", said)}
    if "failed" in said.split() or set(steps) != STEPS:
        sys.exit(f"{argv[0]}: {said}")
    return steps


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    results = {"doppel": [], "qemu": []}
    with tempfile.TemporaryDirectory() as tree:
        make_tree(tree)
        for number in range(rounds):
            for name, argv in ("doppel", doppel), ("qemu", qemu):
                results[name].append(measure(argv(tree)))
                print(f"round {number + 1}: {name} {results[name][-1]}", file=sys.stderr)
    print("| step | doppel, virtio-fs | QEMU (TCG), 9P | ratio |\n|---|---:|---:|---:|")
    for step in results["doppel"][0]:
        ours, theirs = (statistics.median(r[step] for r in results[name]) for name in ("doppel", "qemu"))
        print(f"| {step} | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f} |" if ours else f"| {step} | 0 | {theirs:.2f} s | |")


main()
