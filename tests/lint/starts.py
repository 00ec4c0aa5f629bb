#!/usr/bin/python3
"""Checks that nothing but the supervisor starts processes: the VM process can then be forbidden to.

What a file calls comes from the symbols that its object leaves undefined. The test first compiles
a file that starts a process and fails if that goes unnoticed.

Usage: starts.py BUILD_ROOT COMPILER...
"""
import os
import re
import subprocess
import sys
import tempfile

STARTS = re.compile(r"_*(?:v?fork|clone\d?|daemon|forkpty|popen|system|wordexp|exec[lv]\w*|fexecve|"
                    r"posix_spawnp?|pidfd_spawnp?)(?:@.*)?")
ALLOWED = {("doppel.p", "src_cli_supervisor.c.o", "fork"),
           ("doppel.p", "src_cli_background.c.o", "fork"),  # what becomes the supervisor
           ("doppel.p", "src_cli_kept_process.c.o", "fork"),  # a part of the supervisor
           ("doppel.p", "src_cli_producer.c.o", "fork"),  # alike
           ("doppel.p", "src_cli_producer.c.o", "execvp"),
           ("doppel.p", "src_cli_program.c.o", "posix_spawnp"),  # for commands that have no VM process
           ("doppel.p", "src_cli_program.c.o", "execvp"),
           ("doppel.p", "src_cli_terminal_guard.c.o", "fork"),  # alike
           ("doppel.p", "src_cli_switch_process.c.o", "fork")}  # and of what that keeps


def starts(path):
    """The functions that start processes and that the object PATH calls."""
    symbols = subprocess.run(["nm", "--undefined-only", "--format=posix", path], check=True,
                             capture_output=True, text=True).stdout
    names = {line.split()[0].partition("@")[0] for line in symbols.splitlines()}
    return sorted(name for name in names if STARTS.fullmatch(name))


def objects(build):
    """The objects of the library and of the command, as (folder, name)."""
    for folder in "libdoppel-inner.a.p", "doppel.p":
        for name in sorted(os.listdir(os.path.join(build, folder))):
            if name.endswith(".o"):
                yield folder, name


def self_test(compiler):
    """Whether a start of a process goes unnoticed, as a list of messages."""
    with tempfile.TemporaryDirectory() as scratch:
        source, path = os.path.join(scratch, "a.c"), os.path.join(scratch, "a.o")
        with open(source, "w", encoding="ascii") as file:
            file.write("#include <stdlib.h>\n#include <unistd.h>\n"
                       "int a(void) { return system(\"x\") + fork() + execl(\"x\", \"x\", NULL); }\n")
        subprocess.run([*compiler, "-w", "-c", source, "-o", path], check=True)
        found = starts(path)
    return [] if found == ["execl", "fork", "system"] else [f"self-test: found only {found}"]


def main():
    build, compiler = sys.argv[1], sys.argv[2:]
    problems = self_test(compiler)
    seen = 0
    for folder, name in objects(build):
        seen += 1
        problems += [f"{folder}/{name} calls {function}, which starts a process"
                     for function in starts(os.path.join(build, folder, name))
                     if (folder, name, function) not in ALLOWED]
    if seen < 50:
        problems.append(f"only {seen} objects found")
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
