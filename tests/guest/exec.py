#!/usr/bin/python3
"""doppel exec: commands in guests that run, by their agent; agents that do not keep to the protocol; and guests that
have none."""
import json
import os
import re
import signal
import struct
import subprocess
import threading
import time

from agent_rig import AGENT_PORT, HELLO, Machine, frame, machine, played, saying
from vm import BOOT_TIMEOUT, check, check_complaint, check_run, main, scratch, write


# ---- The default guest ----


def commands(vm):
    """Streams, exit statuses, and what the options say."""
    check_run(vm.exec("sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in"), 7, b"in", b"err\n")
    check_run(vm.exec("sh", "-c", "kill -9 $$"), 137, b"", b"")
    check_run(vm.exec("echo", "a  b", "it's", "$x", ""), 0, b"a  b it's $x \n", b"")
    check_complaint(vm.exec("nonesuch"), "nonesuch: No such file", status=127)
    check_complaint(vm.exec("/etc"), "/etc: Permission denied", status=126)
    check_complaint(vm.exec("true", options=["-w", "/nonesuch"]), "/nonesuch: No such file", status=126)
    check_complaint(vm.exec("true", options=["-u", "nobody"]), "no user 'nobody'", status=126)
    check_run(vm.exec("sh", "-c", "pwd; echo $HOME $USER; id -u"), 0, b"/root\n/root root\n0\n", b"")
    vm.exec("sh", "-c", "mkdir /tmp/me; echo me:x:1234:55::/tmp/me: >>/etc/passwd; echo crew:x:77:you,me >>/etc/group")
    done = vm.exec("sh", "-c", "pwd; id -u; id -g; id -G; echo $A $B", options=["-ume", "-e", "A=x y", "--env=B=$z"])
    lines = done.stdout.split(b"\n")
    check(lines[:5] == [b"/tmp/me", b"1234", b"55", b"55 77", b"x y $z"], done)
    check_run(vm.exec("sh", "-c", "id -u; id -g; pwd", options=["-u", "5:6", "-w", "/tmp"]), 0, b"5\n6\n/tmp\n", b"")
    vm.env["GIVEN"] = "from here"
    check_run(vm.exec("sh", "-c", "echo $GIVEN $HOME", options=["-e", "GIVEN", "-e", "NONESUCH", "-nT"], stdin=b"x"), 0,
              b"from here /root\n", b"")
    check_run(vm.exec("cat", options=["-n"], stdin=b"not to be read"), 0, b"", b"")
    # What goes on in the background is not waited for.
    check_run(vm.exec("sh", "-c", "echo done; sleep 100000 & echo $! >/tmp/pid"), 0, b"done\n", b"")
    check_run(vm.exec("sh", "-c", "kill $(cat /tmp/pid)"), 0, b"", b"")
    check_run(vm.run("exec", "web", stdin=b"echo $0; exit 3\n"), 3, b"-sh\n", b"")  # a shell
    long = [f"{number:0999}" for number in range(300)]
    check_run(vm.exec("sh", "-c", "echo $#", *long), 0, b"299\n", b"")


def terminals(vm):
    """On a terminal: keys, its size, signals, and the settings afterwards."""
    with vm.terminal("web", "--", "sh", "-c", "stty size; tty; read x; echo [$x]; read y") as term:
        term.expect(rb"24 80\r\n/dev/pts/\d+\r\n")
        check(term.raw(), "the terminal is not raw")
        term.send(b"abc\r")
        term.expect(rb"abc\r\n\[abc\]\r\n")
        term.send(b"\x03")
        check(term.wait() == 130, term.process.returncode)
        term.check_restored()
    with vm.terminal("web", "--", "sh", "-c", "trap 'stty size; exit 4' WINCH; echo ready; sleep 100000 & wait") as term:
        term.expect(rb"ready")
        term.resize(50, 132)
        term.expect(rb"50 132")
        check(term.wait() == 4, term.process.returncode)
    with vm.terminal("web") as term:  # a shell
        term.expect(rb"# ")
        term.send(b"echo $TERM-$((6*7)); exit 9\r")
        term.expect(rb"vt100-42\r\n")
        check(term.wait() == 9, term.process.returncode)
        term.check_restored()
    # Whatever ends doppel, the terminal is the user's again.
    for number in signal.SIGTERM, signal.SIGHUP:
        with vm.terminal("web", "--", "sh", "-c", "trap '' TERM INT; echo ready; sleep 100000") as term:
            term.expect(rb"ready")
            term.process.send_signal(number)
            while number == signal.SIGTERM and term.process.poll() is None:  # the first one is the command's
                term.process.send_signal(number)
                time.sleep(0.05)
            check(term.wait() == 128 + number, term.process.returncode)
            term.check_restored()
    with vm.terminal("web", "--", "sh", "-c", "echo ready; sleep 100000") as term:
        term.expect(rb"ready")
        term.process.kill()
        check(term.wait() == -signal.SIGKILL, term.process.returncode)
        term.check_restored(BOOT_TIMEOUT)
    # It is stopped, and goes on.
    with vm.terminal("web", "--", "sh", "-c", "echo ready; read x; echo got $x") as term:
        term.expect(rb"ready")
        term.process.send_signal(signal.SIGTSTP)
        os.waitpid(term.process.pid, os.WUNTRACED)
        term.check_restored()
        term.process.send_signal(signal.SIGCONT)
        term.wait_raw()
        term.send(b"more\r")
        term.expect(rb"got more")
        check(term.wait() == 0, term.process.returncode)
    check_run(vm.exec("sh", "-c", "tty; read x; echo $x; read x || echo end", options=["-t"], stdin=b"a\n"), 0, stderr=b"")
    with vm.terminal("-T", "web", "--", "tty") as term:
        term.expect(rb"not a tty")
        check(term.wait() == 1, term.process.returncode)


def signals(vm):
    """Signals reach the command; a client that goes away takes it along."""
    script = "for s in INT TERM USR1; do trap \"echo $s\" $s; done; trap 'exit 5' USR2; echo ready; while :; do sleep 1; done"
    process = vm.popen("sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    check(process.stdout.readline() == b"ready\n", "it does not begin")
    for name in "INT", "TERM", "USR1":
        process.send_signal(getattr(signal, "SIG" + name))
        check(process.stdout.readline() == name.encode() + b"\n", name)
    process.send_signal(signal.SIGUSR2)
    check(process.wait(BOOT_TIMEOUT) == 5, process.returncode)
    for script in "echo ready; sleep 100001", "echo ready; sleep 100001 & sleep 100001; true":
        process = vm.popen("sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        check(process.stdout.readline() == b"ready\n", "it does not begin")
        vm.await_guest("ps | grep 'sleep 10000[1]'")
        process.kill()
        process.wait()
        vm.await_guest("! ps | grep 'sleep 10000[1]'")
    # So does one whose output is read by nobody any more, as SIGPIPE would.
    process = vm.popen("yes", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    check(process.stdout.read(10) == b"y\n" * 5, "other output")
    process.stdout.close()
    check(process.wait(BOOT_TIMEOUT) == 141, process.returncode)
    vm.await_guest("! ps | grep ' ye[s]$'")


def resident(pid):
    """How many KiB of memory a process has."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s*(\d+)", file.read())[1])


def flows(vm):
    """A reader that is slow holds up the writer, and nothing is kept but some windows; either stream goes on without
    the other."""
    size = 40 << 20
    process = vm.popen("sh", "-c", f"dd if=/dev/zero bs=64k count={size >> 16} 2>/dev/null; echo end >&2",
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check(process.stdout.read(1) == b"\0", "no output")
    vm.await_guest("ps | grep ' d[d] '")
    time.sleep(0.5)
    check_run(vm.exec("echo", "beside"), 0, b"beside\n", b"")
    vm.await_guest("ps | grep ' d[d] '")  # it waits
    check(resident(process.pid) < 16384, "memory:", resident(process.pid))
    count = 1
    while chunk := process.stdout.read(1 << 20):
        count += len(chunk)
    check(count == size and process.stderr.read() == b"end\n" and process.wait(60) == 0, count)
    # Input that nobody reads.
    check_run(vm.exec("mkfifo", "/tmp/go"), 0, b"", b"")
    process = vm.popen("sh", "-c", "echo ready; read x </tmp/go; cat | md5sum", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    data = os.urandom(1 << 20) * 8
    writer = threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.close()))
    writer.start()
    vm.exec("sh", "-c", "echo go >/tmp/go")
    writer.join()
    digest = subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout
    check(process.stdout.read() == b"ready\n" + digest and process.wait(60) == 0, "other input")
    # A command that reads no input ends all the same.
    check_run(vm.exec("true", stdin=data), 0, b"", b"")
    # Standard output is stuck, and standard error is not.
    process = vm.popen("sh", "-c", "cat /dev/zero & sleep 1; echo heard >&2; kill $!; exit 0", stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check(process.stderr.readline() == b"heard\n", "standard error is held up")
    process.kill()
    process.communicate()


def many(vm):
    """A hundred at once."""
    running = [vm.popen("sh", "-c", f"read x; echo $x-{number}; exit {number}", stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE) for number in range(100)]
    for number, process in enumerate(running):
        process.stdin.write(b"line %d\n" % number)
        process.stdin.close()
    for number, process in enumerate(running):
        check(process.stdout.read() == b"line %d-%d\n" % (number, number), number)
        check(process.wait(BOOT_TIMEOUT) == number, number, process.returncode)


# The agent is the child of process 1 whose program is init's, too.
KILL_AGENT = """
for stat in /proc/[2-9]*/stat /proc/1?*/stat; do
    read pid name state parent rest <$stat 2>/dev/null || continue
    [ "$parent" != 1 ] || [ "$(readlink /proc/$pid/exe)" != /init ] || kill -9 $pid
done
"""


def agent_ends(vm):
    """An agent that is killed is started again, and what it had started goes on."""
    process = vm.popen("sh", "-c", "echo ready; read x; echo $x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    check(process.stdout.readline() == b"ready\n", "it does not begin")
    check_run(vm.exec("sh", "-c", KILL_AGENT), 0, b"", b"")
    check_run(vm.exec("echo", "again"), 0, b"again\n", b"")
    process.stdin.write(b"still\n")
    process.stdin.close()
    check(process.stdout.read() == b"still\n" and process.wait(60) == 0, "it has ended, too")


def questions(vm):
    """The guest's addresses, and its end."""
    end = time.monotonic() + BOOT_TIMEOUT
    while not (found := json.loads(vm.run("list", "--json", "--addresses").stdout)[0].get("addresses")):
        check(time.monotonic() < end, "no address")
        time.sleep(0.1)
    check(found[0]["interface"] == "eth0" and found[0]["address"].startswith("10."), found)
    table = vm.run("ls", "--addresses").stdout.decode().splitlines()
    check(table[0].endswith("ADDRESSES") and found[0]["address"].partition("/")[0] in table[1].split(), table)
    check_run(vm.run("stop", "-t", "200", "web"), 0, b"web: powered off\n", b"")


def default_guest():
    """All of it in one guest."""
    with machine() as vm:
        check_run(vm.exec("true"), 0, b"", b"")
        for part in commands, terminals, signals, flows, many, agent_ends, questions:
            start = time.monotonic()
            part(vm)
            print(f"    {part.__name__}: {time.monotonic() - start:.1f} s", flush=True)


# ---- Agents that a test plays ----


def hostile():
    """What the guest says is not believed."""
    def exec_(*pieces):
        with played({AGENT_PORT: saying(*pieces)}) as user:
            return user.exec("x", stdin=None)

    check_run(exec_(HELLO, frame(b"O", b"hi"), frame(b"X", b"\3")), 3, b"hi", b"")
    check_run(exec_(*(bytes([byte]) for byte in HELLO + frame(b"E", b"hi") + frame(b"X", b"\3"))), 3, b"", b"hi")
    check_complaint(exec_(frame(b"H", struct.pack("<I", 2))), "another version")
    check_complaint(exec_(b"SSH-2.0-OpenSSH\r\n"), "not doppel's agent")
    check_complaint(exec_(frame(b"O", b"x")), "not doppel's agent")
    with played({AGENT_PORT: saying(HELLO, frame(b"O", b"e\x1b[1m 1.2.3.4/8\n" + b"x" * 10000), frame(b"X", b"\0"))}) as user:
        done = user.run("ls", "--addresses")
        check(done.returncode == 0 and b"1.2.3.4" in done.stdout and b"\x1b" not in done.stdout and
              len(done.stdout) < 1000, done)
    check_complaint(exec_(HELLO), "the connection with 'web' has ended")
    check_complaint(exec_(HELLO, frame(b"F", b"\x7f\x1b]0;x\x07\nmore\x00")), "?]0;x??more", status=127)
    for wrong in (frame(b"Q"), frame(b"X"), frame(b"X", b"ab"), frame(b"F"), frame(b"C"), frame(b"S"), HELLO,
                  frame(b"C", b"\0" + struct.pack("<I", 1)), frame(b"I", b"x"), frame(b"X", b"x" * 300),
                  b"O\1\0\0" + bytes(4), b"O\0\0\0" + struct.pack("<I", 65537 - 8)):
        done = exec_(HELLO, wrong, frame(b"X", b"\0"))
        check_complaint(done, "in the guest")


FAKE_SSH = """#!/bin/sh
shift 4
printf '%s\\n' "$@"
exit 7
"""


def without_agent():
    """Where no agent answers, ssh does it, or it is said that nobody does."""
    with played({22: lambda connection: connection.sendall(b"SSH-2.0-x\r\n")}) as user:
        os.mkdir(user.at("bin"))
        write(user.at("bin/ssh"), FAKE_SSH.encode())
        os.chmod(user.at("bin/ssh"), 0o755)
        user.env["PATH"] = user.at("bin") + ":" + user.env["PATH"]
        done = user.exec("a b", "c", stdin=None)
        check_run(done, 7, b"-T\n--\nweb\n'a b' 'c'\n")
        check(b"no agent answers in 'web': ssh is used" in done.stderr, done.stderr)
        done = user.exec("a", options=["-tn", "-u", "me", "-w", "/a b", "-e", "X=1 2"], stdin=None)
        check_run(done, 7, b"-tt\n-n\n-l\nme\n--\nweb\ncd '/a b' && env " +
                  f"'X=1 2' 'TERM={user.env['TERM']}' 'a'\n".encode())
        done = user.run("ls", "--addresses")
        check(done.stdout.splitlines()[1].endswith(b" -"), done)
    with played({}) as user:
        check_complaint(user.exec("x", options=["--wait", "0"], stdin=None), "'web' does not answer yet", "--wait")
        check_complaint(user.exec("x", options=["--wait", "1"], stdin=None), "neither doppel's agent nor an ssh server")


def refused():
    """What is wrong with the command line is one clear line."""
    with scratch() as at:
        user = Machine(at)
        user.define("")
        check_complaint(user.exec("x", stdin=None), "'web' does not run")
        check_complaint(user.run("exec", "nonesuch", "--", "x"), "no machine 'nonesuch'")
        check_complaint(user.run("exec", "../x", "--", "x"), "../x")
        check_complaint(user.run("exec"), "too few arguments")
        check_complaint(user.run("exec", "web", "--"), "no command")
        check_complaint(user.run("exec", "web", "ls"), "unexpected argument 'ls'", "after --")
        check_complaint(user.run("exec", "-e", "=x", "web", "--", "x"), "has no name")
        check_complaint(user.run("exec", "-tx", "web", "--", "x"), "unknown option '-x'")
        check_complaint(user.run("exec", "-u"), "needs a value")


main(default_guest, hostile, without_agent, refused)
