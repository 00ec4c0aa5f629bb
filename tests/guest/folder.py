#!/usr/bin/python3
"""Shared folders of whole guests: what is in them is the host's, in both directions and at once, and
locks exclude the one side and the other.
"""
import contextlib
import fcntl
import os
import re
import resource
import shutil
import subprocess
import sys

from vm import BOOT_TIMEOUT, DOPPEL, check, check_run, environment, guest, main, run, scratch, write


def read(path):
    with open(path, "rb") as file:
        return file.read()


def boot(script, *options, kernel=None, **more):
    """Runs SCRIPT in a guest and returns what it says, line by line. Nothing may go wrong."""
    kernel = ["--kernel", guest(kernel)] if kernel else []
    done = run("run", *kernel, *options, "--", "sh", "-ec", script, **more)
    check_run(done, 0)
    return done.stdout.decode().splitlines()


@contextlib.contextmanager
def conversation(script, *options):
    """Runs SCRIPT in a guest. Yields a function that sends it a line, and returns the next one that
    it says."""
    process = subprocess.Popen([DOPPEL, "run", *options, "--", "sh", "-ec", script], env=environment(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def talk(line=None):
        if line is not None:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        return process.stdout.readline().decode().rstrip("\n")

    try:
        yield talk
        process.stdin.close()
        check(process.wait(BOOT_TIMEOUT) == 0, "status", process.returncode)
    finally:
        process.kill()
        process.wait()


def contents():
    """Files, directories, links and modes in both directions; a folder that cannot be changed; a
    comma in a name; a second folder."""
    with scratch() as at:
        one, two = at("one,and more"), at("two")
        os.makedirs(one + "/deep/er")
        os.mkdir(two)
        write(one + "/deep/er/file", b"from the host\n" * 5000)
        os.symlink("deep/er/file", one + "/link")
        os.symlink("/proc/self/exe", one + "/outside")
        write(two + "/fixed", b"fixed\n")
        said = boot("""
            cd /some/place; md5sum <link; md5sum <deep/er/file; ls -l link | sed 's/.*-> //'
            readlink outside; stat -c '%u %g %a' deep
            mkdir made; cp deep/er/file made/copy; chmod 640 made/copy; ln made/copy made/twin
            ln -s copy made/pointer; mv made/twin renamed; echo more >>renamed
            mkfifo pipe; mknod null c 1 3 2>/dev/null || echo no device
            dd if=/dev/zero of=big bs=1M count=9 2>/dev/null; truncate -s 5000000 big; sync
            cat /fixed/fixed; touch /fixed/fixed 2>/dev/null || echo fixed
            rm -r deep link; grep -c virtiofs /proc/mounts
            """, "-v", one.replace(",", ",,") + ":/some/place", "--share", two + ":/fixed:ro")
        check(said[0] == said[1] and said[2:5] == ["deep/er/file", "/proc/self/exe", "0 0 755"], said)
        check(said[5:] == ["no device", "fixed", "fixed", "2"], said)
        check(read(one + "/renamed") == b"from the host\n" * 5000 + b"more\n", "another file")
        state = os.stat(one + "/made/copy")
        check(state.st_mode & 0o7777 == 0o640 and state.st_nlink == 2 and state.st_uid == os.geteuid(), state)
        check(os.readlink(one + "/made/pointer") == "copy" and os.path.getsize(one + "/big") == 5000000, "made")
        check(sorted(os.listdir(one)) == ["big", "made", "outside", "pipe", "renamed"], os.listdir(one))


def kernels():
    """Debian 13's kernel, and a 32-bit one; several queues and vCPUs."""
    with scratch() as at:
        os.mkdir(at("f"))
        boot("for i in 1 2 3 4; do (seq $i 20000 >/f/$i) & done; wait; test -e /sys/bus/pci/devices/0000:00:09.0",
             "-v", at("f") + ":/f:rw,queues=3,slot=9", "--cpus", "2", kernel="vmlinuz-6.12")
        for i in range(1, 5):
            check(read(at(f"f/{i}")).count(b"\n") == 20001 - i, f"file {i}")


def edits():
    """What the host changes is seen when the guest opens a file, and names within a second."""
    with scratch() as at:
        os.mkdir(at("f"))
        write(at("f/a"), b"first\n")
        script = "while read -r command; do eval \"$command\"; done"
        with conversation(script, "-v", at("f") + ":/f") as talk:
            check(talk("cat /f/a") == "first", "not the first")
            write(at("f/a"), b"again\n")
            check(talk("cat /f/a") == "again", "an edit in place is not seen")
            write(at("f/new"), b"other\n")
            os.rename(at("f/new"), at("f/a"))
            check(talk("cat /f/a") == "other", "a file in its place is not seen")
            check(talk("sleep 1.1; [ -e /f/new ] || echo gone") == "gone", "a name is still there")
            check(talk("echo guest >/f/b; echo done") == "done", "no answer")
            check(read(at("f/b")) == b"guest\n", "what the guest has written is not there")


def locks():
    """Locks by flock and by fcntl exclude the host and the guest, and who waits gets the lock."""
    with scratch() as at:
        os.mkdir(at("f"))
        source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "locker.c")
        subprocess.run(["gcc", "-D_GNU_SOURCE", "-O", "-static", "-o", at("f/locker"), source], check=True)
        script = "while read -r command; do eval \"$command\"; done"
        with open(write(at("f/lock"), b""), "r+b") as file, \
                conversation(script, "-v", at("f") + ":/f") as talk:
            for how, call in ("flock", fcntl.flock), ("fcntl", fcntl.lockf):
                locker = f"/f/locker {how}"
                call(file, fcntl.LOCK_EX)
                check(talk(f"{locker} try /f/lock echo taken || echo busy") == "busy",
                      how, "the guest has the host's lock")
                check(talk(f"{locker} wait /f/lock sh -c 'echo granted >/f/granted' & echo waits") == "waits",
                      how, "no answer")
                call(file, fcntl.LOCK_UN)
                check(talk("wait; cat /f/granted; rm /f/granted") == "granted", how, "the lock was not given")
                # The guest's: while it reads the next line, it has the lock.
                check(talk(f"{locker} try /f/lock sh -c 'echo has; read line'") == "has", how, "not the guest's")
                try:
                    call(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    check(False, how, "the host has the guest's lock")
                except BlockingIOError:
                    pass
                check(talk("\necho gone") == "gone", how, "no answer")
                call(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                call(file, fcntl.LOCK_UN)


def owners():
    """With owner=xattr, owners and modes are the guest's; on the host all is the user's."""
    with scratch() as at:
        os.mkdir(at("f"))
        try:
            os.setxattr(at("f"), "user.test", b"1")
        except OSError as error:
            print(f"skipped: the folder for tests has no user attributes ({error})")
            return
        script = """
            cd /f; echo '#!/bin/sh' >a; chown 7:8 a; chmod 4511 a; mkdir d; chown 9 d; chmod 700 d
            stat -c '%u %g %a' a d"""
        said = boot(script, "-v", at("f") + ":/f,owner=xattr")
        check(said == ["7 8 4511", "9 0 700"], said)
        check(os.stat(at("f/a")).st_mode & 0o7777 == 0o711, oct(os.stat(at("f/a")).st_mode))
        check(os.stat(at("f/d")).st_uid == os.geteuid(), "another's")


def many():
    """More files than the process may have descriptors."""
    with scratch() as at:
        for folder in range(20):
            os.makedirs(at(f"f/{folder}"))
            for file in range(100):
                write(at(f"f/{folder}/{file}"), b"")
        said = boot("find /f -type f | xargs ls -l | wc -l; find /f | wc -l", "-v", at("f") + ":/f",
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)))
        check(said == ["2000", "2021"], said)


def put_program(program, folder):
    """Copies PROGRAM of the host's and the libraries that it needs to FOLDER. Returns how a guest calls it, whose
    path to FOLDER is the same."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    for name in (program, *libraries):
        shutil.copy(name, folder)
    loader = next(name for name in libraries if os.path.basename(name).startswith("ld-linux"))
    return [f"{folder}/{os.path.basename(loader)}", "--library-path", folder, f"{folder}/{os.path.basename(program)}"]


MAKEFILE = b"""
out: upper lower
	cat upper lower >out
upper: source
	tr a-z A-Z <source >upper
lower: source
	tr A-Z a-z <source >lower
"""


def made():
    """make -C on a folder: what it makes is the host's, and what is up to date and what is not it sees from times,
    also of what the host changes meanwhile."""
    with scratch() as at:
        os.makedirs(at("f/bin"))
        write(at("f/Makefile"), MAKEFILE)
        write(at("f/source"), b"Some Text\n")
        make = " ".join(put_program("/usr/bin/make", at("f/bin"))) + f" -C {at('f')} >/tmp/said 2>&1"
        script = "while read -r command; do eval \"$command\"; done"
        with conversation(script, "-v", f"{at('f')}:{at('f')}") as talk:
            check(talk(f"{make}; echo $?") == "0", "make fails", talk("head -n 1 /tmp/said"))
            check(read(at("f/out")) == b"SOME TEXT\nsome text\n", read(at("f/out")))
            check(talk(f"{make}; grep -c 'is up to date' /tmp/said") == "1", "all is made again")
            stamp = os.stat(at("f/out")).st_mtime + 10
            write(at("f/source"), b"Other\n")
            os.utime(at("f/source"), (stamp, stamp))
            check(talk(f"sleep 1.1; {make}; echo $?") == "0", "make fails")
            check(read(at("f/out")) == b"OTHER\nother\n", read(at("f/out")))


def synced():
    """fsync, fdatasync and sync in the guest are calls of the host's, as strace sees them."""
    if not shutil.which("strace") or subprocess.run(["strace", "-o", "/dev/null", "true"], check=False,
                                                    capture_output=True).returncode:
        print("skipped: no process can be traced here (strace)")
        sys.exit(77)
    with scratch() as at:
        os.mkdir(at("f"))
        # busybox: dd's fsync is fsync(2), and sync's -d is fdatasync(2).
        script = "cd /f; dd if=/dev/zero of=a bs=1k count=1 conv=fsync 2>/dev/null; echo >b; sync -d b; echo done"
        done = subprocess.run(["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync", "-y", "-o",
                               at("calls"), DOPPEL, "run", "-v", at("f") + ":/f", "--", "sh", "-ec", script],
                              env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=BOOT_TIMEOUT,
                              check=False)
        check(done.returncode == 0 and done.stdout == b"done\n", done)
        calls = read(at("calls")).decode()
        check(re.search(r" fsync\(\d+<[^>]*/f/a>\) *= 0", calls), calls)
        check(re.search(r" fdatasync\(\d+<[^>]*/f/b>\) *= 0", calls), calls)


def million():
    """A million files, and 1,024 descriptors; FILES says otherwise. For make soak-folders."""
    if "million" not in sys.argv[2:]:
        return
    files = int(os.environ.get("FILES", "1000000"))
    with scratch() as at:
        for number in range(files):
            if number % 1000 == 0:
                folder = at(f"f/{number // 100000}/{number // 1000 % 100}")
                os.makedirs(folder)
            with open(f"{folder}/{number}", "w", encoding="ascii") as file:
                file.write(f"{number}\n")
        # busybox: awk's %d has 32 bits.
        script = """set -o pipefail; find /f -type f | wc -l; find /f -type f -size -2 | wc -l
            find /f -type f -print0 | xargs -0 cat | awk '{ sum += $1 } END { printf "%.0f\\n", sum }'; echo all"""
        said = boot(script, "-v", at("f") + ":/f", timeout=7200, stderr=None,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)))
        check(said == [str(files), str(files), str(files * (files - 1) // 2), "all"], said)
        # Removing them takes as long as many a test.
        print(f"{files} files: the guest has found and read them all", flush=True)


main(contents, kernels, edits, locks, owners, many, made, synced, million)
