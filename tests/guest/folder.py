#!/usr/bin/python3
"""Shared folders of whole guests: what is in them is the host's, in both directions and at once, and
locks exclude the one side and the other.
"""
import contextlib
import fcntl
import os
import resource
import subprocess

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
        boot("for i in 1 2 3 4; do (seq $i 20000 >/f/$i) & done; wait", "-v", at("f") + ":/f,queues=3",
             "--cpus", "2", kernel="vmlinuz-6.12")
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


main(contents, kernels, edits, locks, owners, many)
