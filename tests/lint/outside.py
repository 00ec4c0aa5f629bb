#!/usr/bin/python3
"""Checks the borders that the floors (layers.py) leave open: what may be included outside of src/, and
from outside of it, and which calls only one file may make.

- A program that uses the library sees doppel.h and nothing else.
- A program that runs in a guest sees nothing of the monitor: it would share its mistakes.
- A test may look inside a module, but at a module's private headers only with a reason. A test of the
  library from outside (one that includes doppel.h) looks at no module at all.
- The monitor sees nothing outside of src/ but what a guest's program must agree with it about.
- Signal dispositions belong to the process: one file changes them.

Usage: outside.py SOURCE_ROOT
"""
import os
import re
import sys
import tempfile

from layers import included, plant

# What files in a place may include, by the longest prefix that fits. A name that ends in / is a folder.
BORDERS = {
    "src/": ["src/", "guests/protocol.h", "guests/agent_protocol.h"],
    "examples/": ["examples/", "src/ctl/doppel.h"],
    "guests/": ["guests/"],
    "bench/guest/": ["bench/guest/"],
    "tests/asm/": ["tests/asm/"],
    "tests/asm/direct.c": ["tests/", "src/"],  # runs a guest under an engine that the command lacks
    "tests/guest/locker.c": [],
    "tests/lockstep/guest.c": [],
    "tests/guest/network_peer.c": ["bench/guest/net.h"],  # the other end of the benchmark's programs
    "tests/guest/vsock_guest.c": [],
    "tests/": ["tests/", "src/", "guests/protocol.h", "guests/agent_protocol.h"],
    "tests/fuzz/agent.c": ["guests/", "tests/fuzz/input.h"],  # what the agent reads
}
PRIVATE = re.compile(r"_(private|impl)\.h$")
# Who may look at private headers, and why.
PRIVATE_READERS = {
    "tests/fuzz/race.c": "pauses vCPU threads and looks at their requests",
    "tests/fuzz/share_isolated.c": "plays either side of the memory that a folder's process shares",
    "tests/fuzz/state.c": "steps a machine's vCPUs itself, in place of their threads",
    "tests/lockstep/boot.c": "steps a machine's vCPUs itself, in place of their threads",
    "tests/unit/interchange.c": "compares all that a machine holds from engine to engine",
    "tests/unit/share.c": "fills the bound of names, for which it would need half a million files",
    "tests/unit/share_lock.c": "fills the bound of locked ranges, for which it would need a million of them",
    "tests/unit/share_sides.c": "plays either side of the memory that a folder's process shares",
    "tests/unit/snap.c": "compares all that two machines hold",
    "tests/unit/snap_devices.c": "drives a device by the bus of its machine, which has no guest that does",
    "tests/unit/snap_run.c": "compares all that two machines hold",
}
LIBRARY_HEADER = "src/ctl/doppel.h"
# Which calls are made in which files only.
RESERVED = {
    r"\b(sigaction|signal)\s*\(": ["src/base/signals.c", "src/cli/"],
}


def fits(name, places):
    return any(name == p or (p.endswith("/") and name.startswith(p)) for p in places)


def border_of(source):
    best = max((p for p in BORDERS if fits(source, [p])), key=len, default=None)
    return None if best is None else BORDERS[best]


def violations(source, names):
    """What SOURCE must not include of NAMES; both relative to the root."""
    allowed = border_of(source)
    if allowed is None:
        return [f"{source}: nothing says what it may include"]
    others = [n for n in names if n != source]
    found = [f"{source} includes {n}" for n in others if not fits(n, allowed)]
    if source.startswith("tests/"):
        if source not in PRIVATE_READERS:
            found += [f"{source} includes {n}, which is private" for n in others
                      if PRIVATE.search(n)]
        if LIBRARY_HEADER in others:
            found += [f"{source} tests the library from outside and includes {n}" for n in others
                      if n.startswith("src/") and n != LIBRARY_HEADER]
    return found


def reserved_calls(source, text):
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    return [f"{source} calls {match[1]}(), which only {' and '.join(places)} may"
            for pattern, places in RESERVED.items() if not fits(source, places)
            for match in [re.search(pattern, text)] if match]


def check(root, source, compiler):
    flags = ["-DDOPPEL_DATADIR", f"-I{root}/src", f"-I{root}/src/ctl",
             f"-I{root}/{os.path.dirname(source)}"]
    files = included([compiler, *flags], os.path.join(root, source), root)
    names = [os.path.relpath(f, root) for f in files if os.path.exists(f)]  # else it is generated
    found = violations(source, [n for n in names if not n.startswith(os.pardir)])
    if source.startswith("src/"):
        with open(os.path.join(root, source), encoding="utf-8") as file:
            found += reserved_calls(source, file.read())
    return found


def self_test(compiler):
    """Plants mistakes in a scratch tree; returns what was judged wrongly."""
    cases = [
        ("examples/good.c", "#include <doppel.h>\n", False),
        ("examples/inside.c", '#include <doppel.h>\n#include "base/util.h"\n', True),
        ("tests/asm/guest.c", '#include "base/util.h"\n', True),
        ("tests/asm/direct.c", '#include "base/util.h"\n', False),
        ("bench/guest/guest.c", '#include "../../guests/protocol.h"\n', True),
        ("bench/other.c", "\n", True),
        ("tests/unit/module.c", '#include "base/util.h"\n', False),
        ("tests/unit/private.c", '#include "vm/vm_private.h"\n', True),
        ("tests/unit/library.c", '#include "ctl/doppel.h"\n#include "base/util.h"\n', True),
        ("src/con/session.c", '#include "../../guests/protocol.h"\n', False),
        ("src/con/test.c", '#include "../../tests/unit/test.h"\n', True),
        ("src/vm/handler.c", "void f(void) { sigaction(1, 0, 0); }\n", True),
        ("src/vm/said.c", "/* sigaction() is elsewhere. */ int console_signal(int x);\n", False),
        ("src/base/signals.c", "void f(void) { sigaction(1, 0, 0); }\n", False),
    ]
    headers = ["src/base/util.h", "src/vm/vm_private.h", "src/ctl/doppel.h", "guests/protocol.h",
               "tests/unit/test.h"]
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        root = os.path.realpath(scratch)
        plant(root, [*((h, "") for h in headers), *((n, t) for n, t, _ in cases)])
        for name, _, bad in cases:
            if bool(check(root, name, compiler)) != bad:
                wrong.append(f"self-test: {name} was {'missed' if bad else 'refused'}")
    return wrong


def main():
    root = os.path.realpath(sys.argv[1])
    problems = self_test("cc")
    checked = 0
    for top in "src", "examples", "guests", "bench", "tests":
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders[:] = [f for f in folders if f not in ("cache", "corpus")]
            for name in sorted(names):
                if name.endswith(".c"):
                    source = os.path.relpath(os.path.join(folder, name), root)
                    problems += check(root, source, "cc")
                    checked += 1
    for problem in problems:
        print(problem)
    print(f"{checked} files checked")
    sys.exit(1 if problems or not checked else 0)


if __name__ == "__main__":
    main()
