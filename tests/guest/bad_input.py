#!/usr/bin/python3
"""Bad input gets one clear line and exit status 125. No guest gets as far as booting here."""
import json
import os
import subprocess

from vm import (DEBUG_EXIT, DOPPEL, FOREVER, JUMP_BACK, TRIPLE_FAULT, check, check_complaint, check_run,
                environment, guest, main, multiboot, run, scratch, write, write_com1)


def usage():
    """Words on the command line that mean nothing."""
    cases = [
        (["--bogus"], "--bogus"),
        (["run", "--bogus"], "--bogus"),
        (["run", "--bogus=3"], "--bogus=3"),
        (["run", "-x"], "-x"),
        (["run", "stray"], "stray"),
        (["run", "--"], "no command"),
        (["run", "--kernel"], "--kernel"),
        (["run", "--disk", "--", "true"], "option '--disk' needs a value"),
        (["run", "-v"], "option '--share' needs a value"),
        (["run", "-v", ":/x"], "the name of a folder is missing"),
        (["run", "-v", "/nonexistent:/x,frob"], "there is no setting 'frob'"),
        (["run", "-v", "/:/x,tag=a:b"], "must have no colon"),
        (["run", "-v", "/usr:lib"], "shared folder '/usr': the guest's path 'lib' must begin with '/'"),
        (["run", "-v", "/usr:lib:ro"], "the guest's path 'lib' must begin"),
        (["run", "--stats=1"], "--stats"),
        (["run", "--engine", "magic"], "magic"),
        (["run", "--switch-engine", "bt"], "--switch-engine: 'bt'"),
        (["run", "--switch-engine", "@1s"], "@TIME"),
        (["run", "--switch-engine", "bt,magic@1s"], "'magic'"),
        (["run", "--switch-engine", "bt,@1s"], "unknown engine ''"),
        (["run", "--switch-engine", "bt@0s"], "1ms to 3600s"),
        (["run", "--switch-engine", "bt@-1s"], "1ms to 3600s"),
        (["run", "--switch-engine", "bt@5"], "1ms to 3600s"),
        (["run", "--switch-engine", "bt@99999999999999999999s"], "1ms to 3600s"),
        (["run", "--switch-engine", ",".join(["bt"] * 9) + "@1s"], "more than 8"),
        (["run", "--cpus", "0"], "--cpus"),
        (["run", "--cpus", "65"], "--cpus"),
        (["run", "--cpus", "two"], "two"),
        (["run", "--cpus", "-1"], "-1"),
        (["run", "--env", "novalue"], "novalue"),
        (["run", "--trace", "entries"], "entries"),
        (["run", "--trace", "exitsX=file"], "exitsX"),
        (["run", "--trace-lines", "many"], "many"),
        (["run", "--json"], "--stats"),
        (["run", "--device", "debug-console"], "--debug-console FILE"),
        (["doctor", "stray"], "stray"),
        (["doctor", "--bogus"], "--bogus"),
        (["isa", "stray"], "stray"),
        (["list", "stray"], "stray"),
        (["list", "--json", "--names"], "not both"),
        (["gc", "stray"], "stray"),
        (["ssh", "--wait", "long", "x"], "--wait"),
        (["connect", "--wait", "-1", "x", "5"], "--wait"),
        (["help", "nonesuch"], "nonesuch"),
        (["help", "run", "stray"], "stray"),
        (["nonesuch"], "nonesuch"),
        ([], "no command"),
    ]
    for memory in ["", "0", "0M", "512", "M", "-1M", "1.5G", "12Q", "512MX", "4K", "1025G",
                   "99999999999999999999G", "16777216T", "1M1", " 1G"]:
        cases.append((["run", "--memory", memory], f"--memory: {memory}" if not memory else "--memory"))
    for args, word in cases:
        check_complaint(run(*args), word)
    for args in [["run", "stray"], ["doctor", "stray"], ["isa", "stray"]]:
        check((b"goes after --" in run(*args).stderr) == (args[0] == "run"), args)


def help_and_version():
    """What must work without any guest."""
    for args in [["--help"], ["help"], ["run", "--help"], ["doctor", "--help"], ["--version"], ["doctor"]]:
        done = run(*args)
        check_run(done, 0, stderr=b"")
        check(len(done.stdout) > 5, "nothing was said")
    check(run("--version").stdout.startswith(b"doppel "), "no version")
    for command in ["run", "doctor", "isa", "list", "ssh", "connect", "rename", "rm", "gc",
                    "start", "stop", "restart", "kill", "pause", "resume", "console", "logs", "events",
                    "show", "edit", "enable", "disable"]:
        check(run("help", command).stdout == run(command, "--help").stdout, command)
    doctor = json.loads(run("doctor", "--json").stdout)
    check(doctor["cpus"] > 0 and doctor["engine"] in ("interp", "bt", "kvm"), doctor)
    check(doctor["kvm_detail"] and (doctor["kvm_present"] or not doctor["kvm_kernel_ips"]), doctor)
    check(bool(doctor["kvm_kernel_ips"]) == bool(doctor["kvm_cpuid_ns"]), doctor)


def files():
    """Files that are missing, unreadable or not what they should be."""
    with scratch() as path:
        missing = path("missing")
        empty = write(path("empty"), b"")
        text = write(path("text"), b"This is not a kernel.\n" * 100)
        good = write(path("good"), multiboot(FOREVER))
        for file in [missing, empty, text, path("")]:
            check_complaint(run("run", "--kernel", file), file)
        check_complaint(run("run", "--kernel", good, "--initrd", missing), missing)
        check_complaint(run("run", "--kernel", good, "--", "true"), "command")
        check_complaint(run("run", "--kernel", missing, "--", "true"), missing, "No such file")
        check_complaint(run("run", "--kernel", good, "--debug-console", missing + "/x"), missing)
        env = {**environment(), "DOPPEL_GUESTS": path("none")}
        check_complaint(run("run", env=env), "guests/make")
        cut = write(path("cut"), multiboot(FOREVER)[:0x1000])
        check_complaint(run("run", "--kernel", cut), cut)


def devices():
    """Devices that there are not, or not so often."""
    with scratch() as path:
        good = write(path("good"), multiboot(FOREVER))
        cases = [
            (["nonesuch"], "nonesuch", "test-device"),
            ([""], "unknown device", ""),
            (["debug-exit,port=7"], "debug-exit,port=7", "'port'"),
            (["debug-exit,"], "debug-exit,", "KEY=VALUE"),
            (["debug-exit", "debug-exit"], "overlap", ""),
            (["debug-exit"] * 65, "64", "devices"),
            (["rng"] * 31, "all 30 PCI slots are taken", ""),
            (["rng,slot=40"], "rng,slot=40", "31"),
            (["rng,slot=0"], "rng,slot=0", "free: 2-31"),
            (["rng,slot=9", "rng,slot=9"], "slot 9 is taken", "free: 2-8 10-31"),
            (["balloon,inflate=100000000"], "inflate", "must be a number from 0"),
            (["console,slot=2,slot=3"], "'slot'", "twice"),
            (["console,hvc1=tty"], "hvc1", "hvc0"),
            (["console,a=tty,hvc0=tty"], "only one", "tty"),
            (["console", "console"], "only one", "tty"),
            (["console,a=pipe:x"], "pipe:x", "unix:PATH"),
            (["console,a=unix:"], "unix:", ""),
            (["console,a/b=tty"], "a/b", "name"),
            (["console,a"], "'a'", "KEY=VALUE"),
            (["console,a=file:/dev/null"], "/dev/null", "regular"),
            ([f"console,a=file:{path('no')}/file"], path("no"), "No such file"),
            ([f"console,a=unix:{good}"], good, "exists"),
            (["console," + ",".join(f"p{n}=file:{path('out')}" for n in range(16))], "at most 15", ""),
            (["disk"], "disk,file=F", ""),
            (["disk,readonly,file=x"], "disk,file=F", ""),
            (["disk,file="], "disk", "missing"),
            ([f"disk,file={good},slot=2,slot=3"], "'slot'", "twice"),
            ([f"disk,file={good},queues=33"], "queues= must be a number from 1 to 32", ""),
            (["share"], "share,folder=F", ""),
            ([f"share,folder={path('none')}"], path("none"), "No such file"),
            ([f"share,folder={good}"], good, "Not a directory"),
            (["share,folder=/,tag=" + "x" * 37], "tag=", "1 to 36 bytes"),
            (["share,folder=/", "share,folder=/tmp"], "'share'", "already"),
            (["share,folder=/,slot=99"], "slot must be", ""),
        ]
        for names, *words in cases:
            options = [word for name in names for word in ("--device", name)]
            check_complaint(run("run", "--kernel", good, *options), *words)


def disks():
    """Disks that cannot be opened: one line each, and nothing has changed on disk."""
    with scratch() as path:
        good = write(path("good"), multiboot(FOREVER))
        image = write(path("image"), bytes(4096))
        odd = write(path("odd"), bytes(1000))
        empty = write(path("empty"), b"")
        cases = [
            (path("none"), path("none"), "No such file"),
            (path(""), path(""), "directory"),
            ("/dev/null", "/dev/null", ""),
            (image + ",frob=1", image, "'frob'"),
            (image + ",slot=32", "slot must be", "31"),
            (image + ",format=vmdk", image, "vmdk"),
            (image + ",offset=8192", image, ""),
            (image + ",serial=" + "x" * 21, image, "serial"),
            (odd + "/x", odd, "Not a directory"),
            (path("a,b"), path("a"), "',,'"),
        ]
        for text, *words in cases:
            check_complaint(run("run", "--kernel", good, "--disk", text), *words)
        for name, size in ((image, 4096), (odd, 1000), (empty, 0)):
            check(os.stat(name).st_size == size, name)


def kernels():
    """Linux kernels that are cut off, damaged, or too large for the memory."""
    with open(guest("vmlinuz-6.1"), "rb") as file:
        kernel = file.read()
    middle = len(kernel) // 2
    with scratch() as path:
        cut = write(path("cut"), kernel[:middle])
        check_complaint(run("run", "--kernel", cut), cut)
        head = write(path("head"), kernel[:0x210])
        check_complaint(run("run", "--kernel", head), head)
        damaged = write(path("damaged"), kernel[:middle] + b"\0" * 4096 + kernel[middle + 4096:])
        check_complaint(run("run", "--kernel", damaged), damaged)
        whole = guest("vmlinuz-6.1")
        for memory in ["1M", "16M"]:
            check_complaint(run("run", "--kernel", whole, "--memory", memory), "emory")
        large = write(path("large"), b"")
        os.truncate(large, 120 << 20)
        check_complaint(run("run", "--kernel", whole, "--initrd", large, "--memory", "128M"), large)


def crash():
    """A triple fault shows the registers and the last instructions."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(b"\xb8\x78\x56\x34\x12" + TRIPLE_FAULT))
        done = run("run", "--kernel", kernel, stdin=None)
        text = done.stderr.decode()
        check(done.returncode == 125, f"status {done.returncode}: {text}")
        check(text.startswith("doppel: the guest crashed (triple fault)"), text)
        check("12345678" in text, f"no EAX in the report: {text}")
        check("RIP 0000000000100018" in text, f"not the RIP of the INT3: {text}")
        check("lidt" in text, f"no last instructions in the report: {text}")


def outputs():
    """A standard output that is full, closed at the start, or closed by its reader."""
    with scratch() as path:
        kernel = write(path("kernel"), multiboot(write_com1(b"x", JUMP_BACK)))
        with open("/dev/full", "wb") as full:
            check_complaint(run("run", "--kernel", kernel, stdout=full, timeout=30), "No space")
            check_complaint(run("doctor", stdout=full), "No space")
            check_complaint(run("--help", stdout=full), "No space")
        reader, writer = os.pipe()
        os.close(reader)
        check_complaint(run("run", "--kernel", kernel, stdout=writer, timeout=30), "Broken pipe")
        os.close(writer)
        closed = subprocess.run(["/bin/sh", "-c", '"$0" "$@" >&-', DOPPEL, "run", "--kernel", kernel],
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=30,
                                check=False)
        check_complaint(closed, "closed")


def debug_ports():
    """The exit port's status, and the debug console's file."""
    with scratch() as path:
        kernel = write(path("kernel"),
                       multiboot(write_com1(b"hello\n", b"\xb0\x41\xe6\xe9" + DEBUG_EXIT % 5)))
        done = run("run", "--kernel", kernel, "--debug-exit", "--debug-exit", "--debug-console", path("debug"),
                   stdin=None, timeout=30)
        check_run(done, 11, b"hello\n", b"")
        with open(path("debug"), "rb") as file:
            check(file.read() == b"A", "the debug console's file is wrong")
        done = run("run", "--kernel", kernel, "--device", "debug-exit", stdin=None, timeout=30)
        check_run(done, 11, b"hello\n", b"")


main(usage, help_and_version, files, devices, disks, kernels, crash, outputs, debug_ports)
