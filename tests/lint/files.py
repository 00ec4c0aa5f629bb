#!/usr/bin/python3
"""Checks what every file must keep to: a length one can read, a banner that says what the file is
for, no stray blanks, no path of somebody's machine.

Usage: files.py SOURCE_ROOT
"""
import os
import re
import sys

MAX_LINES = 1000
MAX_BYTES = 256 * 1024
SKIPPED_FOLDERS = {".git", "cache", "corpus", "__pycache__"}
MACHINE_PATH = re.compile(r"/(?:home|Users)/\w|/work/\w|/tmp/\w")


def problems(name, text):
    """What is wrong with a file of this NAME and TEXT."""
    lines = text.split("\n")
    code = name.endswith((".c", ".h"))
    if code and len(lines) > MAX_LINES + 1:
        yield f"{name}: {len(lines) - 1} lines; over {MAX_LINES} it should be split"
    if code and not text.startswith("/*"):
        yield f"{name}: no banner that says what it is for"
    if text and not text.endswith("\n"):
        yield f"{name}: the last line does not end"
    for number, line in enumerate(lines, 1):
        if line.endswith((" ", "\t", "\r")):
            yield f"{name}:{number}: blanks at the end of the line"
        if (code or name.endswith("meson.build")) and MACHINE_PATH.search(line):
            yield f"{name}:{number}: path of one machine"


def self_test():
    """Returns the kinds of mistake that went unnoticed."""
    mistakes = {
        "long.c": "/* */\n" * (MAX_LINES + 1),
        "banner.c": "int a;\n",
        "end.c": "/* */",
        "blank.c": "/* */ \n",
        "path.c": '/* */\nopen("/tmp/x");\n',
    }
    missed = [n for n, text in mistakes.items() if not list(problems(n, text))]
    return [f"self-test: {n} was missed" for n in missed] + list(problems("good.c", "/* */\n"))


def main():
    root = sys.argv[1]
    found = self_test()
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders
                      if f not in SKIPPED_FOLDERS and not f.startswith("build")]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                continue
            if os.path.getsize(path) > MAX_BYTES:
                found.append(f"{os.path.relpath(path, root)}: over {MAX_BYTES} bytes")
                continue
            try:
                with open(path, encoding="utf-8", newline="") as file:
                    text = file.read()
            except UnicodeDecodeError:
                continue
            found += problems(os.path.relpath(path, root), text)
    for problem in found:
        print(problem)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
