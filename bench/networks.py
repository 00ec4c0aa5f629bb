#!/usr/bin/python3
"""Measures networks of guests: doppel's beside QEMU's with TCG, on the same kernel and initramfs. A stream each way
and a byte there and back, between guest and host (by the user network of each, and by passt where it is installed)
and between two guests (doppel's switch, QEMU's socket). All machines stay up, and each test runs on one right after
the other, so that a host that is busy is busy for all of them.

    bench/networks.py [--rounds N] [--ms N] [--only NAME,...] [--engine NAME] [--output FILE]

PASST in the environment is another passt than the installed one (bench/make-passt fetches Debian 13's), or a program that
runs it with the same options, socket and network.
"""
import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import machines
from machines import Failed, Process, command_line

MEMORY = 256  # MiB
PASST = os.environ.get("PASST", shutil.which("passt") or "")
TESTS = [("send", "stream from the guest", "MB/s"), ("receive", "stream to the guest", "MB/s"),
         ("latency", "a byte there and back", "us")]
# What is to be reached: (test, of doppel's, of QEMU's, least ratio of speed).
TARGETS = [("send", "user", "qemu-user", 3), ("receive", "user", "qemu-user", 3), ("latency", "user", "qemu-user", 1 / 0.7),
           ("send", "user", "qemu-passt", 1.2), ("receive", "user", "qemu-passt", 1.2),
           ("send", "switch", "qemu-socket", 2), ("receive", "switch", "qemu-socket", 2),
           ("latency", "switch", "qemu-socket", 1 / 0.7)]


def qemu(netdev, mac):
    return [machines.QEMU, "-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", f"{MEMORY}M",
            "-kernel", machines.KERNEL, "-initrd", machines.SMALL,
            "-append", f"console=ttyS0 {command_line(machines.AGENT)}", "-nodefaults", "-no-user-config",
            "-nographic", "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line",
            "-netdev", f"{netdev},id=net", "-device", f"virtio-net-pci,netdev=net,mac={mac},disable-legacy=on"]


def doppel(engine, net, mac):
    return [machines.DOPPEL, "run", "--engine", engine, "--memory", f"{MEMORY}M", "--kernel", machines.KERNEL,
            "--initrd", machines.SMALL, "--append", command_line(machines.AGENT), "--net", f"{net},mac={mac}"]


class Guest(machines.Machine):
    """A guest with a network card that has ADDRESS."""

    def __init__(self, argv, address, mtu=None):
        self.kind, self.first, self.last, self.data = None, None, None, ""
        self.memory = MEMORY << 20
        self.process = Process(argv)
        try:
            self._until_ready(machines.START_S)
            self.shell("for m in /lib/modules/$(uname -r)/*virtio_pci*.ko /lib/modules/$(uname -r)/*virtio*.ko "
                       "/lib/modules/$(uname -r)/*failover*.ko /lib/modules/$(uname -r)/*virtio_net*.ko; do "
                       "insmod $m 2>/dev/null; done; ifconfig lo up; "
                       f"ifconfig eth0 {address} netmask 255.255.255.0 {f'mtu {mtu}' if mtu else ''} up; "
                       "route add default gw 10.0.2.2")
        except BaseException:
            self.end()
            raise

    def shell(self, script):
        return self.program("/dev/null", True, ["/bin/sh", "-c", script])[2]

    def client(self, what, address, port, number):
        lines = self.program("/dev/null", True, ["/bench/bench", "net", what, address, str(port), str(number)])[2]
        done = re.fullmatch(r"(\d+) (bytes|times) (\d+) ns", lines[0]) if lines else None
        if not done:
            raise Failed(f"{what}: {' '.join(lines)}")
        return int(done.group(1)), int(done.group(3))

    def serve(self):
        lines = self.shell("/bench/bench net serve >/tmp/port & while ! [ -s /tmp/port ]; do sleep 0.1; done; cat /tmp/port")
        return int(lines[0].split()[1])


class Pair:
    """Two guests on one network: the first one measures, the second one serves."""

    def __init__(self, one, other):
        self.guests = [one, other]
        self.address, self.port = "10.0.2.16", other.serve()


class ToHost:
    """A guest, and the server on the host."""

    def __init__(self, guest, port):
        self.guests, self.address, self.port = [guest], "10.0.2.2", port


class Lab:
    """All machines and what they need."""

    def __init__(self, engine, names):
        self.stack, self.engine, self.names = contextlib.ExitStack(), engine, names
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        os.chmod(self.folder, 0o777)  # passt gives up being root
        self.found = {}

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, argv):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def guest(self, argv, address, mtu=None):
        guest = Guest(argv, address, mtu)
        self.stack.callback(guest.end)
        return guest

    def passt(self, name):
        path = self.path(name)
        self.start([PASST, "-f", "-q", "-s", path, "-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2"])
        end = time.monotonic() + 10
        while not os.path.exists(path):
            if time.monotonic() > end:
                raise Failed("passt does not start")
            time.sleep(0.05)
        return path

    def make(self, name, port):
        mac, other = "52:54:00:12:34:56", "52:54:00:12:34:57"
        if name == "user":
            return ToHost(self.guest(doppel(self.engine, "user", mac), "10.0.2.15"), port)
        if name == "qemu-user":
            return ToHost(self.guest(qemu("user", mac), "10.0.2.15"), port)
        if name == "passt":
            return ToHost(self.guest(doppel(self.engine, f"stream={self.passt(name)}", mac), "10.0.2.15", 65520), port)
        if name == "qemu-passt":
            net = f"stream,server=off,addr.type=unix,addr.path={self.passt(name)}"
            return ToHost(self.guest(qemu(net, mac), "10.0.2.15", 65520), port)
        if name == "switch":
            net = f"switch=bench-{os.getpid()}"
            return Pair(self.guest(doppel(self.engine, net, mac), "10.0.2.15"),
                        self.guest(doppel(self.engine, net, other), "10.0.2.16"))
        nets = [f"stream,server={on},addr.type=unix,addr.path={self.path(name)}" for on in ("on", "off")]
        return Pair(self.guest(qemu(nets[0], mac), "10.0.2.15"), self.guest(qemu(nets[1], other), "10.0.2.16"))

    def open(self):
        server = self.start([machines.PROGRAM, "net", "serve"])
        port = int(server.stdout.readline().split()[1])
        for name in self.names:
            print(f"booting {name}", file=sys.stderr, flush=True)
            self.found[name] = self.make(name, port)


def measure(network, test, ms):
    """MB/s, or microseconds; and the processor's seconds of all its machines for 100 MB or 10,000 times."""
    before = sum(guest.process.processor_ns() for guest in network.guests)
    done, ns = network.guests[0].client(test, network.address, network.port, ms)
    spent = sum(guest.process.processor_ns() for guest in network.guests) - before
    if test == "latency":
        return ns / done / 1e3, spent / done * 1e4 / 1e9
    return done / ns * 1e3, spent / done * 1e8 / 1e9


def run(lab, options):
    results = {}
    for number in range(options.rounds):
        for test, _, _ in TESTS:
            for name in list(lab.found)[::1 if number % 2 == 0 else -1]:
                print(f"round {number + 1}: {test}, {name}", file=sys.stderr, flush=True)
                results.setdefault(test, {}).setdefault(name, []).append(measure(lab.found[name], test, options.ms))
    memory = {name: sum(g.process.beside_guest(g.memory) for g in network.guests) / len(network.guests)
              for name, network in lab.found.items()}
    return results, memory


def show(results, memory, names):
    if any("passt" in name for name in names):
        print(f"passt is {PASST}\n")
    print("| test | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    medians = {test: {name: statistics.median(value for value, _ in found) for name, found in by_name.items()}
               for test, by_name in results.items()}
    for test, what, unit in TESTS:
        print(f"| {what}, {unit} | " + " | ".join(f"{medians[test][name]:.0f}" for name in names) + " |")
        spent = [statistics.median(seconds for _, seconds in results[test][name]) for name in names]
        per = "10,000 times" if test == "latency" else "100 MB"
        print(f"| its processor seconds for {per} | " + " | ".join(f"{s:.2f}" for s in spent) + " |")
    print("| memory beside the guest's, MiB | " + " | ".join(f"{memory[n] / (1 << 20):.0f}" for n in names) + " |\n")
    for test, ours, theirs, least in TARGETS:
        if ours in names and theirs in names:
            ratio = medians[test][ours] / medians[test][theirs]
            ratio = 1 / ratio if test == "latency" else ratio
            print(f"{'reached' if ratio >= least else 'MISSED '}  {test}: {ours} is {ratio:.2f} times as fast as {theirs} "
                  f"(at least {least:.2f})")
    return medians


def main():
    names = ["user", "qemu-user", "passt", "qemu-passt", "switch", "qemu-socket"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ms", type=int, default=2000)
    parser.add_argument("--engine", default="bt")
    parser.add_argument("--quick", action="store_true", help="one round, 300 ms each")
    parser.add_argument("--only", default=",".join(name for name in names if PASST or "passt" not in name))
    parser.add_argument("--output", default=os.path.join(machines.HERE, "results", "networks.json"))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.ms = 1, 300
    chosen = [name for name in names if name in options.only.split(",")]
    try:
        subprocess.run([os.path.join(machines.HERE, "make-image")], check=True)
        if "QEMU" not in os.environ and any(name.startswith("qemu") for name in chosen):
            subprocess.run([os.path.join(machines.HERE, "make-qemu")], check=True)
        lab = Lab(options.engine, chosen)
        with lab.stack:
            lab.open()
            results, memory = run(lab, options)
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
    medians = show(results, memory, chosen)
    os.makedirs(os.path.dirname(options.output), exist_ok=True)
    with open(options.output, "w", encoding="utf-8") as out:
        json.dump({"medians": medians, "all": results, "memory": memory}, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
