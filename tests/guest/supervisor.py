#!/usr/bin/python3
"""The supervisor: what it tells when the VM process dies, that it survives it and not the other way
round, and that it leaves other virtual machines alone. The guests are a few instructions."""
import os
import re
import signal
import subprocess
import time

from vm import (DOPPEL, FOREVER, JUMP_BACK, check, check_complaint, children, main, multiboot, run,
                scratch, terminal, thread_names, vm_process, wait_gone, write, write_com1)

# Else the address sanitizer turns a SIGSEGV into a SIGABRT.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0"

# What doppel itself allows is 3 s; the rest is for a slow, loaded host.
LIMIT_S = 30

HELLO = multiboot(write_com1(b"hello\r\n", FOREVER))
PRINTS = multiboot(write_com1(b"x", JUMP_BACK))


def start(*args, **options):
    """Starts doppel with a guest that has said hello when this returns."""
    options.setdefault("stdin", subprocess.DEVNULL)
    process = subprocess.Popen([DOPPEL, "run", *args], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, **options)
    check(process.stdout.read(5) == b"hello", "the guest did not speak")
    return process


def end(process, status):
    """Waits for the end of PROCESS, checks its STATUS and returns what it said."""
    try:
        said = process.communicate(timeout=LIMIT_S)[1].decode()
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[1]
        check(False, "does not end:", said)
    check(process.returncode == status, f"status {process.returncode}, not {status}: {said}")
    return said


def running(parent, word):
    """The child of PARENT that has WORD on its command line."""
    for pid in children(parent):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if word.encode() in file.read().split(b"\0"):
                return pid
    check(False, f"nothing runs with {word}")
    return None


def read_more(file, size):
    """Reads SIZE bytes from the pipe FILE."""
    while size > 0:
        read = os.read(file, min(size, 65536))
        check(read, "the other virtual machine has ended")
        size -= len(read)


# Run by a shell without job control: both machines are in one process group, as in a pipeline.
TWO = """"$0" run --kernel "$1" </dev/null >"$3" & other=$!
for i in 1 2; do "$0" run --kernel "$2"; echo "status $?."; done
read line; kill $other; wait $other; echo "other $?."
"""


def two_machines():
    """Of two on one command line, the VM process of one is killed. Its supervisor tells it, exits with
    the right status and gives the terminal back. The other goes on."""
    with scratch() as path:
        prints, hello = write(path("prints"), PRINTS), write(path("hello"), HELLO)
        os.mkfifo(path("pipe"))
        reader = os.open(path("pipe"), os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        with terminal("-c", TWO, DOPPEL, prints, hello, path("pipe"), program="/bin/sh") as term:
            for number in [signal.SIGKILL, signal.SIGSEGV]:
                term.expect(rb"hello")
                read_more(reader, 1)
                other = vm_process(running(term.process.pid, prints))
                vm = vm_process(running(term.process.pid, hello))
                check(term.raw(), "the terminal is not raw while the guest runs")
                os.kill(vm, number)
                term.expect(rb"\ndoppel: the VM process \(%d\) was killed by signal %d \(%s, "
                            % (vm, number, number.name.encode()))
                if number == signal.SIGSEGV:
                    term.expect(rb"\ndoppel:   sent by process %d; the thread that got it was in \w"
                                % os.getpid())
                term.expect(rb"(?s)\ndoppel:   its log ended with:.*the guest runs")
                term.expect(rb"status %d\." % (128 + number))
                if number == signal.SIGSEGV:
                    term.check_restored()
                check(vm_process(running(term.process.pid, prints)) == other, "the other has changed")
                read_more(reader, 1 << 20)
            term.send(b"\n")
            term.expect(rb"other %d\." % (128 + signal.SIGTERM))
            check(term.wait() == 0, "the shell failed")
        os.close(reader)


def restored():
    """The terminal is the user's again when a signal has killed the VM process."""
    with scratch() as path:
        hello = write(path("hello"), HELLO)
        for number in [signal.SIGKILL, signal.SIGSEGV]:
            with terminal("run", "--kernel", hello) as term:
                term.expect(rb"hello")
                os.kill(vm_process(term.process.pid), number)
                check(term.wait(LIMIT_S) == 128 + number, "wrong status")
                check(b"\r\ndoppel: the VM process" in term.seen, term.seen)
                term.check_restored()


def no_answer():
    """A VM process that does nothing any more is killed on the second wish, and the user told so."""
    with scratch() as path:
        hello = write(path("hello"), HELLO)
        process = start("--kernel", hello)
        vm = vm_process(process.pid)
        os.kill(vm, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        check(process.poll() is None, "one signal is enough")
        since = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = end(process, 128 + signal.SIGINT)
        print(f"ended after {time.monotonic() - since:.1f} s")
        check("doppel: ended by force" in said and "does not answer" in said, said)
        wait_gone(vm)


def orphan():
    """A VM process does not outlive its supervisor, even one that can do nothing about it."""
    with scratch() as path:
        process = start("--kernel", write(path("hello"), HELLO))
        vm = vm_process(process.pid)
        os.kill(vm, signal.SIGSTOP)
        process.kill()
        process.wait()
        wait_gone(vm)
        process.communicate()


def orphan_with_terminal():
    """One to which the terminal is lent gives it back before it ends. The shell that started both keeps
    the kernel from sending a hangup."""
    with scratch() as path:
        hello = write(path("hello"), HELLO)
        with terminal("-c", '"$0" run --kernel "$1"; exec sleep 600', DOPPEL, hello,
                      program="/bin/sh") as term:
            term.expect(rb"hello")
            supervisor = running(term.process.pid, hello)
            vm = vm_process(supervisor)
            check(term.raw(), "the terminal is not raw while the guest runs")
            os.kill(supervisor, signal.SIGKILL)
            wait_gone(vm)
            term.check_restored()


def early_end():
    """Before the VM process listens, the first signal ends it."""
    with scratch() as path:
        os.mkfifo(path("kernel"))
        with subprocess.Popen([DOPPEL, "run", "--kernel", path("kernel")], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            vm = vm_process(process.pid)
            process.send_signal(signal.SIGTERM)
            check(end(process, 128 + signal.SIGTERM) == "", "something was said")
            wait_gone(vm)


def one_signal_for_both():
    """A signal to the process group, as Ctrl-C sends it, is one wish to end and not two."""
    with scratch() as path:
        os.mkfifo(path("initrd")) # opening it never ends
        with subprocess.Popen([DOPPEL, "run", "--kernel", write(path("hello"), HELLO), "--initrd",
                               path("initrd")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, start_new_session=True) as process:
            vm = vm_process(process.pid)
            while "doppel-user" not in thread_names(vm):
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(3.5)
            check(process.poll() is None, "it took one signal for two")
            os.killpg(process.pid, signal.SIGINT)
            said = end(process, 128 + signal.SIGINT)
            check("doppel: ended by force" in said, said)


def to_the_vm_process():
    """A polite signal that is sent to the VM process does what it does to the supervisor."""
    with scratch() as path:
        process = start("--kernel", write(path("hello"), HELLO))
        os.kill(vm_process(process.pid), signal.SIGTERM)
        check(end(process, 128 + signal.SIGTERM) == "", "something was said")


def log():
    """The log's file has what happened, whoever was there to tell it. It is for one VM at a time."""
    with scratch() as path:
        hello, name = write(path("hello"), HELLO), path("log")
        process = start("--kernel", hello, "--log", name)
        check_complaint(run("run", "--kernel", hello, "--log", name, stdin=None), "another", name)
        vm = vm_process(process.pid)
        os.kill(vm, signal.SIGKILL)
        said = end(process, 128 + signal.SIGKILL)
        check(f"all of it is in {name}" in said, said)
        check(os.stat(name).st_mode & 0o777 == 0o600, "others can read the log")
        end_by(start("--kernel", hello, "--log", name), signal.SIGINT)
        with open(name, encoding="ascii") as file:
            lines = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\w+: .*)\n", line)
                     for line in file]
        check(all(lines), "a line is of another form")
        text = "\n".join(line.group(1) for line in lines)
        for part in [f"info: doppel [0-9.]+: the VM process is {vm}",
                     rf"info: engine (bt|interp) \(auto\), 1 vCPU, 512 MiB, kernel {hello}",
                     "info: the guest runs", f"error: the VM process \\({vm}\\) was killed by signal 9",
                     f"info: SIGINT from process {os.getpid()}", "info: a signal ended it",
                     "info: the VM process ended with status 130"]:
            check(re.search(f"^{part}", text, re.M), f"no '{part}' in:", text)
        check_complaint(run("run", "--kernel", hello, "--log", path("none") + "/x"), path("none"))
        check_complaint(run("run", "--kernel", hello, "--log", "/dev/null"), "/dev/null")


def end_by(process, number):
    """Ends PROCESS by the signal NUMBER."""
    process.send_signal(number)
    end(process, 128 + number)


def small():
    """The supervisor takes little memory, and the VM process starts no others."""
    with scratch() as path:
        process = start("--kernel", write(path("hello"), HELLO))
        vm = vm_process(process.pid)
        check(not children(vm), "the VM process has started another", children(vm))
        with open(f"/proc/{process.pid}/maps", encoding="utf-8") as file:
            sanitized = "asan" in file.read()
        with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as file:
            sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", file.read(), re.M))
        print(f"the supervisor: {sizes['Pss']} KiB, of these {sizes['Private_Dirty']} its own")
        check(sanitized or int(sizes["Private_Dirty"]) <= 1024, sizes)
        end_by(process, signal.SIGTERM)


main(two_machines, restored, no_answer, orphan, orphan_with_terminal, early_end, one_signal_for_both, to_the_vm_process,
     log, small)
