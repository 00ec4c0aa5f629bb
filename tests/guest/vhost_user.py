#!/usr/bin/python3
"""vhost-user between doppel and QEMU: QEMU's machine has a disk that `doppel backend` serves, and
doppel's has one of qemu-storage-daemon. Either end is killed in the middle.

QEMU boots from the disk and does what disk_boot.S says there: that takes less than a second. Tests
with a guest of doppel's boot Linux.
"""
import contextlib
import hashlib
import http.server
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

from vm import DOPPEL, ROOT, check, check_complaint, check_run, environment, main, run, scratch, write

FIRST = 64           # as in disk_boot.S
DISK_BYTES = 8 << 20
PATIENCE = 120
ROUNDS = int(os.environ.get("ROUNDS", "3"))  # more by make soak-disks


def assemble(path):
    """The boot sector."""
    source = os.path.join(ROOT, "tests", "guest", "disk_boot.S")
    subprocess.run(["as", "--32", "-o", path("boot.o"), source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00",
                    "-o", path("boot.bin"), path("boot.o")], check=True)
    with open(path("boot.bin"), "rb") as file:
        return file.read()


def make_disk(path, sectors, delay=0):
    """A disk whose boot sector works on SECTORS sectors."""
    data = bytearray(DISK_BYTES)
    data[:512] = assemble(path)
    data[(FIRST - 1) * 512:(FIRST - 1) * 512 + 4] = struct.pack("<HH", sectors, delay)
    return write(path("disk"), bytes(data))


def check_disk(name, sectors):
    """Checks what the boot sector has written."""
    with open(name, "rb") as file:
        data = file.read()
    for i in range(1, sectors + 1):
        at = (FIRST - 1 + i) * 512
        check(data[at:at + 512] == struct.pack("<H", i) * 256, f"sector {FIRST - 1 + i} is wrong")


def await_socket(name, process):
    """Waits until somebody listens at NAME."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(1)
            with contextlib.suppress(OSError):
                probe.connect(name)
                return
        check(process.poll() is None, f"{process.args[0]} has ended")
        check(time.monotonic() < end, f"nobody listens at {name}")
        time.sleep(0.02)


@contextlib.contextmanager
def started(*args, **options):
    """A process that is killed in the end."""
    process = subprocess.Popen(args, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


class Backend:
    """`doppel backend blk`, which can be killed and started again."""

    def __init__(self, path, disk):
        self.path, self.disk, self.process = path("socket"), disk, None
        self.start()

    def start(self):
        """Starts it and waits until it listens."""
        self.process = subprocess.Popen([DOPPEL, "backend", "blk", "--socket", self.path,
                                         "--disk", self.disk, "--verbose"])
        await_socket(self.path, self.process)

    def kill(self):
        """Kills it as nothing can be told beforehand."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends it as a user does. It leaves no socket behind."""
        self.process.terminate()
        check(self.process.wait(PATIENCE) == 0, f"status {self.process.returncode}")
        check(not os.path.exists(self.path), "the socket is still there")


@contextlib.contextmanager
def backend(path, disk):
    """A Backend that is killed in the end."""
    back = Backend(path, disk)
    try:
        yield back
    finally:
        back.kill()


def qemu(path):
    """How to start QEMU with the disk behind the socket."""
    return ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-display", "none", "-nodefaults",
            "-no-reboot", "-object", "memory-backend-memfd,id=m,size=64M,share=on",
            "-numa", "node,memdev=m", "-chardev", f"socket,id=c,path={path('socket')},reconnect=1",
            "-device", "vhost-user-blk-pci,chardev=c,bootindex=0,num-queues=1,queue-size=256",
            "-device", "isa-debug-exit,iobase=0x501,iosize=2"]


def check_qemu(process):
    """Waits until QEMU's guest says that all was well."""
    status = process.wait(PATIENCE)
    check(status == 3, f"QEMU ended with status {status}")


def serves_qemu():
    """QEMU's firmware and a boot sector read and write a disk that we serve, twice."""
    with scratch() as path:
        disk = make_disk(path, 100)
        with backend(path, disk) as back:
            for _ in range(2):
                with started(*qemu(path)) as machine:
                    check_qemu(machine)
            back.end()
        check_disk(disk, 100)


def backend_is_killed():
    """The back end is killed under QEMU, which goes on with the next one."""
    with scratch() as path:
        disk = make_disk(path, 2000, 200)
        with backend(path, disk) as back:
            with started(*qemu(path)) as machine:
                for _ in range(2):
                    wait_for_progress(disk, machine)
                    back.kill()
                    back.start()
                check_qemu(machine)
            back.end()
        check_disk(disk, 2000)


def sectors_written(disk):
    """How many sectors the boot sector has written so far."""
    with open(disk, "rb") as file:
        data = file.read()
    count = 0
    while data[(FIRST + count) * 512:(FIRST + count) * 512 + 2] == struct.pack("<H", count + 1):
        count += 1
    return count


def wait_for_progress(disk, machine):
    """Waits until the boot sector is at work."""
    before, end = sectors_written(disk), time.monotonic() + PATIENCE
    while sectors_written(disk) < before + 20:
        check(machine.poll() is None, "QEMU has ended")
        check(time.monotonic() < end, "QEMU's guest does nothing")
        time.sleep(0.01)


def qemu_is_killed():
    """QEMU is killed with requests under way. The next one finds the back end ready."""
    with scratch() as path:
        disk = make_disk(path, 2000, 200)
        with backend(path, disk) as back:
            with started(*qemu(path)) as machine:
                wait_for_progress(disk, machine)
                machine.kill()
            write_count(disk, 50)
            with started(*qemu(path)) as machine:
                check_qemu(machine)
            back.end()
        check_disk(disk, 50)


def write_count(disk, sectors):
    """Changes how many sectors the boot sector works on."""
    with open(disk, "r+b") as file:
        file.seek((FIRST - 1) * 512)
        file.write(struct.pack("<HH", sectors, 0))


def bad_input():
    """What `doppel backend` refuses: one line each."""
    with scratch() as path:
        disk = write(path("disk"), bytes(4096))
        cases = [
            ([], "what to serve"),
            (["blk"], "--socket"),
            (["blk", "--socket", path("s")], "--disk"),
            (["net", "--socket", path("s"), "--disk", disk], "net"),
            (["blk", "--socket", path("s"), "--disk", path("none")], path("none")),
            (["blk", "--socket", path("s"), "--disk", "vhost-user=" + path("x")], "vhost-user"),
            (["blk", "--socket", path("s"), "--disk", disk + ",queues=33"], "queues"),
            (["blk", "--socket", path("x" * 200), "--disk", disk], "at most"),
            (["blk", "--socket", disk, "--disk", disk], disk, "the file exists"),
            (["blk", "--socket", path("s"), "--disk", disk, "--disk", disk], "twice"),
            (["blk", "--socket", path("s"), "--disk", disk + ",isolate"], "isolate"),
            (["blk", "--socket", path("none/s"), "--disk", disk], path("none/s")),
        ]
        for options, *words in cases:
            check_complaint(run("backend", *options), *words)
        check(os.path.getsize(disk) == 4096, "the disk has changed")
        with backend(path, disk):
            check_complaint(run("backend", "blk", "--socket", path("socket"), "--disk", disk), "")
        # A socket that was left behind is in nobody's way.
        with backend(path, disk) as back:
            back.end()
        check_complaint(run("run", "--kernel", disk, "--disk", "vhost-user=" + path("none")),
                        path("none"), "is it running?")
        check_complaint(run("run", "--kernel", disk, "--disk", f"vhost-user={path('none')},readonly"),
                        "readonly")


# ---- Guests of doppel's ----

def guest_command(rounds):
    """Writes the same to the disk ROUNDS times, and tells what it was."""
    return (f"head -c {DISK_BYTES} /dev/urandom > /tmp/data; echo begin; "
            f"for i in $(seq {rounds}); do cat /tmp/data > /dev/vda; sync; "
            "echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/data /dev/vda || exit 9; done; "
            "md5sum < /tmp/data")


def check_sum(name, output):
    """Checks that the file NAME has what the guest says it has written."""
    with open(name, "rb") as file:
        digest = hashlib.md5(file.read()).hexdigest()
    check(digest in output, f"the disk has {digest}, the guest wrote {output!r}")


def storage_daemon():
    """A guest's disk that qemu-storage-daemon serves."""
    with scratch() as path:
        disk = write(path("disk"), bytes(DISK_BYTES))
        export = ("type=vhost-user-blk,id=e,node-name=n,writable=on,num-queues=2,addr.type=unix,"
                  f"addr.path={path('socket')}")
        with started("qemu-storage-daemon", "--blockdev",
                     f"driver=file,node-name=n,filename={disk}", "--export", export) as daemon:
            await_socket(path("socket"), daemon)
            done = run("run", "--cpus", "2", "--disk", f"vhost-user={path('socket')}", "--log",
                       path("log"), "--", "sh", "-c", "ls /sys/block/vda/mq; " + guest_command(1))
            check_run(done, 0)
            check(done.stdout.startswith(b"0\n1\n"), done.stdout)
            check_sum(disk, done.stdout.decode())
        with open(path("log"), encoding="utf-8") as log:
            check("exempt from sharing" in log.read(), "the log does not tell of the exemption")


def front_end_goes_on():
    """Our back end is killed again and again under our guest."""
    with scratch() as path:
        disk = write(path("disk"), bytes(DISK_BYTES))
        with backend(path, disk) as back:
            with started(DOPPEL, "run", "--cpus", "2", "--disk", f"vhost-user={path('socket')}",
                         "--", "sh", "-c", guest_command(ROUNDS), env=environment(),
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE) as machine:
                check(machine.stdout.readline() == b"begin\n", "the guest does not begin")
                kills = 0
                while kills < 2 * ROUNDS and machine.poll() is None:
                    time.sleep(0.05)
                    back.kill()
                    time.sleep(0.05)
                    back.start()
                    kills += 1
                output = machine.stdout.read().decode()
                check(machine.wait(PATIENCE) == 0, f"status {machine.returncode}: {output!r}")
                check(kills > 0, "the guest was done before anything was killed")
                said = machine.stderr.read().decode().splitlines()
                gone = sum("wait for a back end" in line for line in said)
                back_again = sum("is there again" in line for line in said)
                check(0 < gone <= kills and gone - 1 <= back_again <= gone, said)
                check_sum(disk, output)
            back.end()


def read(name):
    with open(name, "rb") as file:
        return file.read()


def virtiofsd_in_c(folder, path):
    """The command that serves FOLDER at the socket PATH by QEMU's virtiofsd, which Debian 12 has."""
    return ["/usr/lib/qemu/virtiofsd", f"--socket-path={path}", "-o", f"source={folder}", "-o", "sandbox=chroot",
            "-o", "cache=none"]


def virtiofsd_in_rust(folder, path):
    """The same by the one in Rust, which Debian 13 has (package virtiofsd); VIRTIOFSD names another file."""
    return [os.environ.get("VIRTIOFSD", "/usr/libexec/virtiofsd"), f"--socket-path={path}", "--shared-dir", folder,
            "--sandbox", "none"]


@contextlib.contextmanager
def folder_server(command, path):
    """A process that serves a folder at the socket PATH by COMMAND; skips the test if it cannot."""
    if not os.path.exists(command[0]):
        print(f"skipped: {command[0]} is not installed")
        sys.exit(77)
    with started(*command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        end = time.monotonic() + PATIENCE
        while server.poll() is None and not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.02)
        if server.poll() is not None:
            print(f"skipped: {command[0]} cannot serve here (the one in C needs root):", server.stderr.read().decode())
            sys.exit(77)
        yield server


FOLDER_SCRIPT = """
mkdir /mnt
mount -t virtiofs folder /mnt
cd /mnt
md5sum <data
head -c 300000 data >copy; mkdir -p a/b; mv copy a/b/moved; ls -R | md5sum; md5sum <a/b/moved
echo ready; read go
cat a/b/moved 2>&1 >/dev/null || echo lost
cat other 2>&1 || echo lost
"""


def use_folder(server_command):
    """A folder that SERVER_COMMAND serves. When it is killed, the guest sees errors and hangs nowhere."""
    with scratch() as at:
        os.mkdir(at("folder"))
        data = write(at("folder/data"), os.urandom(1000000))
        with folder_server(server_command(at("folder"), at("socket")), at("socket")) as server, \
             started(DOPPEL, "run", "--device", f"share,folder=vhost-user={at('socket')},tag=folder", "--", "sh",
                     "-c", FOLDER_SCRIPT, env=environment(), stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE) as machine:
            digest = hashlib.md5(read(data)).hexdigest().encode()
            check(machine.stdout.readline().split()[:1] == [digest], "the guest reads something else")
            seen = machine.stdout.readline().split()[0]
            names = subprocess.run(["ls", "-R"], cwd=at("folder"), env={**os.environ, "LC_ALL": "C"},
                                   capture_output=True, check=True).stdout
            check(seen == hashlib.md5(names).hexdigest().encode(), names)
            moved = hashlib.md5(read(data)[:300000]).hexdigest().encode()
            check(machine.stdout.readline().split()[0] == moved, "the guest has written something else")
            check(read(at("folder/a/b/moved")) == read(data)[:300000], "the host has something else")
            check(machine.stdout.readline() == b"ready\n", "the guest is not ready")
            server.kill()
            server.wait()
            machine.stdin.write(b"go\n")
            machine.stdin.flush()
            said = machine.stdout.read()
            check(said.count(b"lost\n") == 2 and b"not connected" in said, said)
            check(machine.wait(PATIENCE) == 0, machine.returncode)


def folder_in_c():
    use_folder(virtiofsd_in_c)


def folder_in_rust():
    use_folder(virtiofsd_in_rust)


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers /NAME with NAME."""

    def do_GET(self):
        body = self.path[1:].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


NET_SCRIPT = """
cat /sys/class/net/eth0/address
get() { n=0; until wget -q -O - http://10.0.2.2:$PORT/$1; do n=$((n + 1)); [ $n -lt 60 ]; sleep 0.2; done; echo; }
get first; read go; get second; cat /sys/class/net/eth0/carrier
mkdir /mnt; mount -t virtiofs share /mnt; cat /mnt/file; echo written >/mnt/new
"""


def own_back_ends():
    """A network and a folder that `doppel backend` serves; the network's is killed and comes back."""
    with scratch() as at, contextlib.ExitStack() as stack:
        web = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages))
        threading.Thread(target=web.serve_forever, daemon=True).start()
        stack.callback(web.shutdown)
        os.mkdir(at("folder"))
        write(at("folder/file"), b"of the host\n")

        def serve(kind, option, what):
            server = stack.enter_context(started(DOPPEL, "backend", kind, "--socket", at(kind), option, what,
                                                 stdin=subprocess.DEVNULL))
            await_socket(at(kind), server)
            return server

        network = serve("net", "--net", "user")
        serve("fs", "--share", at("folder"))
        machine = stack.enter_context(started(
            DOPPEL, "run", "--net", f"vhost-user={at('net')},mac=52:54:00:12:34:56", "--device",
            f"share,folder=vhost-user={at('fs')}", "--env", f"PORT={web.server_port}", "--", "sh", "-ec", NET_SCRIPT,
            env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        check(machine.stdout.readline() == b"52:54:00:12:34:56\n", "the card has another address")
        check(machine.stdout.readline() == b"first\n", "the guest does not reach the host")
        network.kill()
        network.wait()
        serve("net", "--net", "user")
        machine.stdin.write(b"go\n")
        machine.stdin.flush()
        said = machine.stdout.read()
        check(said == b"second\n1\nof the host\n", said)
        check(machine.wait(PATIENCE) == 0, machine.returncode)
        check(read(at("folder/new")) == b"written\n", "the folder has something else")


PASST_SCRIPT = """
get() { n=0; until wget -q -O - http://10.0.2.2:$PORT/$1; do n=$((n + 1)); [ $n -lt 60 ]; sleep 0.2; done; echo; }
get first; ifconfig eth0 | grep -o "addr:[0-9.]*"; cat /sys/class/net/eth0/mtu; for i in $(seq 20); do get $i; done; cat /sys/class/net/eth0/carrier
"""


@contextlib.contextmanager
def passt_server(path):
    """passt as a back end at PATH; skips the test where it does not know that, or cannot shut itself in."""
    program = shutil.which("passt")
    told = subprocess.run([program, "--help"], capture_output=True, check=False) if program else None
    if not told or b"--vhost-user" not in told.stdout + told.stderr:
        print("skipped: there is no passt that knows vhost-user (Debian 13 has one)")
        sys.exit(77)
    with started(program, "--foreground", "--quiet", "--vhost-user", "--socket", path, "--address", "10.0.2.15",
                 "--netmask", "24", "--gateway", "10.0.2.2", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        end = time.monotonic() + PATIENCE
        while server.poll() is None and not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)  # it shuts itself in when its socket is there
        if server.poll() is not None:
            print("skipped: passt cannot serve here:", server.stderr.read().decode())
            sys.exit(77)
        yield server


def passt():
    """A network that passt serves: DHCP, with its MTU, and connections."""
    with scratch() as at, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        os.chmod(at(""), 0o777)  # passt gives up being root
        with passt_server(at("net")):
            done = run("run", "--net", f"vhost-user={at('net')},mac=52:54:00:12:34:56", "--env",
                       f"PORT={web.server_port}", "--", "sh", "-ec", PASST_SCRIPT)
        web.shutdown()
        wanted = ["first", "addr:10.0.2.15", "65520", *map(str, range(1, 21)), "1"]
        check_run(done, 0, "".join(line + "\n" for line in wanted).encode())


if __name__ == "__main__":
    main(serves_qemu, backend_is_killed, qemu_is_killed, bad_input, storage_daemon,
         front_end_goes_on, folder_in_c, folder_in_rust, own_back_ends, passt)
