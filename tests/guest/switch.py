#!/usr/bin/python3
"""Networks that processes of their own serve: machines on a virtual switch reach each other by name,
the switch is started again when it is killed and ends with the last machine, and so does an isolated
user network.

    switch.py DOPPEL [TEST...]
"""
import contextlib
import os
import re
import signal
import subprocess
import time

from vm import DOPPEL, check, check_complaint, children, environment, main, run, scratch, wait_gone, write

MACHINES = ["web", "db", "mail", "cache"]
# Reaches everyone by name, says how long that took, and says so at the end of each round. Each line on
# standard input begins another round.
TALK = """
round() {
    for name in %s; do
        until line=$(ping -c 1 -W 2 $name.doppel.internal | grep time=); do sleep 0.1; done
        echo "$name $line"
    done
    echo done
}
round
while read -r line; do round; done
"""


def surroundings(place):
    """The environment with a folder for sockets of this test's own."""
    return {**environment(), "XDG_RUNTIME_DIR": place("")}


def users(path):
    """The processes that have the file PATH open."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") == path for fd in os.listdir(f"/proc/{pid}/fd")):
                found.append(int(pid))
    return found


class Machine:
    """A machine that talks."""
    def __init__(self, script, *options, env):
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen([DOPPEL, "run", *options, "--", "sh", "-c", script], env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def listen(self):
        """What it says up to the end of a round."""
        lines = []
        for line in self.process.stdout:
            if line == "done\n":
                return lines
            lines.append(line.rstrip())
        check(False, f"a machine ended after {lines}")
        return lines

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.read()
        check(self.process.wait() == 0, f"a machine ended with {self.process.returncode}")

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def machines(commands, env):
    """Machines that run COMMANDS, pairs of a script and options; they are gone at the end."""
    started = []
    try:
        for script, options in commands:
            started.append(Machine(script, *options, env=env))
        yield started
    finally:
        for machine in started:
            machine.kill()


def switch():
    with scratch() as place:
        env = surroundings(place)
        lock = place("doppel/.switch/lan.lock")
        commands = [(TALK % " ".join(m for m in MACHINES if m != name),
                     ["--memory", "128M", "--net", f"switch=lan,hostname={name},delay=10ms"])
                    for name in MACHINES]
        with machines(commands, env) as all_of_them:
            for machine in all_of_them:
                for line in machine.listen():
                    took = float(re.search(r"time=([0-9.]+)", line).group(1))
                    check(took >= 20, f"a round trip of 20 ms took less: {line}")
            check_complaint(run("run", "--net", "switch=lan,hostname=db", "--", "true", env=env),
                            "a machine 'db' on the switch already")
            found = users(lock)
            check(len(found) == 1, f"{len(found)} processes have the switch's lock")
            os.kill(found[0], signal.SIGKILL)
            for machine in all_of_them:
                machine.go_on()
            for machine in all_of_them:
                machine.listen()
            again = users(lock)
            check(len(again) == 1 and again != found, f"the switch was {found} and is {again}")
            for machine in all_of_them:
                machine.end()
        wait_gone(again[0])
        check(not os.path.exists(place("doppel/.switch/lan.sock")),
              "the switch has left its socket")


def isolate():
    with scratch() as place:
        script = """
            round() { until ping -c 1 -W 2 10.0.2.2 >/dev/null; do sleep 0.1; done; echo done; }
            round; while read -r line; do round; done"""
        with machines([(script, ["--net", "user,isolate=on"])], surroundings(place)) as (machine,):
            machine.listen()
            own = [p for p, name in children(machine.process.pid).items() if name == "doppel-net"]
            check(len(own) == 1, f"the networks' processes are {own}")
            os.kill(own[0], signal.SIGKILL)
            machine.go_on()
            machine.listen()
            again = [p for p, name in children(machine.process.pid).items() if name == "doppel-net"]
            check(len(again) == 1 and again != own, f"the process was {own} and is {again}")
            machine.end()
            wait_gone(again[0])


def refused():
    """What cannot be had is told in one line, also by another process."""
    with scratch() as place:
        env = surroundings(place)
        write(place("doppel"), b"")
        check_complaint(run("run", "--net", "switch=lan", "--", "true", env=env), "doppel is not a folder")
        os.unlink(place("doppel"))
        check_complaint(run("run", "--net", "user,isolate=on,tftp=./is-not-there", "--", "true", env=env),
                        "tftp=./is-not-there is no folder")
        check_complaint(run("run", "--net", "switch=a.b", "--", "true", env=env), "a switch's name")
        started = time.monotonic()
        check_complaint(run("run", "--net", "switch=" + 41 * "a", "--", "true", env=env), "is not a name")
        check(time.monotonic() - started < 60, "it took long to say so")


if __name__ == "__main__":
    main(switch, isolate, refused)
