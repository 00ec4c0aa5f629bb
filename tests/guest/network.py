#!/usr/bin/python3
"""Networks of whole guests: a card is simply there, with an address, and what goes through it arrives.

    NETWORK_PEER=PROGRAM network.py DOPPEL [TEST...]     the tests; or soak: the same with long runs (make soak-net)
"""
import contextlib
import hashlib
import http.server
import os
import random
import re
import resource
import socket
import socketserver
import subprocess
import sys
import threading

from vm import DOPPEL, check, check_complaint, check_run, children, environment, main, run, scratch, write

MIB = 1 << 20
# In a guest: the program, from a disk.
HAVE_PEER = "cat /dev/vda >/tmp/peer; chmod 755 /tmp/peer; "
SITE_ADDRESS = "until grep -q ^fec0 /proc/net/if_inet6; do sleep 0.05; done; "


def peer_disk(path):
    """An image of a disk that is the peer (network_peer.c), which is a program for host and guest."""
    with open(os.environ["NETWORK_PEER"], "rb") as file:
        program = file.read()
    write(path, program.ljust(-(-len(program) // 512) * 512, b"\0"))
    os.chmod(path, 0o755)
    return path


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


@contextlib.contextmanager
def server(peer):
    """The peer as a server on this host: its port, of TCP and UDP."""
    with subprocess.Popen([peer, "serve"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline().split()[1])
        finally:
            process.kill()


@contextlib.contextmanager
def web_server(data):
    """A server of HTTP on this host that has DATA at every path: its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield web.server_address[1]
        web.shutdown()
        thread.join()


def boot(script, *options):
    """Runs SCRIPT in a guest and returns what it says, line by line. Nothing may go wrong."""
    done = run("run", *options, "--", "sh", "-ec", script, timeout=1200)
    check_run(done, 0)
    return done.stdout.decode().splitlines()


def user(connections=200, datagrams=200):
    """Addresses, echoes, short connections that end well, streams that are half closed, datagrams; IPv4 and IPv6."""
    with scratch() as at:
        peer = peer_disk(at("peer"))
        with server(peer) as port:
            hosts = ["10.0.2.2"] + ["fec0::2"] * has_ipv6()
            said = boot(HAVE_PEER + SITE_ADDRESS + f"""
                ifconfig eth0 | grep -o "addr:[0-9.]*"
                cat /etc/resolv.conf
                hostname
                ping -c 2 10.0.2.2 | grep received
                ping -6 -c 2 fec0::2 | grep received
                for host in {' '.join(hosts)}; do
                    /tmp/peer connect $host {port} {connections}
                    /tmp/peer udp $host {port} {datagrams}
                    /tmp/peer send $host {port} 500
                    /tmp/peer receive $host {port} 500
                done
                cat /proc/net/snmp
                """, "--net", "user,hostname=guest-1", "--disk", f"{peer},readonly")
    text = "\n".join(said)
    check("addr:10.0.2.15" in said, "no address:", said)
    check("nameserver 10.0.2.3" in said, "no name server:", said)
    check("guest-1" in said, "no hostname:", said)
    check(text.count("2 packets received, 0% packet loss") == 2, "no echo:", said)
    check(len(re.findall(rf"^{connections} times", text, re.M)) >= len(hosts), "connections:", said)
    check(len(re.findall(r"^[1-9]\d* bytes", text, re.M)) == 2 * len(hosts), "streams:", said)
    names, values = [line.split()[1:] for line in said if line.startswith("Tcp:")]
    found = dict(zip(names, map(int, values)))
    check(found["EstabResets"] == 0, "connections were reset:", found)
    check(found["InErrs"] == 0, "wrong checksums:", found)


def download(size=16 * MIB):
    """A file through HTTP, whole; and names, where this host knows any."""
    source = random.Random(7)
    data = b"".join(source.randbytes(MIB) for _ in range(size // MIB))
    try:
        socket.getaddrinfo("deb.debian.org", 80, socket.AF_INET)
        names = "nslookup deb.debian.org | grep -c ^Name;"
    except OSError:
        names = "echo 1;"  # this host does not know it either
    with web_server(data) as port:
        said = boot(f"{names} wget -q -O - http://10.0.2.2:{port}/file | md5sum", "--net", "user")
    check(int(said[0]) >= 1, "names are not found:", said)
    check(said[-1].split()[0] == hashlib.md5(data).hexdigest(), "other bytes:", said)


def free_port(family=socket.AF_INET, address="127.0.0.1"):
    """A port that nobody has at this moment, of TCP and UDP."""
    with socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
        tcp.bind((address, 0))
        udp.bind(tcp.getsockname())
        return tcp.getsockname()[1]


def forwards(count=50):
    """What comes to the host's ports goes to the guest's, TCP and UDP, by several queues, and by IPv6; a port that is taken is refused in one line."""
    with scratch() as at:
        peer = peer_disk(at("peer"))
        port = free_port()
        options = ["--cpus", "2", "--net", "user,queues=2", "-p", f"{port}:7", "-p", f"udp:{port}:7",
                   "--disk", f"{peer},readonly"]
        places = [("127.0.0.1", port)]
        if has_ipv6():
            places.append(("::1", free_port(socket.AF_INET6, "::1")))
            options += ["-p", f"[::1]:{places[1][1]}:7"]
        guest = subprocess.Popen([DOPPEL, "run", *options, "--", "sh", "-ec",
                                  HAVE_PEER + SITE_ADDRESS + "exec /tmp/peer serve 7"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment())
        try:
            check(guest.stdout.readline() == b"port 7\n", "the guest does not serve")
            check_complaint(run("run", "-p", f"{port}:7", "--", "true"), str(port), "use")
            clients = [subprocess.Popen([peer, what, host, str(at_host), str(number)], stdout=subprocess.DEVNULL)
                       for what, number in (("connect", count), ("udp", count), ("send", 300), ("receive", 300))
                       for host, at_host in places * 2 if what != "udp" or "." in host]
            check(all([client.wait(600) == 0 for client in clients]), "a client has failed")
        finally:
            guest.kill()
            guest.wait()


GREEDY_SCRIPT = """
mkfifo /tmp/end
/tmp/peer hold 10.0.2.2 $PORT 500 </tmp/end >/tmp/held &
exec 3>/tmp/end; until grep -q of /tmp/held; do sleep 0.2; done; cat /tmp/held
cd /share; for i in $(seq 20); do echo $i >$i; done; cat $(seq 20) | md5sum
dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | cmp - /tmp/peer && echo disk
exec 3>&-; wait
until /tmp/peer connect 10.0.2.2 $ECHO 20; do sleep 1; done
"""


@contextlib.contextmanager
def patient_server():
    """A server that ends each connection when its client has: its port."""
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                while self.request.recv(65536):
                    pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 600

    with Server(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served.server_address[1]
        served.shutdown()


def greedy():
    """A guest that opens ever more connections is held to its share: disk, folder and console go on, the log says so
    once, and when it has closed them, it gets others."""
    with scratch() as at, patient_server() as port:
        peer = peer_disk(at("peer"))
        os.mkdir(at("share"))
        with server(peer) as echo:
            done = run("run", "--net", "user", "-v", at("share") + ":/share", "--disk", f"{peer},readonly",
                       "--env", f"PORT={port}", "--env", f"ECHO={echo}", "--", "sh", "-c",
                       HAVE_PEER + GREEDY_SCRIPT, timeout=1200,
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)))
        said = done.stdout.decode().splitlines()
        check(done.returncode == 0 and len(said) == 4, done)
        held, wanted = map(int, said[0].split(" of "))
        check(wanted == 500 and 20 < held < 300 - 128 - 43, "held:", said)
        numbers = "".join(f"{i + 1}\n" for i in range(20)).encode()
        check(said[1].split()[0] == hashlib.md5(numbers).hexdigest() and said[2] == "disk", said)
        check(len(os.listdir(at("share"))) == 20, "the folder has something else")
        check(re.match(r"20 times", said[3]), said)
        check(done.stderr.decode().count("runs out of file descriptors") == 1, done.stderr)


def memory_of(pid):
    """What a process has in memory, in bytes, and how much it may have of its own at most ("unlimited", too)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status, open(f"/proc/{pid}/limits", encoding="ascii") as limits:
        resident = re.search(r"^VmRSS:\s+(\d+) kB", status.read(), re.M).group(1)
        return int(resident) << 10, re.search(r"^Max data size\s+(\S+)", limits.read(), re.M).group(1)


def disorder(connections=8):
    """A guest that sends everything out of order takes little of the host's memory, and harms nobody; an isolated network's
    process has a limit."""
    for isolate in ("off", "on"):
        with scratch() as at, patient_server() as port:
            peer = peer_disk(at("peer"))
            script = HAVE_PEER + (f"echo; /tmp/peer disorder 10.0.2.2 {port} {connections} && echo sent; read line; "
                                  "ping -c 1 10.0.2.2 | grep -o '1 packets received'")
            with subprocess.Popen([DOPPEL, "run", "--net", f"user,isolate={isolate}", "--disk", f"{peer},readonly", "--",
                                   "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env=environment()) as guest:
                check(guest.stdout.readline() == b"\n", "the guest does not begin")
                served = [pid for pid, name in children(guest.pid).items()
                          if name == ("doppel-net" if isolate == "on" else "doppel-vm")]
                before, limit = memory_of(served[0])
                check(guest.stdout.readline() == b"sent\n", "the guest does not send")
                after, _ = memory_of(served[0])
                check(after - before < 128 * MIB, before, after)
                check(isolate == "off" or int(limit) < 5 << 30, limit)
                guest.stdin.write(b"\n")
                guest.stdin.close()
                check(guest.stdout.read() == b"1 packets received\n" and guest.wait() == 0, "the network does not work")


def several():
    """Several cards, each with its own address; one without a cable; one with several queues."""
    said = boot("""
        ls /sys/class/net
        cat /sys/class/net/eth0/address /sys/class/net/eth1/address /sys/class/net/eth2/carrier
        ls -d /sys/class/net/eth1/queues/tx-*
        ip -4 -o addr show eth1
        ping -c 3 -I eth1 192.168.7.2 | grep min/avg/max
        """, "--cpus", "2", "--net", "user,mac=02:00:00:00:00:01",
        "--net", "user,mac=02:00:00:00:00:02,net=192.168.7.0/24,queues=2", "--net", "none")
    text = "\n".join(said)
    check("eth2" in said and "02:00:00:00:00:01" in said and "02:00:00:00:00:02" in said, said)
    check(text.count("/queues/tx-") == 2, "queues:", said)
    check("192.168.7.15/24" in text, "no address:", said)
    check("min/avg/max" in text, "no echo:", said)


def named():
    """The cards of a machine with a name have the same addresses in each run, and DHCP tells the guest its name."""
    with scratch() as at:
        os.makedirs(at("doppel/machines/web-1"))
        os.chmod(at("doppel"), 0o700)
        write(at("doppel/machines/web-1/machine.yaml"), b"version: 1\nnets: [user]\n")
        env = {**environment(), "XDG_DATA_HOME": at(""), "XDG_RUNTIME_DIR": at("")}
        script = "cat /sys/class/net/eth*/address; hostname"
        first, second = (run("run", "web-1", *options, "--", "sh", "-c", script, env=env, timeout=1200)
                         for options in ((), ("--net", "user", "--net", "none,mac=52:54:00:00:00:07")))
        check_run(first, 0)
        check_run(second, 0)
        address, name = first.stdout.decode().splitlines()
        check(address.startswith("52:54:00:") and name == "web-1", first)
        check(second.stdout.decode().splitlines() == [address, "52:54:00:00:00:07", name], first, second)


def refused():
    """What cannot be had is said in one line."""
    check_complaint(run("run", "--net", "nowhere", "--", "true"), "nowhere")
    check_complaint(run("run", "--net", "user,queues=99", "--", "true"), "queues")
    check_complaint(run("run", "-p", "x:y", "--", "true"), "x:y")
    check_complaint(run("run", "-p", "1:2,restrict", "--", "true"), "publish")
    check_complaint(run("run", "--device", "net", "--", "true"), "net,to=")
    check_complaint(run("run", "--net", "stream=/nonexistent/socket", "--", "true"), "/nonexistent/socket")


def soak():
    """The same with long runs."""
    if not any(name == "soak" for name in sys.argv[2:]):
        return
    user(10000, 10000)
    download(1024 * MIB)
    forwards(2000)


if __name__ == "__main__":
    main(user, download, forwards, greedy, disorder, several, named, refused, soak)
