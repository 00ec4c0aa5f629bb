#!/usr/bin/python3
"""How long the default guest takes from start to its shell's prompt, under doppel's interpreter and
under QEMU's translator (TCG): the same kernel, initramfs, command line, memory and number of
processors, run in turns. Prints medians and ratios; --json FILE keeps every sample.

The guest's clock is checked against the host's: a guest whose time runs slowly would only seem
fast.
"""
import argparse
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
GUESTS = os.environ.get("DOPPEL_GUESTS", os.path.join(ROOT, "guests", "cache"))
KERNEL = os.path.join(GUESTS, "vmlinuz-6.1")
INITRD = os.path.join(GUESTS, "initrd.img")
DOPPEL = os.path.join(ROOT, "build", "doppel")
TIMEOUT = 300
CLOCK_SECONDS = 5


def doppel(memory, cpus):
    """The command line under doppel's interpreter."""
    return [DOPPEL, "run", "--engine", "interp", "--kernel", KERNEL, "--initrd", INITRD,
            "--append", "quiet", "--memory", f"{memory}M", "--cpus", str(cpus)]


def qemu(memory, cpus):
    """The command line under QEMU's TCG; doppel gives Linux the same console by itself."""
    return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-nodefaults", "-display", "none",
            "-serial", "stdio", "-kernel", KERNEL, "-initrd", INITRD,
            "-append", "console=ttyS0 quiet", "-m", str(memory), "-smp", str(cpus)]


def boot(command):
    """Boots once. Returns the seconds until the shell's prompt."""
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        seen = b""
        try:
            while b"# " not in seen:
                left = start + TIMEOUT - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    sys.exit(f"{command[0]}: no prompt in {TIMEOUT} s: {seen[-500:]!r}")
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    sys.exit(f"{command[0]}: ended: {seen[-500:]!r}")
                seen += data
            return time.monotonic() - start
        finally:
            process.kill()


def statistics_and_clock(memory, cpus):
    """doppel's own counts over a boot, and how far the guest's clock came per second of the host's.
    """
    script = f"cat /proc/uptime; sleep {CLOCK_SECONDS}; cat /proc/uptime"
    command = [DOPPEL, "run", "--engine", "interp", "--memory", f"{memory}M", "--cpus", str(cpus),
               "--stats", "--json", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        readings = []
        for line in process.stdout:
            readings.append((time.monotonic(), float(line.split()[0])))
        stats = json.loads(process.stderr.read())
    (host0, guest0), (host1, guest1) = readings
    return stats, (guest1 - guest0) / (host1 - host0)


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measures how long the default guest boots.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--json", help="file for all samples")
    options = parser.parse_args()

    commands = {"doppel interp": doppel}
    if shutil.which("qemu-system-x86_64"):
        commands["QEMU TCG"] = qemu
    samples = {name: [] for name in commands}
    for number in range(options.rounds):
        for name, command in commands.items():
            samples[name].append(boot(command(options.memory, options.cpus)))
            print(f"round {number + 1}: {name}: {samples[name][-1]:.2f} s", flush=True)
    stats, clock = statistics_and_clock(options.memory, options.cpus)

    base = statistics.median(samples["doppel interp"])
    print(f"\n{'':16}{'median':>10}{'least':>10}{'most':>10}{'x doppel':>10}")
    for name, times in samples.items():
        median = statistics.median(times)
        print(f"{name:16}{median:9.2f}s{min(times):9.2f}s{max(times):9.2f}s{median / base:10.2f}")
    print(f"\ndoppel interp: {stats['instructions'] / 1e6:.0f} million instructions, "
          f"{stats['mips']:.0f} million/s of execution, {stats['resident'] >> 20} MiB resident")
    print(f"the guest's clock runs at {clock:.3f} of the host's")
    if options.json:
        result = {"options": vars(options), "seconds": samples, "statistics": stats, "clock": clock}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
