#!/usr/bin/python3
"""Disks and shared folders in processes of their own (--disk F,isolate, -v F:PATH,isolate): what is
refused, who ends with whom, and that process killed again and again while a guest writes and compares."""
import hashlib
import os
import signal
import subprocess
import time

from vm import DOPPEL, FOREVER, check, check_complaint, children, environment, main, multiboot, run, scratch, wait_gone, write

DISK_BYTES = 8 << 20
PATIENCE = 120
ROUNDS = int(os.environ.get("ROUNDS", "2"))  # more by make soak-disks


def kept_processes(supervisor, what):
    """The processes of disks or folders behind the doppel that was started as process SUPERVISOR."""
    return [pid for pid, name in children(supervisor).items() if name == "doppel-" + what]


def await_process(machine, what="disk", other_than=0):
    """Waits for a disk's process behind MACHINE, or a folder's, that is not OTHER_THAN."""
    end = time.monotonic() + PATIENCE
    while machine.poll() is None and time.monotonic() < end:
        found = [pid for pid in kept_processes(machine.pid, what) if pid != other_than]
        if found:
            return found[0]
        time.sleep(0.01)
    return None


def refused():
    """One clear line, from whichever process it comes."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(FOREVER))
        disk = write(path("disk"), bytes(4096))
        cases = [
            (path("none") + ",isolate", path("none"), "No such file"),
            (disk + ",isolate,format=qcow2", disk),
            (disk + ",isolate,snapshot", disk, "snapshot"),
            (disk + ",isolate,offset=8192", disk),
        ]
        for text, *words in cases:
            check_complaint(run("run", "--kernel", kernel, "--disk", text), *words)
        for name, word in ("none", "No such file"), ("disk", "Not a directory"):
            check_complaint(run("run", "--kernel", kernel, "--share", path(name) + ",isolate"), path(name), word)
        check(os.path.getsize(disk) == 4096, "the disk has changed")


def ends_together():
    """A disk's process ends with its VM process, and with its supervisor."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(FOREVER))
        disk = write(path("disk"), bytes(4096))
        os.mkdir(path("folder"))
        for number, to_supervisor in ((signal.SIGTERM, True), (signal.SIGKILL, True),
                                      (signal.SIGKILL, False)):
            with subprocess.Popen([DOPPEL, "run", "--kernel", kernel, "--initrd", "", "--disk",
                                   disk + ",isolate", "--share", path("folder") + ",isolate"], env=environment(), stdin=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL) as machine:
                processes = [await_process(machine, what) for what in ("disk", "folder")]
                check(all(processes), "a process is not there", processes)
                vms = [p for p, name in children(machine.pid).items() if name == "doppel-vm"]
                os.kill(machine.pid if to_supervisor else vms[0], number)
                machine.wait(PATIENCE)
                for process in processes:
                    wait_gone(process)
        # The lock went with them.
        check(run("run", "--kernel", kernel, "--disk", disk + ",format=qcow2").returncode == 125, "")


def guest_command(rounds):
    """Writes the same to the disk ROUNDS times, and tells what it was."""
    return (f"head -c {DISK_BYTES} /dev/urandom > /tmp/data; echo begin; "
            f"for i in $(seq {rounds}); do cat /tmp/data > /dev/vda; sync; "
            "echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/data /dev/vda || exit 9; done; "
            "md5sum < /tmp/data")


def kill_again_and_again(machine, what, most):
    """Kills the process of MACHINE's disk or folder up to MOST times, as long as the guest works."""
    kills, process = 0, 0
    while kills < most and (process := await_process(machine, what, process)):
        time.sleep(0.05)
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            break  # the guest is done
        kills += 1
    check(kills > 0, "the guest was done before anything was killed")
    print(f"{kills} times killed")


def kill_and_compare(disk, raw):
    """Kills the disk's process while a guest works. RAW: a file with the disk's contents, made then."""
    with subprocess.Popen([DOPPEL, "run", "--cpus", "2", "--disk", disk + ",isolate", "--", "sh",
                           "-c", guest_command(ROUNDS)], env=environment(),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        check(machine.stdout.readline() == b"begin\n", "the guest does not begin")
        kill_again_and_again(machine, "disk", 2 * ROUNDS)
        output = machine.stdout.read().decode()
        check(machine.wait(PATIENCE) == 0, f"status {machine.returncode}: {output!r}")
    with open(raw(), "rb") as file:
        digest = hashlib.md5(file.read()).hexdigest()
    check(digest in output, f"the disk has {digest}, the guest wrote {output!r}")


def killed_raw():
    """A raw file."""
    with scratch() as path:
        disk = write(path("disk"), bytes(DISK_BYTES))
        kill_and_compare(disk, lambda: disk)


def killed_qcow2():
    """A qcow2 image, which keeps metadata in memory."""
    def convert():
        # Whoever is killed may leave clusters that nothing refers to (status 3), and nothing worse.
        check(subprocess.run(["qemu-img", "check", "-q", disk], check=False).returncode in (0, 3),
              "the image is damaged")
        subprocess.run(["qemu-img", "convert", "-O", "raw", disk, path("raw")], check=True)
        return path("raw")

    with scratch() as path:
        disk = path("disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, str(DISK_BYTES)], check=True)
        kill_and_compare(disk, convert)


# Works until there is a file that says so. Each round ends with nothing but a line in a file that stays open.
FOLDER_SCRIPT = """
cd /f; head -c 300000 /dev/urandom >/tmp/data; exec 3>>all; echo begin; n=0
until [ -e stop ]; do
    n=$((n + 1))
    mkdir d; cp /tmp/data d/a; ln d/a d/b; mv d/a d/c; cmp d/c /tmp/data; cmp d/b /tmp/data
    (umask 0377; echo $n >d/fixed); [ "$(cat d/fixed)" = $n ]
    ln -s c d/link; echo more >>d/link; [ "$(tail -c 5 d/b)" = more ]
    rm d/b d/c d/link d/fixed; rmdir d
    echo line $n >&3
done
[ "$(ls)" = "$(printf 'all\\nstop\\n')" ]; tail -n 1 all
"""


def killed_folder():
    """A folder: the guest makes, changes and removes files in it and has one open all the time."""
    with scratch() as path:
        os.mkdir(path("f"))
        with subprocess.Popen([DOPPEL, "run", "--cpus", "2", "-v", path("f") + ":/f,isolate", "--", "sh", "-ec",
                               FOLDER_SCRIPT], env=environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as machine:
            check(machine.stdout.readline() == b"begin\n", "the guest does not begin")
            kill_again_and_again(machine, "folder", 3 * ROUNDS)
            check(await_process(machine, "folder"), "the folder's process has not been started again")
            write(path("f/stop"), b"")
            output = machine.stdout.read().decode()
            check(machine.wait(PATIENCE) == 0, f"status {machine.returncode}: {output!r}")
        with open(path("f/all"), encoding="ascii") as file:
            lines = file.read().splitlines()
        check(lines == [f"line {n}" for n in range(1, len(lines) + 1)], lines[:20])
        check(lines and output == lines[-1] + "\n", output)


if __name__ == "__main__":
    main(refused, ends_together, killed_raw, killed_qcow2, killed_folder)
