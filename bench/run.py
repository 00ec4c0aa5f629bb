#!/usr/bin/python3
"""Measures doppel's engines beside this host itself and QEMU's TCG, in turn: each test on every
machine, then the next test, and all of it again. Writes a table to the terminal, and a table, a plot
and everything measured to bench/results/.
"""
import argparse
import fnmatch
import os
import platform
import signal
import subprocess
import sys
import time

import machines
import report
from machines import Failed, Machine

MEMORY = 1024  # MiB
LONG_S = 3     # what takes longer than this is not repeated
MAX_RESTARTS = 3

# Name, unit, standard input, program and arguments; @ is where the files are. An output that openssl's
# "speed -mr" prints is turned into the time of one operation by OPENSSL.
PROGRAMS = [
    ("sha256sum", "24 MiB", "@blob", ["/usr/bin/sha256sum"]),
    ("gzip", "6 MiB", "@text", ["/bin/gzip", "-6"]),
    ("xz", "6 MiB", "@text", ["/usr/bin/xz", "-1"]),
    ("zstd", "6 MiB", "@text", ["/usr/bin/zstd", "-q", "-6", "-T1"]),
    ("sort", "6 MiB", "@text", ["/usr/bin/sort", "--parallel=1"]),
    ("awk", "6 MiB", "@text",
     ["/usr/bin/mawk", "{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) s += n[w] }"]),
    ("openssl-aes", "16 KiB of AES-256-GCM", "/dev/null",
     ["/usr/bin/openssl", "speed", "-mr", "-seconds", "1", "-bytes", "16384", "-evp",
      "aes-256-gcm"]),
    ("openssl-rsa", "2048-bit signature", "/dev/null",
     ["/usr/bin/openssl", "speed", "-mr", "-seconds", "1", "rsa2048"]),
    ("sqlite3", "script", "@work.sql", ["/usr/bin/sqlite3"]),
    ("lua", "script", "@work.lua", ["/usr/bin/lua5.4", "-"]),
    ("gcc", "one file, -O1", "@large.c",
     ["/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "-fpreprocessed", "-O1", "-o", "/dev/null", "-"]),
]
# Name, unit, what fio is told. Files are in the host's page cache; each guest has one queue.
DISK_TESTS = [
    ("random-read", "4 KiB, 32 at a time", ["--rw=randread", "--bs=4k", "--iodepth=32", "--ioengine=libaio"]),
    ("sequential-read", "1 MiB, 4 at a time", ["--rw=read", "--bs=1M", "--iodepth=4", "--ioengine=libaio"]),
    ("sequential-write", "1 MiB, 4 at a time", ["--rw=write", "--bs=1M", "--iodepth=4", "--ioengine=libaio"]),
    ("flushed-write", "4 KiB and a flush", ["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=1"]),
]
DISK_MS = 2000  # fio measures at least so long
# What is counted per operation, with the name of the test that does it.
KERNEL_PATHS = ["syscall", "page-fault", "context-switch", "timer-tick", "copy-to-user",
                "copy-from-user", "fork", "exec"]
GROUPS = ["boot", "compute", "os", "jit", "programs", "smp", "disks", "kernel"]


class Test:
    """Something to measure, and how to have a machine do it."""

    def __init__(self, name, group, what, cpus=1, program=None, fio=None):
        self.name, self.group, self.what = name, group, what
        self.cpus, self.program, self.fio = cpus, program, fio

    def run(self, machine, ms):
        """Returns what Machine.run does; of a disk's test, the processor's ns for a request last."""
        if self.fio:
            return disk_result(machine, self.fio, max(ms, DISK_MS))
        if not self.program:
            return machine.test(self.name, max(ms, 400) if self.group == "kernel" else ms)
        stdin, words = self.program
        result = machine.program(stdin, words[0].endswith("openssl"), words)
        return (openssl_ns(result[2]), *result[1:]) if result[2] else result


def openssl_ns(lines):
    """The time of one operation, from what "openssl speed -mr" says about its first measurement."""
    for line in lines:
        fields = line.split(":")
        if fields[0] == "+R":  # operations, name, seconds
            return float(fields[3]) / int(fields[1]) * 1e9
        if fields[0] == "+R1":  # operations, bits, seconds
            return float(fields[3]) / int(fields[1]) * 1e9
    raise Failed("openssl speed has not said how fast it is")


def fio(machine, words, ms):
    """Has a guest's fio work for MS. Returns requests, seconds and the processor's ns meanwhile."""
    before = machine.process.processor_ns()
    _, _, lines = machine.program("/dev/null", True, [
        "/usr/bin/fio", "--name=disk", "--thread", "--filename=/dev/vda", "--direct=1", "--time_based",
        f"--runtime={ms}ms", "--output-format=terse", "--terse-version=3", *words])
    spent = machine.process.processor_ns() - before
    fields = next((line.split(";") for line in lines if line.startswith("3;")), None)
    if not fields or fields[4] != "0":
        raise Failed("fio: " + " ".join(lines))
    # Of reads and of writes: KiB moved, KiB/s, requests/s, ms (fio's HOWTO, "Terse output").
    seconds = sum(int(fields[at + 3]) for at in (5, 46)) / 1000
    requests = sum(int(fields[at + 2]) * int(fields[at + 3]) / 1000 for at in (5, 46))
    return requests, seconds, spent


def disk_result(machine, words, ms):
    """The processor time is that of a long run less that of a very short one, which has fio's start, too."""
    few, _, less = fio(machine, words, 10)
    many, seconds, more = fio(machine, words, ms)
    if many <= few:
        raise Failed("fio was not served")
    return seconds * 1e9 / many, round(many), (more - less) / (many - few)


class Progress:
    """One line on the terminal that says what is being done; or nothing, where there is none."""

    def __init__(self, steps):
        self.steps, self.done, self.start = steps, 0, time.monotonic()

    def step(self, what):
        self.done += 1
        self.say(what)

    def say(self, what):
        if sys.stderr.isatty():
            spent = int(time.monotonic() - self.start)
            print(f"\r\033[K[{self.done}/{self.steps}, {spent // 60}:{spent % 60:02}] {what}",
                  end="", file=sys.stderr, flush=True)

    def note(self, text):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(text, file=sys.stderr, flush=True)

    def part(self, text):
        """Enough for where nobody watches."""
        if not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


class Park:
    """The machines, started when they are first needed and started again when they have failed."""

    def __init__(self, progress):
        self.progress, self.running, self.starts = progress, {}, {}

    def get(self, kind, cpus, counting=False, disk=False):
        key = kind.name, cpus if kind.argv else 1, counting, disk
        if key not in self.running:
            if self.starts.get(key, 0) > MAX_RESTARTS:
                raise Failed("has failed too often")
            self.starts[key] = self.starts.get(key, 0) + 1
            self.progress.say(f"booting {kind.name}")
            image = machines.DISKS if disk else machines.LARGE if cpus == 1 else machines.SMALL
            self.running[key] = Machine(kind, cpus, image, MEMORY, counting, disk)
        return self.running[key]

    def drop(self, kind, cpus, counting=False, disk=False):
        machine = self.running.pop((kind.name, cpus if kind.argv else 1, counting, disk), None)
        if machine:
            machine.end()

    def end(self):
        for machine in self.running.values():
            machine.end()
        self.running = {}


class Bench:
    """One run of the benchmark and what it has found."""

    def __init__(self, options, kinds, tests):
        self.options, self.kinds, self.tests = options, kinds, tests
        self.runners = [k for k in kinds if not k.boots_only]
        self.booting = [k for k in kinds if k.argv] if "boot" in options.groups else []
        paths = [t for t in tests if t.name in KERNEL_PATHS and "kernel" in options.groups]
        self.paths = {k: paths for k in self.runners if k.engine and paths}
        steps = options.rounds * (len(tests) * len(self.runners) + len(self.booting)) + \
            len([k for k in self.booting if k.engine]) + sum(map(len, self.paths.values()))
        self.progress = Progress(steps)
        self.park = Park(self.progress)
        self.interrupted = False
        self.results = {
            "machines": [k.name for k in self.runners],
            "engines": [k.name for k in self.runners if k.engine],
            "tests": {t.name: {"group": t.group, "what": t.what, "ns": {}, "ops": {}}
                      for t in tests},
            "boot": {}, "paths": {}, "errors": [], "clock": {}, "disk_bytes": {},
        }

    def failed(self, kind, what, error):
        self.results["errors"].append(f"{kind.name}: {what}: {error}")
        self.progress.note(f"{kind.name}: {what}: {error}")

    def boot_once(self, kind):
        self.progress.step(f"booting {kind.name}")
        try:
            up, shell, _ = machines.boot(kind)
        except Failed as error:
            self.failed(kind, "boot", error)
            return
        found = self.results["boot"].setdefault(kind.name, {"first_ns": [], "shell_ns": []})
        found["first_ns"].append(up)
        found["shell_ns"].append(shell)

    def boot_counting(self, kind):
        self.progress.step(f"counting the boot of {kind.name}")
        try:
            self.results["boot"][kind.name]["statistics"] = machines.boot(kind, counting=True)[2]
        except (Failed, KeyError) as error:
            self.failed(kind, "counting the boot", error)

    def measure(self, kind, test):
        disk = test.fio is not None
        if disk and not kind.argv:
            return
        self.progress.step(f"{test.group}: {test.name} on {kind.name}")
        found = self.results["tests"][test.name]
        times = found["ns"].setdefault(kind.name, [])
        if times and self.too_long(kind, test):
            return
        start = time.monotonic()
        try:
            machine = self.park.get(kind, test.cpus, disk=disk)
            ns, ops, processor = test.run(machine, self.options.ms)
        except (Failed, OSError) as error:
            self.failed(kind, test.name, error)
            self.park.drop(kind, test.cpus, disk=disk)
            return
        times.append(ns)
        if disk:
            found.setdefault("processor_ns", {}).setdefault(kind.name, []).append(processor)
            self.results["disk_bytes"][kind.name] = machine.process.beside_guest(machine.memory)
        found["ops"][kind.name] = ops
        found.setdefault("s", {})[kind.name] = time.monotonic() - start
        self.check_clock(machine, test.cpus)

    def too_long(self, kind, test):
        return not test.fio and self.results["tests"][test.name].get("s", {}).get(kind.name, 0) > LONG_S

    def check_clock(self, machine, cpus):
        drift = machine.drift()
        if drift is not None:
            self.results["clock"].setdefault(machine.kind.name, {})[cpus] = drift

    def count(self, kind, test):
        """What the monitor counts for one operation: for many, less what it counts for few."""
        self.progress.step(f"counting {test.name} on {kind.name}")
        ops = self.results["tests"][test.name]["ops"].get(kind.name)
        if not ops:
            return
        try:
            machine = self.park.get(kind, 1, counting=True)
            # For a gauge the number is a time.
            few, many = (100, 1000) if test.group == "kernel" else (1, max(ops, 2))
            less, few = self.counted(machine, test, few)
            more, many = self.counted(machine, test, many)
        except (Failed, OSError) as error:
            self.failed(kind, f"counting {test.name}", error)
            self.park.drop(kind, 1, counting=True)
            return
        self.results["paths"].setdefault(kind.name, {})[test.name] = {
            cause: max(more[cause] - less[cause], 0) / max(many - few, 1) for cause in more}

    @staticmethod
    def counted(machine, test, number):
        before = machine.statistics()
        ops = machine.operations(test.name, number)[1]
        after = machine.statistics()
        return {"instructions": after["instructions"] - before["instructions"],
                **{cause: after["exits"][cause] - before["exits"][cause]
                   for cause in after["exits"]}}, ops

    def run(self):
        """Measures everything. Even when interrupted, what was found is in self.results."""
        try:
            for number in range(self.options.rounds):
                self.progress.part(f"round {number + 1} of {self.options.rounds}")
                turn = 1 if number % 2 == 0 else -1  # so that none always comes first
                for kind in self.booting[::turn]:
                    self.boot_once(kind)
                for test in self.tests:
                    for kind in self.runners[::turn]:
                        self.measure(kind, test)
            for kind in self.booting:
                if kind.engine:
                    self.boot_counting(kind)
            for kind, tests in self.paths.items():
                for test in tests:
                    self.count(kind, test)
        except KeyboardInterrupt:
            self.interrupted = True
            self.results["errors"].append("interrupted")
        finally:
            self.park.end()
            self.progress.end()


def host():
    """What a reader must know about where the figures come from."""
    cpu = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    def first_line(*argv):
        try:
            run = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
        except OSError:
            return ""
        return run.stdout.split("\n", 1)[0].strip()
    return {
        "cpu": cpu, "cpus": os.cpu_count(), "kernel": platform.release(),
        "doppel": first_line(machines.DOPPEL, "--version"),
        "commit": first_line("git", "-C", machines.ROOT, "describe", "--always", "--dirty"),
        "qemu": first_line(machines.QEMU, "--version") or "no QEMU",
        "load_before": round(os.getloadavg()[0], 2), "time": time.strftime("%Y-%m-%d %H:%M"),
    }


def chosen(only, *names):
    return not only or any(fnmatch.fnmatch(n, pattern) for n in names for pattern in only)


def all_tests():
    native = Machine(machines.kinds()["native"], 1, None, 0)
    try:
        tests = [Test(name, group, what, cpus=2 if group == "smp" else 1)
                 for name, group, _, what in native.list()]
    finally:
        native.end()
    tests += [Test(name, "programs", what, program=(stdin, words))
              for name, what, stdin, words in PROGRAMS]
    tests += [Test(name, "disks", what, fio=words) for name, what, words in DISK_TESTS]
    return sorted(tests, key=lambda test: GROUPS.index(test.group))


def parse(kinds):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", metavar="NAME,...",
                        help=f"machines to measure, of {','.join(kinds)} (default: all)")
    parser.add_argument("--only", metavar="NAME,...",
                        help=f"tests or groups, with wildcards; groups: {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each (default: 3)")
    parser.add_argument("--ms", type=int, default=150, help="how long each, in ms (default: 150)")
    parser.add_argument("--quick", action="store_true", help="one round, 30 ms each")
    parser.add_argument("--output", default=os.path.join(machines.HERE, "results"),
                        help="directory for the results (default: bench/results)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.ms = 1, 30
    if options.rounds < 1 or options.ms < 1:
        parser.error("--rounds and --ms must be at least 1")
    options.only = options.only.split(",") if options.only else []
    options.engines = options.engines.split(",") if options.engines else list(kinds)
    for name in options.engines:
        if name not in kinds:
            parser.error(f"unknown machine '{name}' (known: {', '.join(kinds)})")
    return options


def main():
    try:
        kinds = machines.kinds()
        options = parse(kinds)
        subprocess.run([os.path.join(machines.HERE, "make-image"),
                        *["disks"] * chosen(options.only, "disks", *(t[0] for t in DISK_TESTS))], check=True)
        if "QEMU" not in os.environ and any(kinds[name].emulated for name in options.engines):
            subprocess.run([os.path.join(machines.HERE, "make-qemu")], check=True)
        paths = KERNEL_PATHS if chosen(options.only, "kernel") else []
        tests = [t for t in all_tests() if chosen(options.only, t.name, t.group) or t.name in paths]
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
    options.groups = [g for g in GROUPS if chosen(options.only, g)]
    if not tests and "boot" not in options.groups:
        sys.exit("bench: --only leaves nothing to do")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no machine is left behind
    described = host()
    bench = Bench(options, [kinds[name] for name in kinds if name in options.engines], tests)
    start = time.monotonic()
    bench.run()
    described["seconds"] = round(time.monotonic() - start)
    described["load_after"] = round(os.getloadavg()[0], 2)
    described.update(rounds=options.rounds, ms=options.ms, whole=not options.only and not bench.interrupted)
    bench.results["host"] = described
    report.write(bench.results, options.output)
    sys.exit(1 if bench.results["errors"] else 0)


if __name__ == "__main__":
    main()
