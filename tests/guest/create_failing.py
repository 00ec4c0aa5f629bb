#!/usr/bin/python3
"""`doppel create` where something is wrong: images that are damaged or hostile, a process that is killed, a disk that
fills up, a mirror that is silent. It fails with one line in bounded time, and leaves nothing half-made."""
import fcntl
import gzip
import json
import os
import random
import signal
import socket
import struct
import subprocess
import tarfile
import threading
import time

from machines import Layout, Tar, home, system
from vm import DOPPEL, check, check_complaint, check_run, main, run as run_doppel, write

MIB = 1 << 20
F_OFD_SETLK = 37


def layouts():
    """OCI layouts whose JSON is bad, whose blobs are damaged, and whose files are links or no files."""
    with home() as (h, path):
        oci = Layout(path("oci"))
        index = path("oci/index.json")
        layer = oci.archive(system(Tar(path("1.tar"))))
        manifest = oci.image(layer)
        other = dict(manifest, platform={"os": "linux", "architecture": "arm64"})
        good = json.dumps({"manifests": [manifest]}).encode()

        def bad(*words):
            h.refused("--from", path("oci"), "m", words=["oci", *words])

        for text, words in (
                (b"{", ["JSON"]), (b"[" * 100000, ["JSON"]), (good + b"x", ["JSON"]), (b"\xff", ["JSON"]),
                (b"&a [*a]", ["JSON"]), (b'{"manifests": [], "manifests": []}', ["JSON"]), (b" " * (5 * MIB), ["large"]),
                (b"{}", ["no image"]), (b"[]", ["no image"]), (json.dumps({"manifests": [other]}).encode(), ["no image"]),
                (b'{"manifests": [{"digest": "sha256:../../x", "size": 1}]}', ["digest"]),
                (good.replace(b'"size": ', b'"size": -'), ["size"]), (good.replace(b'"size"', b'"sise"'), ["size"]),
                (good.replace(b'"size": ', b'"size": 1'), ["bytes"]), (b'{"layers": []}', ["layers"]),
                (json.dumps({"layers": [layer] * 129}).encode(), ["layers"])):
            write(index, text)
            bad(*words)
        oci.image(layer)
        for blob in manifest, layer:
            file = oci.file(blob["digest"])
            with open(file, "rb") as whole:
                data = whole.read()
            write(file, data[:-1] + bytes([data[-1] ^ 1]))
            bad("another digest")
            write(file, data + b"x")
            bad("bytes")
            os.rename(file, path("blob"))
            bad("No such file")
            os.symlink(path("blob"), file)
            bad("links are not followed")
            os.unlink(file)
            os.mkfifo(file)
            bad("regular file")
            os.unlink(file)
            os.rename(path("blob"), file)
            write(file, data)
        for folder in path("oci/blobs/sha256"), path("oci/blobs"):
            os.rename(folder, path("moved"))
            os.symlink(path("moved"), folder)
            bad("links are not followed")
            os.unlink(folder)
            os.rename(path("moved"), folder)
        os.unlink(index)
        bad("no OCI layout", "index.json")
        os.mkfifo(index)
        bad("regular file")
        os.unlink(index)
        oci.image(layer)
        h.good("--from", path("oci"), "m")


def archives():
    """Archives that would take forever or all memory."""
    with home() as (h, path):
        with open(system(Tar(path("a.tar"))).close(), "rb") as file:
            data = file.read()
        write(path("twice.tar.gz"), gzip.compress(gzip.compress(data)))
        h.refused("--from", path("twice.tar.gz"), "m", words=["twice.tar.gz", "packed twice"])
        # An entry that says it is 8 EiB long, of a kind that has no contents for us.
        for kind in b"0", b"5", b"9":
            header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)[:512])
            header[124:136] = b"\x80" + (1 << 62).to_bytes(11, "big")
            header[156:157] = kind
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            write(path("long.tar"), bytes(header) + bytes(MIB))
            h.refused("--from", path("long.tar"), "m", words=["long.tar"])
        # Many names of one link whose target is long: each would have a copy of it.
        tar = system(Tar(path("links.tar"))).add("link", tarfile.SYMTYPE, linkname="t" * 4000)
        for number in range(2000):
            tar.add(f"l{number}", tarfile.LNKTYPE, linkname="link")
        h.good("--from", tar.close(), "links")
        os.mkfifo(path("pipe.tar"))
        h.refused("--from", path("pipe.tar"), "m", words=["pipe.tar", "regular file"])


def killed():
    """SIGKILL at any moment: what is there is complete, the next one works, and gc removes the rest."""
    moments = random.Random(1)
    with home() as (h, path):
        tar = system(Tar(path("a.tar"))).add("big", data=os.urandom(24 * MIB))
        for number in range(5000):
            tar.add(f"f{number}", data=b"x")
        tar.close()
        start = time.monotonic()
        h.good("--from", path("a.tar"), "m")
        took = time.monotonic() - start
        for _ in range(10):
            check_run(run_doppel("rm", "--force", "m", env=h.env, stdin=None), 0)
            h.gc()
            check(h.images(True) == [] and h.machines() == [], "gc has left", h.images(True), h.machines())
            process = subprocess.Popen([DOPPEL, "create", "--from", path("a.tar"), "m"], env=h.env, stderr=subprocess.DEVNULL)
            time.sleep(moments.uniform(0, took))
            process.kill()
            process.wait()
            done = run_doppel("list", "--names", env=h.env, stdin=None)
            if done.stdout == b"":
                h.good("--from", path("a.tar"), "m")
            listed = json.loads(run_doppel("list", "--json", env=h.env, stdin=None).stdout)
            check([(m["name"], m["state"]) for m in listed] == [("m", "stopped")], listed)


def full():
    """A disk that fills up while an image is made."""
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode:
        print("skipped: this host has no user namespaces, in which a small file system could be mounted")
        return
    with home() as (h, path):
        tar = system(Tar(path("a.tar"))).add("big", data=os.urandom(12 * MIB)).close()
        script = f"mount -t tmpfs -o size=6m,mode=700 none {h.folder}/data && {DOPPEL} create --from {tar} m; " \
                 f"echo $?; find {h.folder}/data -type f -o -name .new-*"
        done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], env=h.env, check=False,
                              capture_output=True, timeout=120)
        last = done.stderr.decode().splitlines()[-1]
        check(last.startswith("doppel: ") and "No space left" in last, done.stderr)
        check(done.stdout.decode().split() == ["125"], "status, and what is left:", done.stdout)


def waits():
    """One that waits for another that makes the same image says so, and goes on."""
    with home() as (h, path):
        tar = system(Tar(path("a.tar"))).close()
        h.good("--from", tar, "one")
        with open(h.image()[:-1] + ".lock", "r+b") as lock:
            fcntl.fcntl(lock, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            process = subprocess.Popen([DOPPEL, "create", "--from", tar, "two"], env=h.env, stderr=subprocess.PIPE)
            seen = b""
            while b"waiting for another process" not in seen:
                line = process.stderr.readline()
                check(line.endswith(b" ...\n"), "it does not wait:", seen, line)
                seen += line
        check(process.wait(timeout=60) == 0, "status", process.returncode, process.stderr.read())
        check(h.machines() == ["one", "two"], h.machines())


class Silent:
    """A server that takes connections and never answers."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.server.getsockname()[1]}/debian"
        self.taken = threading.Semaphore(0)
        self.connections = []
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        """Takes connections until the end."""
        while True:
            self.connections.append(self.server.accept()[0])
            self.taken.release()


def work_folders(h):
    """What guests/debian-image has left behind."""
    return [name for name in os.listdir(h.folder) if name.startswith("doppel-debian")]


def mirror():
    """A mirror that is not there, and one that does not answer."""
    with home() as (h, _):
        h.env["DOPPEL_MIRROR_TIMEOUT"] = "1"
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{nobody.getsockname()[1]}"
            h.refused("debian", "--mirror", f"http://{address}/debian", "x", words=[address])
        server = Silent()
        h.refused("debian", "--mirror", server.uri, "x", words=[server.uri])
        check(not work_folders(h), "left behind")


def mirror_ends():
    """Somebody loses patience with a mirror that does not answer, or kills doppel: nothing goes on."""
    with home() as (h, _):
        h.env["DOPPEL_MIRROR_TIMEOUT"] = "600"
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGKILL:
            server = Silent()
            process = subprocess.Popen([DOPPEL, "create", "debian", "--mirror", server.uri, "x"], env=h.env,
                                       stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            check(server.taken.acquire(timeout=120), "it asks no mirror")
            process.send_signal(number)
            errors = process.communicate(timeout=60)[1]
            check(process.returncode == -number, "status", process.returncode, errors)
            end = time.monotonic() + 60
            while work_folders(h):
                check(time.monotonic() < end, "left behind:", work_folders(h))
                time.sleep(0.05)
        h.gc()
        check(h.images(True) == [] and h.machines() == [], "left behind:", h.images(True), h.machines())


if __name__ == "__main__":
    main(layouts, archives, killed, full, waits, mirror, mirror_ends)
