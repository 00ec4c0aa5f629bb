#!/usr/bin/python3
"""The library as others get it: installs into a scratch folder and builds and runs the example there,
by pkg-config, against the shared and the static library. Checks that the libraries show what doppel.h
declares and nothing else, and that what is installed is hardened.

Usage: install.py MESON BUILD_ROOT EXAMPLE
"""
import glob
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile

LOAD = 0x100000
# mov $0x3F8,%dx; out "ok\n"; mov $0x604,%dx; mov $0x3400,%ax; out %ax,%dx; 1: hlt; jmp 1b
SAYS_OK = bytes.fromhex("66BAF803" "B06FEE" "B06BEE" "B00AEE" "66BA0406" "66B80034" "66EF" "F4EBFD")
# A program that uses the names of the library's own functions for its own.
CLASHES = "int loop_create, vm_create, error_set, mem_create, signals_watch, bus_create;\n"

problems = []


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    if result.returncode:
        sys.exit(f"{shlex.join(command)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def check(good, what):
    if not good:
        problems.append(what)


def one(stage, pattern):
    """The one file in STAGE with this name."""
    found = [f for f in glob.glob(f"{stage}/**/{pattern}", recursive=True) if not os.path.islink(f)]
    if len(found) != 1:
        sys.exit(f"{pattern}: {len(found)} are installed: {found}")
    return found[0]


def write_kernel(path):
    """A Multiboot kernel of 32-bit code without ELF."""
    header = struct.pack("<8I", 0x1BADB002, 0x10000, -0x1BADB002 - 0x10000 & 0xFFFFFFFF,
                         LOAD, LOAD, 0, 0, LOAD + 32)
    with open(path, "wb") as file:
        file.write(header + SAYS_OK)


# ---- The example ----

def check_run(program, kernel, environment):
    said = run(program, kernel, env=environment).split("\n")
    for name in "one", "two":
        check(f"{name}: ok" in said, f"{program}: machine {name} did not say ok: {said}")
        check(f"{name}: (powered off)" in said, f"{program}: machine {name} is not off: {said}")


def check_example(stage, scratch, example):
    config = one(stage, "doppel.pc")
    environment = {**os.environ, "PKG_CONFIG_PATH": os.path.dirname(config),
                   "PKG_CONFIG_SYSROOT_DIR": stage}
    flags = run("pkg-config", "--cflags", "--libs", "doppel", env=environment).split()
    static = run("pkg-config", "--cflags", "--libs", "--static", "doppel", env=environment).split()
    at = static.index("-ldoppel")
    static[at:at + 1] = ["-Wl,-Bstatic", "-ldoppel", "-Wl,-Bdynamic"]
    version = run("pkg-config", "--modversion", "doppel", env=environment).strip()
    with open(one(stage, "doppel.h"), encoding="utf-8") as file:
        check(f'#define DOPPEL_VERSION "{version}"\n' in file.read(),
              f"doppel.h is of another version than {version}")

    kernel, clashes = f"{scratch}/kernel", f"{scratch}/clashes.c"
    write_kernel(kernel)
    with open(clashes, "w", encoding="utf-8") as file:
        file.write(CLASHES)
    strict = ["-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    run("cc", *strict, example, clashes, *flags, "-o", f"{scratch}/shared")
    check_run(f"{scratch}/shared", kernel,
              {**os.environ, "LD_LIBRARY_PATH": os.path.dirname(one(stage, "libdoppel.so.*"))})
    run("cc", *strict, example, clashes, *static, "-o", f"{scratch}/static")
    check("libdoppel" not in run("readelf", "-d", f"{scratch}/static"),
          "the statically linked example wants the shared library")
    check_run(f"{scratch}/static", kernel, os.environ)


def check_header(stage, scratch):
    """The header alone is C11 and C++ without a warning."""
    program = f"{scratch}/header.c"
    with open(program, "w", encoding="utf-8") as file:
        file.write("#include <doppel.h>\n")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
              f"-I{os.path.dirname(one(stage, 'doppel.h'))}"]
    run("cc", "-std=c11", *strict, program)
    for compiler in "c++", "clang++":
        if shutil.which(compiler):
            run(compiler, "-std=c++11", *strict, "-x", "c++", program)


# ---- What it shows of itself ----

def check_symbols(stage):
    with open(one(stage, "doppel.h"), encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    text = re.sub(r"static inline[^{]*\{.*?\n\}", "", text, flags=re.S)
    declared = set(re.findall(r"\b(doppel_\w+)\(", text))
    check(len(declared) > 15, f"doppel.h declares {len(declared)} functions")
    for name, flag in ("libdoppel.so.*", "-D"), ("libdoppel.a", "-g"):
        lines = run("nm", flag, "--defined-only", one(stage, name)).split("\n")
        shown = {line.split()[2] for line in lines if len(line.split()) == 3}
        check(shown == declared, f"{name} shows {sorted(shown - declared)} that doppel.h does not "
              f"declare, and not {sorted(declared - shown)}")


def check_hardened(path):
    name = os.path.basename(path)
    headers = run("readelf", "-W", "-l", path)
    dynamic = run("readelf", "-W", "-d", path)
    imports = run("nm", "-D", "--undefined-only", path)
    stack = re.search(r"GNU_STACK .*", headers)
    check("GNU_RELRO" in headers, f"{name}: no RELRO")
    check(re.search(r"FLAGS.*\bNOW\b", dynamic), f"{name}: symbols are bound lazily")
    check(stack and not re.search(r"\bRWE\b", stack[0]), f"{name}: the stack is executable")
    check(not re.search(r"LOAD .*\bRWE\b", headers), f"{name}: code is writable")
    check("TEXTREL" not in dynamic, f"{name}: code is relocated")
    check(re.search(r"Type:\s+DYN", run("readelf", "-h", path)), f"{name}: not PIE")
    check("__stack_chk_fail" in imports, f"{name}: no stack protector")
    check(re.search(r"__\w+_chk\b", imports.replace("__stack_chk_fail", "")),
          f"{name}: not built with _FORTIFY_SOURCE")


# ---- What comes with the command ----

def check_pages(stage, build_root):
    """Each subcommand that has a page of its own in its name, and the unit that starts machines."""
    pages = {os.path.basename(page) for page in glob.glob(f"{stage}/**/man1/doppel*", recursive=True)}
    for name in ("console", "disable", "edit", "enable", "events", "image", "kill", "list", "logs", "ls", "pause",
                 "restart", "resume", "show", "start", "stop"):
        check(any(page.startswith(f"doppel-{name}.1") for page in pages), f"doppel {name} has no manual page")
    with open(one(stage, "doppel.service"), encoding="utf-8") as file:
        unit = file.read()
    program = re.search(r"ExecStart=(\S+) start --all\n", unit)
    check(program and os.path.exists(stage + program[1]), "doppel.service starts something else")
    if not shutil.which("systemd-analyze") or not program:
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/doppel.service"
        with open(path, "w", encoding="utf-8") as file:
            file.write(unit.replace(program[1], os.path.join(os.path.realpath(build_root), "doppel")))
        run("systemd-analyze", "verify", "--user", "--man=no", path, env={**os.environ, "XDG_RUNTIME_DIR": scratch})


def main():
    meson, build_root, example = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as scratch:
        stage = f"{scratch}/stage"
        run(meson, "install", "-C", build_root, "--no-rebuild", "--quiet", "--destdir", stage)
        check_symbols(stage)
        check_header(stage, scratch)
        check_pages(stage, build_root)
        check_example(stage, scratch, example)
        check_hardened(one(stage, "bin/doppel"))
        check_hardened(one(stage, "libdoppel.so.*"))
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
