#!/usr/bin/python3
"""A guest that works while its machine is moved from one process's memory to the next (moved.c): paused with requests
in flight, saved, destroyed, made again in another engine. It writes to a disk and reads it back: nothing that it has
written may be lost, in its own eyes and in the host's. Or it has bytes echoed, through a network and a virtio socket.

    moved.py DOPPEL PROGRAM [NAME...]

SEED and MOVES in the environment: which points, and how many.
"""
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

from vm import DOPPEL, check, environment, guest, main, scratch, write

PROGRAM = sys.argv.pop(2)
KIB, MIB = 1 << 10, 1 << 20
WORKERS, SLOTS = 4, 4
PIECE = 256 * KIB  # what a worker writes in a round
LIMIT = "bps=1M"   # so that requests wait most of the time

# Each worker writes its pieces in turn, by large and small requests, past the guest's cache or through it with a
# flush, and reads each at once; all of them once more in the end.
SCRIPT = """
piece() { yes "worker $1 round $2" | head -c %(piece)d >/tmp/want$1; }
slot() { echo $(($2 %% %(slots)d * %(workers)d + $1)); }
put() {
    case $1 in
    0) dd if=/tmp/want$1 of=/dev/vda bs=256k seek=$2 oflag=direct conv=notrunc 2>/dev/null ;;
    1) dd if=/tmp/want$1 of=/dev/vda bs=16k seek=$((16 * $2)) oflag=direct conv=notrunc 2>/dev/null ;;
    *) dd if=/tmp/want$1 of=/dev/vda bs=256k seek=$2 conv=notrunc,fsync 2>/dev/null ;;
    esac || echo "@@bad: worker $1 cannot write"
}
same() {
    dd if=/dev/vda bs=64k skip=$((4 * $2)) count=4 iflag=direct 2>/dev/null | cmp - /tmp/want$1 >/dev/null ||
        echo "@@bad: worker $1 reads something else in slot $2"
}
work() {
    n=0
    while [ ! -e /tmp/end ]; do
        piece $1 $n; put $1 $(slot $1 $n); same $1 $(slot $1 $n)
        n=$((n + 1)); echo "@@round $1 $n"
    done
    i=$((n < %(slots)d ? 0 : n - %(slots)d))
    while [ $i -lt $n ]; do piece $1 $i; same $1 $(slot $1 $i); i=$((i + 1)); done
    echo "@@last $1 $n"
}
for w in 0 1 2 3; do work $w & done
read line; touch /tmp/end; wait; sync
dmesg | grep -E 'I/O error|BUG:|WARNING:|Oops|stall|lockup|hung task' && echo "@@bad: the kernel complains"
poweroff
"""


def script_disk(path):
    """The script, as a disk that a shell can read."""
    text = (SCRIPT % {"piece": PIECE, "slots": SLOTS, "workers": WORKERS}).encode()
    return write(path, text + b"\n" * (-len(text) % 512))


def program_disk(path):
    """The guest's program (moved_guest.c), as a disk."""
    with open(os.environ["MOVED_GUEST"], "rb") as file:
        data = file.read()
    return write(path, data + bytes(-len(data) % 512))


def expected(last):
    """What the disk has after as many rounds of each worker."""
    disk = bytearray(WORKERS * SLOTS * PIECE)
    for worker, rounds in last.items():
        for n in range(max(0, rounds - SLOTS), rounds):
            line = f"worker {worker} round {n}\n".encode()
            at = (n % SLOTS * WORKERS + worker) * PIECE
            disk[at:at + PIECE] = (line * (PIECE // len(line) + 1))[:PIECE]
    return disk


def move_guest(devices, engines, cpus, line, switched=False, lan=None):
    """Runs and moves a guest with DEVICES, to whose shell LINE is typed. Returns what it says. SWITCHED: it stays the
    same machine and gets the next engine. LAN: the socket of its virtual switch."""
    moves, seed = os.environ.get("MOVES", "4"), os.environ.get("SEED", "1974")
    command = [PROGRAM, "--engine", engines, "--moves", moves, "--seed", seed, "--cpus", str(cpus)]
    for device in devices:
        command += ["--device", device]
    command += ["--switch"] * switched + (["--lan", lan] if lan else []) + ["--type", line, guest("vmlinuz-6.1"), guest("initrd.img")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    said = done.stdout.decode(errors="replace")
    print(said.splitlines()[-1] if said else "")
    check(done.returncode == 0 and "@@bad" not in said, said)
    return said


def move(disk, script, engines, cpus=1, held=True, switched=False):
    """Runs and moves the guest that writes. Returns what the disk must have then. HELD: requests are to be in flight
    when the machine is paused, and done by the next one."""
    said = move_guest([f"disk,file={disk}", f"disk,file={script_disk(script)},readonly"], engines, cpus,
                      "stty -echo; sh /dev/vdb", switched)
    check(not held or " 0 requests were in flight" not in said, "no request was in flight", said)
    last = {int(words[1]): int(words[2]) for words in map(str.split, said.splitlines())
            if len(words) == 3 and words[0] == "@@last"}
    check(len(last) == WORKERS, said)
    return expected(last)


def compare(path, wanted):
    with open(path, "rb") as file:
        seen = file.read()
    check(len(seen) == len(wanted), "the disk has", len(seen), "bytes")
    wrong = [at // PIECE for at in range(0, len(wanted), PIECE) if seen[at:at + PIECE] != wanted[at:at + PIECE]]
    check(not wrong, "the host finds something else in slots", wrong)


def raw():
    """A file, with a limit, so that requests wait when the machine is paused."""
    with scratch() as at:
        disk = write(at("disk"), bytes(WORKERS * SLOTS * PIECE))
        compare(disk, move(disk + "," + LIMIT, at("script"), "bt,interp,bt-eager"))


def qcow2():
    """An image, whose metadata is written when the machine is destroyed."""
    with scratch() as at:
        disk = at("disk.qcow2")
        for words in (["create", disk, str(WORKERS * SLOTS * PIECE)], ["check", disk]):
            check(subprocess.run([DOPPEL, "image", *words], stdout=subprocess.DEVNULL, check=False).returncode == 0, words)
        wanted = move(disk + "," + LIMIT, at("script"), "bt,bt-eager,interp", 2)
        for words in (["check", disk], ["convert", "-O", "raw", disk, at("raw")]):
            check(subprocess.run([DOPPEL, "image", *words], stdout=subprocess.DEVNULL, check=False).returncode == 0, words)
        compare(at("raw"), wanted)


def switched():
    """One machine with two vCPUs that gets other engines while requests are in flight."""
    with scratch() as at:
        disk = write(at("disk"), bytes(WORKERS * SLOTS * PIECE))
        compare(disk, move(disk + "," + LIMIT, at("script"), "bt,interp,bt-eager", 2, held=False, switched=True))


@contextlib.contextmanager
def serving(command, path):
    """A process that serves at the socket PATH."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment()) as process:
        try:
            end = time.monotonic() + 60
            while not os.path.exists(path):
                check(time.monotonic() < end and process.poll() is None, command[0], "does not begin")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()


def vhost():
    """A disk that another process serves, which ends what it has begun before the machine is saved."""
    with scratch() as at:
        disk = write(at("disk"), bytes(WORKERS * SLOTS * PIECE))
        with serving([DOPPEL, "backend", "blk", "--socket", at("socket"), "--disk", disk + "," + LIMIT], at("socket")):
            wanted = move("vhost-user=" + at("socket"), at("script"), "bt,interp,bt-eager", held=False)
        compare(disk, wanted)


# ---- Networks ----

TALK = """stty -echo; cat /dev/vda >/tmp/p; chmod 755 /tmp/p; %s read line; touch /tmp/end; wait; poweroff"""


def echo_all(connection):
    """Sends back what comes, up to its end."""
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


@contextlib.contextmanager
def echoes(listener):
    """Echoes to whoever connects to LISTENER."""
    def accept():
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=echo_quietly, args=(connection,), daemon=True).start()

    def echo_quietly(connection):
        with contextlib.suppress(OSError):  # the machine is gone
            echo_all(connection)

    listener.listen(16)
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def echo_server(address="127.0.0.1"):
    listener = socket.socket()
    listener.bind((address, 0))
    return echoes(listener)


def last_words(said, name):
    """How many rounds a part of the guest has done, and how often its connection was lost."""
    found = [tuple(map(int, words[2:])) for words in map(str.split, said.splitlines())
             if len(words) == 4 and words[:2] == ["@@last", name]]
    check(len(found) == 1, said)
    return found[0]


def user_network():
    """A user network and a virtio socket begin anew with each machine: connections are lost, but not the next ones."""
    with scratch() as at, echo_server() as server:
        local = socket.socket(socket.AF_UNIX)
        local.bind(at("vsock_5000"))
        with echoes(local):
            said = move_guest([f"disk,file={program_disk(at('program'))},readonly", "net,to=user", f"vsock,socket={at('vsock')}"],
                              "bt,interp,bt-eager", 1,
                              TALK % f"/tmp/p both 10.0.2.2 {server.getsockname()[1]} 5000 &")
        for name in ("tcp", "vsock"):
            rounds, lost = last_words(said, name)
            check(rounds > 0 and lost > 0, said)


def vhost_network():
    """A network that another process serves goes on: connections through it survive each move."""
    with scratch() as at, echo_server() as server:
        with serving([DOPPEL, "backend", "net", "--socket", at("socket"), "--net", "user,queues=2"], at("socket")):
            keeps_connection(at, f"vhost-user={at('socket')},queues=2", f"/tmp/p tcp 10.0.2.2 {server.getsockname()[1]} &",
                             cpus=2)


def keeps_connection(at, net, line, cpus=1, lan=None):
    """A guest with a card on NET keeps a connection through all moves."""
    said = move_guest([f"disk,file={program_disk(at('program'))},readonly", f"net,to={net},mac=52:54:00:12:34:56"],
                      "bt,interp,bt-eager", cpus, TALK % line, lan=lan)
    rounds, lost = last_words(said, "tcp")
    check(rounds > 0 and lost == 0, said)


def stream():
    """What serves a stream goes on, and takes the next machine: QEMU's user network, behind a hub."""
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        print("skipped: there is no qemu-system-x86_64")
        sys.exit(77)
    with scratch() as at, echo_server() as server:
        hub = ["-netdev", f"stream,id=there,server=on,addr.type=unix,addr.path={at('socket')}", "-netdev", "user,id=user",
               "-netdev", "hubport,id=one,hubid=0,netdev=there", "-netdev", "hubport,id=two,hubid=0,netdev=user"]
        with serving([qemu, "-M", "none", "-nodefaults", "-no-user-config", "-display", "none", *hub], at("socket")):
            keeps_connection(at, f"stream={at('socket')}", f"/tmp/p tcp 10.0.2.2 {server.getsockname()[1]} &")


def switch():
    """A machine on a virtual switch has the same address and the same neighbours as before."""
    with scratch() as at:
        env = {**environment(), "XDG_RUNTIME_DIR": at("")}
        script = "cat /dev/vda >/tmp/p; chmod 755 /tmp/p; exec /tmp/p serve 7"
        command = [DOPPEL, "run", "--memory", "128M", "--net", "switch=lan,hostname=peer", "--disk",
                   program_disk(at("peer")) + ",readonly", "--", "sh", "-c", script]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env) as peer:
            try:
                check(peer.stdout.readline() == b"ready\n", "the other machine does not serve")
                address = "$(ping -c 1 -W 9 peer.doppel.internal | sed -n '1s/.*(\\([0-9.]*\\)).*/\\1/p')"
                keeps_connection(at, "switch=lan", f"/tmp/p tcp {address} 7 &", lan=at("doppel/.switch/lan.sock"))
            finally:
                peer.terminate()


TUNSETIFF, TUNSETPERSIST, IFF_TAP = 0x400454CA, 0x400454CB, 0x1002  # and without a header of its own
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, IFF_UP = 0x8914, 0x8916, 0x891C, 1
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def enter_own_network():
    """Takes this process to a network of its own, where it may do everything. False: the host does not let it."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0)) != 0:
        return False
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    return True


def make_tap(name, address):
    """A TAP interface that stays, and is up with ADDRESS."""
    with open("/dev/net/tun", "r+b", buffering=0) as tun, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP))
        fcntl.ioctl(tun, TUNSETPERSIST, 1)
        for what, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            fcntl.ioctl(any_socket, what, struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, socket.inet_aton(value)))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP))


def tap():
    """The host's end of a TAP interface stays when the guest's end is another process's."""
    try:
        if not enter_own_network():
            raise OSError("no network of one's own")
        make_tap("tap0", "10.77.0.1")
    except OSError as error:
        print(f"skipped: this host lets us have no TAP interface: {error}")
        sys.exit(77)
    with scratch() as at, echo_server("10.77.0.1") as server:
        keeps_connection(at, "tap=tap0", "ifconfig eth0 10.77.0.2 netmask 255.255.255.0 up; "
                         f"/tmp/p tcp 10.77.0.1 {server.getsockname()[1]} &")


if __name__ == "__main__":
    main(raw, qcow2, switched, vhost, user_network, vhost_network, stream, switch, tap)
