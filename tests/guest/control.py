#!/usr/bin/python3
"""Machines in the background and their control sockets: starting, stopping, killing, listing. The guests are a few
instructions."""
import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

from control_client import Control
from home import PLAIN, home
from vm import (DEBUG_EXIT, DOPPEL, FOREVER, HALT, JUMP_BACK, check, check_complaint, check_run, children, main, multiboot,
                terminal, vm_process, wait_gone, write, write_com1)

# Waits for the power button (ACPI, 4.8.4.1: bit 8 of the status) and goes to S5.
POWERS_OFF = (b"\x66\xba\x00\x06"              # mov $0x600, %dx
              b"\x66\xed\xf6\xc4\x01\x74\xf9"  # 1: in %dx, %ax; test $1, %ah; jz 1b
              b"\x66\xba\x04\x06\x66\xb8\x00\x34\x66\xef" + FOREVER)  # mov $0x604, %dx; mov $0x3400, %ax; out
# Says hello, and then what is typed.
ECHOES = write_com1(b"hello\r\n", b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xfb"  # mov $0x3fd, %dx; 1: in; test $1, %al; jz 1b
                    b"\x66\xba\xf8\x03\xec\xee\xeb\xef")             # mov $0x3f8, %dx; in; out; jmp
PRINTS = write_com1(b"x", JUMP_BACK)
QUIET = "kernel: kernel\ninitrd: ''\nmemory: 16M\n"


def supervisor_of(user, name):
    """The process that holds the lock of a machine's run folder."""
    with open(user.run_folder(name, "lock"), encoding="ascii") as file:
        return int(file.read().split()[0])


def stat(pid):
    """The fields of /proc/PID/stat after the name."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def check_nothing_left(user, name, *pids):
    """Checks that the machine is gone, with its processes."""
    for pid in pids:
        wait_gone(pid)
    check(not os.path.exists(user.run_folder(name)), os.listdir(user.run_folder("")))


@contextlib.contextmanager
def started(user, name, *args):
    """A machine in the background, as its supervisor and VM process, which is ended in the end."""
    check_run(user.run("start", *args, name), 0, b"", b"")
    supervisor = supervisor_of(user, name)
    vm = vm_process(supervisor)
    try:
        yield supervisor, vm
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGKILL)
        wait_gone(supervisor)
        wait_gone(vm)


def background():
    """A machine in the background is apart from who has started it, is listed, logs, powers off, and starts again."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        for _ in range(2):
            with started(user, "web") as (supervisor, vm):
                check(stat(supervisor)[3] == str(supervisor), "not in a session of its own")
                check({os.readlink(f"/proc/{supervisor}/fd/{fd}") for fd in range(2)} == {"/dev/null"}, "streams")
                check(not [fd for pid in (supervisor, vm) for fd in os.listdir(f"/proc/{pid}/fd")
                           if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/dev/pts")], "a terminal is open")
                mode = os.stat(user.run_folder("web", "control.sock")).st_mode
                check(mode & 0o777 == 0o600, oct(mode))
                entry = user.list()["web"]
                check(entry["state"] == "running" and entry["engine"] == "bt" and entry["pid"] == supervisor and
                      entry["memory"] == 16 << 20 and entry["cpus"] == 1 and entry["uptime"] >= 0, entry)
                row = "silent"
                while "silent" in row:
                    row = user.run("list").stdout.decode().splitlines()[1]
                check(re.match(r"web +running +bt +16 MiB +1 +[0-9.]+ +\d+ s ", row), row)
                check_complaint(user.run("start", "web"), "'web' runs", str(supervisor))
                check_run(user.run("stop", "--timeout", "240", "web"), 0, b"web: powered off\n", b"")
                check_nothing_left(user, "web", supervisor, vm)
            check(user.state("web") == "stopped", user.list())
            check_run(user.run("stop", "web"), 0, b"web: did not run\n", b"")
        with open(user.machine("web", "log"), encoding="utf-8") as file:
            check(file.read().count("the guest runs") == 2, "the log is not whole")


def not_kept():
    """A machine that is not kept has a name as long as it runs, and leaves nothing."""
    with home() as user:
        kernel = write(user.path("kernel"), multiboot(FOREVER))
        user.define("web", QUIET, FOREVER)
        options = ["--kernel", kernel, "--initrd", "", "--memory", "16M"]
        check_complaint(user.run("start", "--name", "web", *options), "there is a machine 'web' already")
        check_complaint(user.run("start", "--name", "No", *options), "'No' is not a name")
        check_complaint(user.run("start", "--name", "a", "web"), "--name")
        check_complaint(user.run("start", *options), "no name")
        check_run(user.run("start", "--name", "a", *options), 0, b"", b"")
        supervisor = supervisor_of(user, "a")
        vm = vm_process(supervisor)
        entry = user.list()["a"]
        check(entry["state"] == "running" and not entry["kept"] and entry["memory"] == 16 << 20, entry)
        check_complaint(user.run("start", "--name", "a", *options), "'a' runs already")
        check_run(user.run("kill", "a"), 0, b"a: killed\n", b"")
        wait_gone(supervisor)
        wait_gone(vm)
        check(list(user.list()) == ["web"], user.list())
        check_complaint(user.run("stop", "a"), "no machine 'a'")
        # Of one that has not ended well the log is left, until the next one of that name.
        check(os.listdir(user.run_folder("a")) and b"the guest runs" in user.run("logs", "a").stdout, "no log")
        write(kernel, multiboot(POWERS_OFF))
        check_run(user.run("start", "--name", "a", *options), 0, b"", b"")
        check_run(user.run("stop", "-t", "240", "a"), 0, b"a: powered off\n", b"")
        check_nothing_left(user, "a")


def failures():
    """Who starts a machine is told what doppel run would say, with its status. What fails leaves nothing."""
    with home() as user:
        user.define("web", "kernel: nonesuch\ninitrd: ''\n")
        user.define("bad", "kernel: [x]\n")
        user.define("good", QUIET, FOREVER)
        check_complaint(user.run("start", "web"), "nonesuch", "cannot open the kernel")
        check_complaint(user.run("start", "bad"), "machine.yaml:2")
        check_complaint(user.run("start", "other"), "'other' is no machine")
        check_complaint(user.run("start", "good", "--frob"), "unknown option '--frob'")
        check_complaint(user.run("start", "--memory", "1T", "good", "web"), "unexpected argument 'web'")
        done = user.run("start", "web", "good", "bad")
        check(done.returncode == 125 and done.stderr.count(b"\n") == 2, done)
        check({name: entry["state"] for name, entry in user.list().items()} ==
              {"web": "stopped", "bad": "damaged", "good": "running"}, user.list())
        check(os.listdir(user.run_folder("")) == ["good"], os.listdir(user.run_folder("")))
        check_run(user.run("stop", "-t", "0", "good"), 0, b"good: unplugged\n", b"")


def left_alone():
    """If who starts a machine is killed before its guest runs, nothing is left."""
    with home() as user:
        user.define("web", QUIET, FOREVER)
        os.unlink(user.machine("web", "kernel"))
        os.mkfifo(user.machine("web", "kernel"))
        process = subprocess.Popen([DOPPEL, "start", "web"], env=user.env, stdin=subprocess.DEVNULL)
        while not os.path.exists(user.run_folder("web", "control.sock")):
            time.sleep(0.01)
        supervisor = supervisor_of(user, "web")
        vm = vm_process(supervisor)
        with Control(user.run_folder("web", "control.sock")) as control:
            check(control.call("state")["state"] == "starting", "it has started")
        process.kill()
        process.wait()
        check_nothing_left(user, "web", supervisor, vm)


def stopping():
    """A guest that does not heed the button is unplugged, one whose VM process stands still or hangs is killed, and
    what was done is said."""
    with home() as user:
        user.define("web", QUIET, FOREVER)
        with started(user, "web") as pids:
            check_run(user.run("stop", "-t", "1", "web"), 0, b"web: unplugged, as it did not power off in time\n", b"")
            check_nothing_left(user, "web", *pids)
        with started(user, "web") as pids, Control(user.run_folder("web", "control.sock")) as control:
            control.call("events")
            os.kill(pids[1], signal.SIGSTOP)
            control.wait_event("frozen")
            check(user.state("web") == "frozen", user.list())
            # Its guest has a chance to power off.
            check_run(user.run("stop", "-t", "1", "web"), 0, b"web: unplugged, as it did not power off in time\n", b"")
            check(control.wait_event("ended")["how"] == "unplugged", control.events)
            check_nothing_left(user, "web", *pids)
        for command, said in (["stop", "-t", "0"], b"killed"), (["kill"], b"killed"):
            with started(user, "web") as pids:
                os.kill(pids[1], signal.SIGSTOP)
                over = threading.Event()
                thread = threading.Thread(target=keep_frozen, args=(pids[1], over))
                thread.start()
                done = user.run(*command, "web")
                over.set()
                thread.join()
                check_run(done, 0, b"web: " + said + b"\n", b"")
                check_nothing_left(user, "web", *pids)
        with open(user.machine("web", "log"), encoding="utf-8") as file:
            check("the VM process does not answer" in file.read(), "the log does not tell of the force")


def keep_frozen(pid, over):
    """Stops PID again and again, as a process that hangs."""
    with contextlib.suppress(ProcessLookupError):
        while not over.wait(0.002):
            os.kill(pid, signal.SIGSTOP)


def killed():
    """Whichever process is killed: the others end, the list is right, the machine starts again, and another one
    runs on."""
    with home() as user:
        user.define("web", QUIET, FOREVER)
        user.define("other", QUIET, FOREVER)
        with started(user, "other"):
            with started(user, "web") as pids:
                os.kill(pids[0], signal.SIGKILL)
                for pid in pids:
                    wait_gone(pid)
                check(user.state("web") == "stopped", user.list())
                check_run(user.run("stop", "web"), 0, b"web: did not run\n", b"")
            with started(user, "web") as pids, Control(user.run_folder("web", "control.sock")) as control:
                number = control.send("wait")
                control.call("state")
                os.kill(pids[1], signal.SIGKILL)
                answer = control.answer(number)
                check(answer["result"] == {"how": "died", "status": 128 + signal.SIGKILL}, answer)
                check_nothing_left(user, "web", *pids)
            with started(user, "web") as pids:  # a supervisor that hangs
                os.kill(pids[0], signal.SIGSTOP)
                check(user.list(silent=True)["web"]["state"] == "silent", "it answers")
                check_run(user.run("kill", "web"), 0, b"web: killed, as its supervisor did not answer\n", b"")
                for pid in pids:
                    wait_gone(pid)
            check({name: entry["state"] for name, entry in user.list().items()} ==
                  {"web": "stopped", "other": "running"}, user.list())
        with open(user.machine("web", "log"), encoding="utf-8") as file:
            check("was killed by signal 9" in file.read(), "the log does not tell of the death")


def protocol():
    """Requests, answers and events, and what is refused."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        with started(user, "web") as pids, Control(user.run_folder("web", "control.sock")) as control:
            check(control.hello["name"] == "web", control.hello)
            state = control.call("state")
            check(state["process"] == pids[0] and state["vm_process"] == pids[1] and state["state"] == "running" and
                  state["log"] == user.machine("web", "log") and state["processor_time"] > 0, state)
            control.fails("ENOSYS", "frobnicate")
            for wrong in -1, 86401, "1", None, True, [1]:
                control.socket.sendall(json.dumps({"id": 77, "request": "stop", "arguments": {"timeout": wrong}})
                                       .encode() + b"\n")
                check(control.answer(77)["error"]["code"] == "EINVAL", wrong)
            control.socket.sendall(b'{"id": 78, "request": "events", "arguments": {"on": 1}}\n')
            check(control.answer(78)["error"]["code"] == "EINVAL", "on")
            # What is not known is ignored, and lines may come in pieces and several at once.
            for piece in b'{"id": 79, "new": [', b'{}], "request": "sta', b'te"}\n{"id": 80, "request": "state"}\n':
                control.socket.sendall(piece)
            check(control.answer(79)["result"]["state"] == control.answer(80)["result"]["state"], "pieces")
            control.call("events")
            numbers = [control.send("wait"), control.send("stop", timeout=240), control.send("stop", timeout=239)]
            check(control.wait_event("stopping") and control.wait_event("ended")["how"] == "powered-off", "events")
            for number in numbers:
                check(control.answer(number)["result"] == {"how": "powered-off", "status": 0}, number)
            check(not control.read(), "more was sent after the end")


def clients():
    """Clients that misbehave are sent away, or wait for themselves; the others and the machine do not notice."""
    with home() as user:
        user.define("web", QUIET, FOREVER)
        path = user.run_folder("web", "control.sock")
        with started(user, "web"), Control(path) as good:
            for garbage in b"\n", b"[]\n", b"{}\n", b'{"id": 1}\n', b'{"id": -1, "request": "state"}\n', b"\0\n", \
                    b'{"id": 1, "request": "state", "id": 2}\n', b'{"id": 1, "request": 5}\n', b"[" * 5000 + b"\n", \
                    b'{"id": 1.5, "request": "state"}\n', b'{"id": 1, "request": "state", "arguments": []}\n', \
                    b"x" * 70000:
                with Control(path) as bad:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        bad.socket.sendall(garbage)
                    with contextlib.suppress(ConnectionResetError):
                        check(bad.answer(0)["error"]["code"] in ("EINVAL", "EMSGSIZE"), garbage)
                        check(not bad.read(), "not sent away for", garbage)
                good.call("state")
            # One asks and asks, and never reads.
            deaf = Control(path)
            deaf.socket.settimeout(0.2)
            with contextlib.suppress(socket.timeout):
                while True:
                    deaf.socket.sendall(b'{"id": 1, "request": "state"}\n' * 100)
            good.call("state")
            # Another one lets events pile up, as fast as the machine is frozen and thawed.
            others = []
            with contextlib.suppress(json.JSONDecodeError, ConnectionResetError):
                for _ in range(100):
                    others.append(Control(path))
            check(len(others) == 62, f"{len(others)} clients were let in")
            for other in others:
                other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                other.__exit__()
            with Control(path) as again:
                again.call("state")
            deaf.__exit__()
            good.call("state")
            check_run(user.run("stop", "-t", "0", "web"), 0, b"web: unplugged\n", b"")


def foreground():
    """A machine on a terminal has the same control socket; its user and a stranger can end it."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        with user.running("web") as process:
            check(vm_process(process.pid) == user_state(user, "web")["vm_process"], "another process")
            check_run(user.run("stop", "-t", "240", "web"), 0, b"web: powered off\n", b"")
            check(process.wait(60) == 0, process.returncode)
        user.define("web", PLAIN + "memory: 16M\n", HALT)
        with user.running("web") as process:
            check_run(user.run("kill", "web"), 0, b"web: killed\n", b"")
            check(process.wait(60) in (137, 128 + signal.SIGKILL), process.returncode)


def user_state(user, name):
    """What a machine says of itself."""
    with Control(user.run_folder(name, "control.sock")) as control:
        return control.call("state")


def ends():
    """How a machine has ended that ends by itself."""
    with home() as user:
        cases = [(POWERS_OFF, "powered-off", 0), (DEBUG_EXIT % 5, "debug-exit", 11),
                 (b"\x0f\x01\x1d\0\0\0\0\xcc", "crashed", 125)]
        for code, how, status in cases:
            # The guest waits for the power button first.
            user.define("web", PLAIN + "memory: 16M\n", POWERS_OFF[:11] + code)
            with started(user, "web") as pids, Control(user.run_folder("web", "control.sock")) as control:
                answer = control.call("stop", timeout=240)
                check(answer == {"how": how, "status": status}, answer)
                check_nothing_left(user, "web", *pids)


def pausing():
    """A machine that is paused uses no processor, can be stopped, and one that is frozen says so."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        check_complaint(user.run("pause", "web"), "'web' does not run")
        with started(user, "web") as pids, Control(user.run_folder("web", "control.sock")) as control:
            control.call("events")
            check_run(user.run("pause", "web"), 0, b"", b"")
            check(control.wait_event("paused") and user.state("web") == "paused", user.list())
            used = control.call("state")["processor_time"]
            time.sleep(0.3)
            check(control.call("state")["processor_time"] - used < 0.1, "it works on")
            control.call("pause")
            check_run(user.run("resume", "web"), 0, b"", b"")
            check(control.wait_event("resumed") and user.state("web") == "running", user.list())
            statistics = control.call("statistics")
            check(statistics["elapsed"] > 0 and statistics["process_memory"] > 0, statistics)
            control.fails("ENODEV", "network", settings="delay=1", card=0)
            control.fails("EINVAL", "network")
            control.fails("EINVAL", "console-size", rows=-1)
            control.call("console-size", rows=10, columns=20)
            os.kill(pids[1], signal.SIGSTOP)
            control.wait_event("frozen")
            control.fails("EAGAIN", "pause")
            os.kill(pids[1], signal.SIGCONT)
            control.wait_event("thawed")
            control.call("pause")
            check_run(user.run("stop", "-t", "240", "web"), 0, b"web: powered off\n", b"")
            check_nothing_left(user, "web", *pids)


def logs():
    """The log of a machine that runs and of one that has ended, followed to the end, over what was before it."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        check_complaint(user.run("logs", "web"), "cannot open the log", "No such file")
        check_complaint(user.run("logs", "other"), "no machine 'other'")
        with started(user, "web"):
            process = subprocess.Popen([DOPPEL, "logs", "-f", "web"], env=user.env, stdout=subprocess.PIPE)
            check(b"the VM process is" in process.stdout.readline(), "not the first line")
            check_run(user.run("stop", "-t", "240", "web"), 0)
            said = process.communicate(timeout=60)[0]
            check(process.returncode == 0 and b"the VM process ended with status 0" in said, said)
        done = user.run("logs", "web")
        check(done.returncode == 0 and done.stdout.endswith(said), done, said)
        with open(user.machine("web", "log.1"), "wb") as file:
            file.write(b"older \x1b[31m\n")
        check(user.run("logs", "web").stdout == b"older ?[31m\n" + done.stdout, "the older lines")


def events():
    """Events as lines and as JSON, of one machine and of all."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        check_run(user.run("events"), 0, b"", b"")
        with started(user, "web"):
            processes = [subprocess.Popen([DOPPEL, "events", *args], env=user.env, stdout=subprocess.PIPE)
                         for args in ([], ["--json", "web"])]
            with Control(user.run_folder("web", "control.sock")) as control:
                # Until both have asked for events: what is written then comes from both.
                while not all(select.select([process.stdout], [], [], 0)[0] for process in processes):
                    control.call("pause")
                    control.call("resume")
            check_run(user.run("stop", "-t", "240", "web"), 0)
            lines, texts = [process.communicate(timeout=60)[0].decode().splitlines() for process in processes]
            check(re.search(r"^[0-9-]+ [0-9:]+  web +(paused|resumed)$", lines[0]), lines)
            check(lines[-1].endswith("ended: powered-off") and [p.returncode for p in processes] == [0, 0], lines)
            check(json.loads(texts[-1])["how"] == "powered-off" and json.loads(texts[0])["name"] == "web", texts)


def console():
    """The console of a machine in the background, on a terminal: what was printed before, keys, and the way out, which
    leaves the terminal as it was and the machine running."""
    with home() as user:
        user.define("web", QUIET, ECHOES)
        check_complaint(user.run("console", "web"), "'web' does not run")
        with user.running("web"):
            check_complaint(user.run("console", "web"), "not started in the background")
        with started(user, "web") as pids:
            for text in b"first", b"second":
                with terminal("console", "web", env=user.env) as term:
                    term.expect(b"hello\r\n")
                    term.wait_raw()
                    term.send(text + b"\x01\x01")
                    term.expect(text + b"\x01")
                    term.send(b"\x01h")
                    term.expect(b"Ctrl-A D +leave")
                    term.resize(30, 90)
                    term.send(b"\x01d")
                    check(term.wait() == 0, "status")
                    term.check_restored()
            with terminal("console", "web", env=user.env) as term:
                term.expect(b"first\x01second\x01")
                term.process.send_signal(signal.SIGTERM)
                check(term.wait() == 128 + signal.SIGTERM, "status")
                term.check_restored()
            with terminal("console", "web", env=user.env) as term:
                term.expect(b"second")
                check_run(user.run("kill", "web"), 0)
                check(term.wait() == 0 and b"'web' has ended" in term.seen, term.seen)
                term.check_restored()
            check_nothing_left(user, "web", *pids)


def slow_console():
    """A client of the console that reads nothing, and one that goes away in the middle, hold nobody up."""
    with home() as user:
        user.define("web", QUIET, PRINTS)
        with started(user, "web"):
            deaf, other = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
            for client in deaf, other:
                client.connect(user.run_folder("web", "console.sock"))
                client.settimeout(120)
            for client in [other] + [socket.socket(socket.AF_UNIX) for _ in range(20)]:
                if client is not other:
                    client.connect(user.run_folder("web", "console.sock"))
                    client.close()
            # More than the deaf one's socket and the ring hold.
            left = 2 << 20
            while left > 0:
                data = other.recv(65536)
                check(data and set(data) == {ord("x")}, "the console has ended:", data[:20])
                left -= len(data)
            check(user.state("web") == "running", user.list())
            check_run(user.run("stop", "-t", "0", "web"), 0, b"web: unplugged\n", b"")
            deaf.close()
            other.close()


def restarting():
    """Restarts that are asked for: with a definition that has changed meanwhile, of a machine that does not run, of
    one on a terminal, and one that fails."""
    with home() as user:
        user.define("web", QUIET, POWERS_OFF)
        check_run(user.run("restart", "web"), 0, b"", b"")
        supervisor = supervisor_of(user, "web")
        vm = vm_process(supervisor)
        with Control(user.run_folder("web", "control.sock")) as control:
            control.call("events")
            number = control.send("wait")
            user.define("web", QUIET.replace("16M", "32M"), POWERS_OFF)
            check_run(user.run("restart", "-t", "240", "web"), 0, b"", b"")
            check(control.wait_event("ended")["how"] == "powered-off" and control.wait_event("started"), "events")
            wait_gone(vm)
            entry = user.list()["web"]
            check(entry["memory"] == 32 << 20 and entry["pid"] == supervisor and entry["state"] == "running", entry)
            user.define("web", "kernel: [x]\n", POWERS_OFF)
            check_complaint(user.run("restart", "-t", "240", "web"), "not started anew", "doppel logs")
            check(control.answer(number)["result"] == {"how": "failed", "status": 125}, "the end")
        check_nothing_left(user, "web", supervisor)
        check(b"machine.yaml:2: a text is expected" in user.run("logs", "web").stdout, "the log does not tell why")
        user.define("web", QUIET, POWERS_OFF)
        with user.running("web"):
            check_complaint(user.run("restart", "web"), "on the terminal of process")
        check_complaint(user.run("restart", "other"), "'other' is no machine")


def policies():
    """Machines that are started anew when they end: on failure only, later and later, until somebody stops them."""
    with home() as user:
        check_complaint(user.run("start", "--name", "a", "--restart", "often"), "'often'")
        user.define("web", QUIET, FOREVER)
        check_complaint(user.run("run", "web", "--restart", "always"), "only doppel start")
        with started(user, "web", "--restart", "on-failure") as pids, \
                Control(user.run_folder("web", "control.sock")) as control:
            control.call("events")
            delays = []
            for _ in range(2):
                os.kill(vm_process(pids[0]), signal.SIGKILL)
                check(control.wait_event("ended")["how"] == "died", control.events)
                delays.append(control.wait_event("restarting")["delay"])
                control.wait_event("started")
            check(delays == [1, 2], delays)
            os.kill(vm_process(pids[0]), signal.SIGKILL)
            control.wait_event("restarting")
            check(user.state("web") == "restarting", user.list())
            check_run(user.run("stop", "web"), 0)
            check_nothing_left(user, "web", *pids)
        user.define("web", QUIET, POWERS_OFF)
        for policy in "on-failure", "always":
            check_run(user.run("start", "web", "--restart", policy), 0, b"", b"")
            supervisor = supervisor_of(user, "web")
            check_run(user.run("stop", "-t", "240", "web"), 0, b"web: powered off\n", b"")
            check_nothing_left(user, "web", supervisor)
        # A guest that powers itself off does so with success.
        user.define("web", PLAIN + "memory: 16M\n", POWERS_OFF[:11] + DEBUG_EXIT % 5)
        with started(user, "web", "--restart", "always", "--rm") as pids, \
                Control(user.run_folder("web", "control.sock")) as control:
            control.call("events")
            check_run(user.run("stop", "-t", "240", "web"), 0, b"web: ended\n", b"")
            check_nothing_left(user, "web", *pids)
        check(user.list() == {} and os.listdir(user.machine("")) == [".lock"], os.listdir(user.machine("")))


def autostart():
    """Machines that are enabled are started together, and all that run are stopped."""
    with home() as user:
        for name in "a", "b", "c":
            user.define(name, QUIET + "restart: always\n", POWERS_OFF)
        check_run(user.run("start", "--all"), 0, b"", b"")
        check_run(user.run("enable", "a", "b", "c"), 0, b"", b"")
        check_run(user.run("disable", "c"), 0, b"", b"")
        check_run(user.run("disable", "c"), 0, b"", b"")
        check_complaint(user.run("enable", "other"), "no machine 'other'")
        check_run(user.run("rename", "b", "d"), 0)
        for _ in range(2):
            check_run(user.run("start", "--all"), 0, b"", b"")
            check({name: (entry["state"], entry["autostart"]) for name, entry in user.list().items()} ==
                  {"a": ("running", True), "c": ("stopped", False), "d": ("running", True)}, user.list())
        supervisor = supervisor_of(user, "d")
        with Control(user.run_folder("d", "control.sock")) as control:
            control.call("events")
            os.kill(vm_process(supervisor), signal.SIGKILL)
            control.wait_event("restarting")
            control.wait_event("started")
        for line in ["start", "--all", "a"], ["run", "--all"], ["start", "--all", "--memory", "16M"]:
            check_complaint(user.run(*line), "--all")
        check_complaint(user.run("stop", "--all", "a"), "--all")
        done = user.run("stop", "--all", "-t", "240")
        check_run(done, 0, b"a: powered off\nd: powered off\n", b"")
        check_nothing_left(user, "d", supervisor)
        check_run(user.run("stop", "--all"), 0, b"", b"")
        check_run(user.run("rm", "--force", "a", "c", "d"), 0)


def several():
    """Some machines at once: started, listed and stopped together."""
    with home() as user:
        names = [f"m{i}" for i in range(6)]
        for name in names:
            user.define(name, QUIET, FOREVER)
        check_run(user.run("start", *names), 0, b"", b"")
        pids = [supervisor_of(user, name) for name in names]
        pids += [vm_process(pid) for pid in pids]
        check({entry["state"] for entry in user.list().values()} == {"running"}, user.list())
        done = user.run("stop", "-t", "1", *names)
        check(done.returncode == 0 and done.stdout.count(b": unplugged") == 6 and not done.stderr, done)
        for name in names:
            check_nothing_left(user, name, *pids)
        check(not any(children(pid) for pid in pids), "processes are left")


main(background, not_kept, failures, left_alone, stopping, killed, protocol, clients, foreground, ends, pausing, logs,
     events, console, slow_console, restarting, policies, autostart,
     several)
