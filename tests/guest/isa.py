#!/usr/bin/python3
"""`doppel isa`: its three tables, as text and as JSON, agree with each other and with the literature.

Usage: isa.py DOPPEL
"""
import json
import subprocess
import sys

# Robin and Irvine, 2000, table 2, by the names that instructions have here.
PENTIUM = {"sgdt", "sidt", "sldt", "smsw", "pushf", "pushfd", "popf", "popfd", "lar", "lsl", "verr",
           "verw", "pop (segment)", "push (segment)", "call (far)", "jmp (far)", "int", "ret (far)",
           "str", "mov (segment)"}
# Some that came with 64-bit code.
BROTHERS = {"pushfq", "popfq", "iretq", "rdfsbase", "syscall", "rdtscp"}

problems = []


def check(good, what):
    if not good:
        problems.append(what)


def run(doppel, *arguments):
    return subprocess.run([doppel, "isa", *arguments], capture_output=True, text=True)


def main():
    doppel = sys.argv[1]
    whole = json.loads(run(doppel, "--json").stdout)["instructions"]
    by_name = {i["name"]: i for i in whole}
    check(len(by_name) == len(whole) > 700, f"{len(whole)} instructions, {len(by_name)} names")
    check({i["name"] for i in whole if i["pentium"]} == PENTIUM, "not the Pentium's 17")

    escapes = json.loads(run(doppel, "--sensitive-unprivileged", "--json").stdout)["instructions"]
    names = {i["name"] for i in escapes}
    check(PENTIUM | BROTHERS <= names, f"missing: {(PENTIUM | BROTHERS) - names}")
    check(all(not i["privileged"] and (i["control_sensitive"] or i["behaviour_sensitive"])
              for i in escapes), "privileged or innocuous ones among those that escape")
    for name in "hlt", "cli", "in", "mov (control)", "wrmsr":
        check(by_name[name]["privileged"] and name not in names, f"{name} is not privileged")
    for name in "add", "mov", "addps", "fadd":
        check(not by_name[name]["why"], f"{name} is not innocuous")

    # Each instruction is in one cell for each mode.
    actions = json.loads(run(doppel, "--actions", "--json").stdout)
    for engine in "interp", "bt":
        for mode in "user", "privileged":
            cells = [row[mode] for row in actions[engine].values()]
            total = sum(n for cell in cells for n in cell.values() if isinstance(n, int))
            check(total == len(whole), f"{engine}, {mode}: {total} instructions")

    for arguments in (), ("--sensitive-unprivileged",), ("--actions",), ("--help",):
        result = run(doppel, *arguments)
        check(result.returncode == 0 and not result.stderr and len(result.stdout) > 300,
              f"{arguments}: {result}")
    check("popfq" in run(doppel, "--sensitive-unprivileged").stdout, "POPFQ is not listed")
    for arguments in ("--actions", "--sensitive-unprivileged"), ("word",), ("--wrong",):
        result = run(doppel, *arguments)
        check(result.returncode == 125 and result.stderr.startswith("doppel: "), f"{arguments}: {result}")
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
