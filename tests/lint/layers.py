#!/usr/bin/python3
"""Checks the floors: a file includes only files of its own folder or of lower floors. A folder may
have floors of its own, its rooms.

What includes what comes from the compiler (-MM), which sees through macros and nested includes.
The test first plants wrong includes in a scratch tree and fails if they go unnoticed.

Usage: layers.py SOURCE_ROOT BUILD_ROOT
"""
import json
import os
import shlex
import subprocess
import sys
import tempfile

FLOORS = {
    "cli": 6,
    "ctl": 5,
    "vm": 4,
    "cpu": 3, "dev": 3,
    "bus": 2, "image": 2,
    "x86": 1, "mem": 1, "blk": 1, "net": 1, "con": 1, "share": 1,
    "base": 0,
}

# Floors within a folder, by path: the most specific counts.
ROOMS = {
    "cpu/engines": 3,  # the file
    "cpu/interp": 2, "cpu/bt": 2, "cpu/direct": 2, "cpu/kvm": 2,
    "cpu/core": 1,
    "cpu": 0,
    "blk/isolated/serve": 3,  # the file: the disk's process opens what it serves
    "blk/open": 2,  # the file
    "blk/file": 1, "blk/isolated": 1, "blk/nbd": 1, "blk/qcow2": 1,
    "blk": 0,
}


def folder(path):
    """The folder below src/ that PATH, relative to src/, lies in."""
    return path.split(os.sep, 1)[0]


def room(path):
    """The room that PATH lies in: the longest entry of ROOMS that leads to it, or its folder."""
    parts = os.path.splitext(path)[0].split(os.sep)
    for count in range(len(parts), 1, -1):
        if os.sep.join(parts[:count]) in ROOMS:
            return os.sep.join(parts[:count])
    return parts[0]


def judge(own, other):
    """What is wrong with OWN's use of OTHER, both paths relative to src/; None: nothing."""
    here, there = folder(own), folder(other)
    if there not in FLOORS:
        return f"{other}: folder '{there}' has no floor"
    floors = FLOORS[here], FLOORS[there]
    if here == there:
        here, there = room(own), room(other)
        floors = ROOMS.get(here, 0), ROOMS.get(there, 0)
    if here == there or floors[1] < floors[0]:
        return None
    way = "sideways" if floors[0] == floors[1] else "up"
    return f"src/{own} (floor {floors[0]}) reaches {way} to src/{other} (floor {floors[1]})"


def included(compiler, source, cwd):
    """All files that SOURCE includes, directly or not, as absolute paths."""
    result = subprocess.run([*compiler, "-MM", "-MG", source], cwd=cwd, check=True,
                            capture_output=True, text=True)
    names = result.stdout.replace("\\\n", " ").split(":", 1)[1].split()
    return [os.path.realpath(os.path.join(cwd, name)) for name in names]


def violations(src, source, files):
    """What SOURCE includes and must not, as messages."""
    own = os.path.relpath(source, src)
    found = []
    for name in files:
        relative = os.path.relpath(name, src)
        wrong = None if relative.startswith(os.pardir) else judge(own, relative)
        if wrong:
            found.append(wrong)
    return found


def plant(root, files):
    """Writes FILES, pairs of a name and a text, below ROOT: a scratch tree."""
    for name, text in files:
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        with open(os.path.join(root, name), "w", encoding="utf-8") as file:
            file.write(text)


def self_test():
    """Plants includes in a scratch tree; returns what was judged wrongly."""
    cases = [
        ("bus/up.c", '#include "vm/vm.h"\n', True),
        ("dev/sideways.c", '#include "cpu/engine.h"\n', True),
        ("cpu/nested.c", '#include "bus/bad.h"\n', True),
        ("vm/macro.c", '#define FILE "ctl/doppel.h"\n#include FILE\n', True),
        ("vm/boot/down.c", '#include "vm/vm.h"\n#include "cpu/engine.h"\n', False),
        ("cpu/engine.c", '#include "cpu/engine.h"\n', False),
        ("cpu/core/down.c", '#include "cpu/engine.h"\n', False),
        ("cpu/core/up.c", '#include "cpu/interp/interp.h"\n', True),
        ("cpu/bt/down.c", '#include "cpu/core/vcpu.h"\n', False),
        ("cpu/bt/own.c", '#include "cpu/bt/bt.h"\n', False),
        ("cpu/bt/sideways.c", '#include "cpu/interp/interp.h"\n', True),
        ("cpu/mmu.c", '#include "cpu/core/vcpu.h"\n', True),
        ("cpu/engines.c", '#include "cpu/engines.h"\n#include "cpu/interp/interp.h"\n#include "cpu/bt/bt.h"\n', False),
        ("blk/qcow2/down.c", '#include "blk/blk.h"\n', False),
        ("blk/qcow2/sideways.c", '#include "blk/nbd/nbd.h"\n', True),
        ("blk/blk.c", '#include "blk/nbd/nbd.h"\n', True),
        ("blk/open.c", '#include "blk/blk.h"\n#include "blk/nbd/nbd.h"\n', False),
        ("bus/quiet.c", '/* #include "vm/vm.h" */\n', False),
    ]
    headers = {
        "vm/vm.h": "", "cpu/engine.h": "", "ctl/doppel.h": "",
        "cpu/engines.h": "", "cpu/core/vcpu.h": "", "cpu/interp/interp.h": "", "cpu/bt/bt.h": "",
        "blk/blk.h": "", "blk/nbd/nbd.h": "",
        "bus/bad.h": '#include "vm/vm.h"\n',
    }
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        src = os.path.realpath(scratch)
        plant(src, [*headers.items(), *((n, t) for n, t, _ in cases)])
        for name, _, bad in cases:
            source = os.path.join(src, name)
            found = violations(src, source, included(["cc", f"-I{src}"], source, src))
            if bool(found) != bad:
                wrong.append(f"self-test: {name} was {'missed' if bad else 'refused'}")
    return wrong


def main():
    source_root, build_root = sys.argv[1:3]
    src = os.path.realpath(os.path.join(source_root, "src"))
    with open(os.path.join(build_root, "compile_commands.json"), encoding="utf-8") as file:
        commands = json.load(file)

    problems = self_test()
    checked = 0
    seen = set()
    for command in commands:
        source = os.path.realpath(os.path.join(command["directory"], command["file"]))
        if source in seen or not source.startswith(src + os.sep) or not source.endswith(".c"):
            continue
        seen.add(source)
        words = shlex.split(command["command"])
        compiler = words[:2] if os.path.basename(words[0]) == "ccache" else words[:1]
        flags = [word for word in words if word.startswith(("-I", "-D"))]
        problems += violations(src, source,
                               included([*compiler, *flags], source, command["directory"]))
        checked += 1
    for problem in problems:
        print(problem)
    print(f"{checked} files checked")
    sys.exit(1 if problems or not checked else 0)


if __name__ == "__main__":
    main()
