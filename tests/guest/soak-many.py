#!/usr/bin/python3
"""Many machines, and one many times: nothing is left of them, others live, and the list is right and quick.

    soak-many.py DOPPEL [MACHINES [CYCLES [KILLS]]]

- MACHINES (40) default guests with 96 MiB are started at once, listed and stopped;
- one machine is started and stopped CYCLES (1000) times;
- one of its processes is killed at a random moment KILLS (200) times, with another machine beside it.
"""
import os
import random
import subprocess
import sys
import time

from home import home
from vm import DOPPEL, FOREVER, Failure, check, check_run, children, guest, vm_process, wait_gone

KERNEL = "kernel: kernel\ninitrd: ''\nmemory: 16M\n"
LIST_S = 0.2


def ours(user):
    """The processes that have the user's folders in their environment."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if user.runtime.encode() in file.read():
                    with open(f"/proc/{pid}/cmdline", "rb") as words:
                        found[int(pid)] = words.read().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def check_nothing(user, kept=()):
    """Checks that there are no processes but those KEPT, and no run folders."""
    end = time.monotonic() + 30
    while left := {pid: words for pid, words in ours(user).items() if pid not in kept}:
        check(time.monotonic() < end, "processes are left:", left)
        time.sleep(0.05)


def supervisor_of(user, name):
    """The process that holds the lock of a machine's run folder, or None."""
    try:
        with open(user.run_folder(name, "lock"), encoding="ascii") as file:
            return int(file.read().split()[0])
    except (OSError, IndexError):
        return None


def quick_list(user):
    """The median of five lists, in seconds, and the last of them."""
    times = []
    for _ in range(5):
        start = time.monotonic()
        listed = user.list(silent=True)
        times.append(time.monotonic() - start)
    return sorted(times)[2], listed


def wait_idle(user):
    """Waits until the guests have booted and use less than half a processor in all."""
    def used():
        return sum(entry.get("processor_time", 0) for entry in user.list().values())

    end, before = time.monotonic() + 600, used()
    while True:
        time.sleep(2)
        after = used()
        if after - before < 1:
            return
        check(time.monotonic() < end, "the guests do not come to rest")
        before = after


def many(count):
    """COUNT default guests at once."""
    guest("initrd.img")
    with home() as user:
        names = [f"m{number}" for number in range(count)]
        start = time.monotonic()
        starts = [subprocess.Popen([DOPPEL, "start", "--name", name, "--memory", "96M"], env=user.env,
                                   stdin=subprocess.DEVNULL) for name in names]
        for process in starts:
            check(process.wait(600) == 0, "a machine did not start")
        begun = time.monotonic() - start
        busy, listed = quick_list(user)
        check(sorted(listed) == sorted(names), sorted(listed))
        wait_idle(user)
        took, listed = quick_list(user)
        print(f"{count} machines: started in {begun:.1f} s, listed in {busy:.3f} s while they boot and in {took:.3f} s "
              "afterwards", flush=True)
        check({entry["state"] for entry in listed.values()} == {"running"}, listed)
        check(took < LIST_S, f"the list took {took:.3f} s")
        start = time.monotonic()
        done = user.run("stop", "-t", "2", *names)
        check(done.returncode == 0 and done.stdout.count(b"\n") == count, done)
        print(f"stopped in {time.monotonic() - start:.1f} s", flush=True)
        check_nothing(user)
        check(user.list() == {}, user.list())


def cycles(count):
    """One machine, COUNT times."""
    with home() as user:
        user.define("web", KERNEL, FOREVER)
        for number in range(count):
            check_run(user.run("start", "web"), 0, b"", b"")
            if number % 50 == 0:
                check(user.state("web") == "running", user.list())
            check_run(user.run("stop", "-t", "0", "web"), 0)
        check_nothing(user)
        check(os.listdir(user.run_folder("")) == [], os.listdir(user.run_folder("")))
        check(sorted(os.listdir(user.machine("web"))) in (["kernel", "lock", "log", "machine.yaml"],
              ["kernel", "lock", "log", "log.1", "machine.yaml"]), os.listdir(user.machine("web")))


def kills(count):
    """One of the processes of a machine is killed, COUNT times."""
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"kills: seed {seed}", flush=True)
    chance = random.Random(seed)
    with home() as user:
        user.define("web", KERNEL, FOREVER)
        user.define("other", KERNEL, FOREVER)
        check_run(user.run("start", "other"), 0)
        other = supervisor_of(user, "other")
        kept = {other, vm_process(other)}
        for _ in range(count):
            start = subprocess.Popen([DOPPEL, "start", "web"], env=user.env, stdin=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
            time.sleep(chance.random() * 0.1)
            pids = list(set(ours(user)) - kept)
            if pids:
                try:
                    os.kill(chance.choice(pids), 9)
                except ProcessLookupError:
                    pass
            start.wait(120)
            pid = supervisor_of(user, "web")
            state = user.state("web")
            check(state in ("running", "stopped", "starting", "stopping"), state)
            user.run("kill", "web")
            if pid:
                wait_gone(pid)
            check_nothing(user, kept)
            check(user.state("web") == "stopped" and user.state("other") == "running", user.list())
        check_run(user.run("start", "web"), 0, b"", b"")
        check_run(user.run("kill", "web", "other"), 0)
        check_nothing(user)
        check(not children(os.getpid()), "children are left")


def main():
    numbers = [int(word) for word in sys.argv[2:]] + [None] * 3
    failed = 0
    for test, number, usual in (many, numbers[0], 40), (cycles, numbers[1], 1000), (kills, numbers[2], 200):
        start = time.monotonic()
        try:
            test(usual if number is None else number)
            result = "ok"
        except Failure as failure:
            failed += 1
            result = f"FAILED: {failure}"
        print(f"{test.__name__}: {result} ({time.monotonic() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else 0)


main()
