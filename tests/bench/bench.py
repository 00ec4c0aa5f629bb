#!/usr/bin/python3
"""Tests the benchmark: that its program does what it is told, here natively, and that its report
says what was measured.

Usage: bench.py BENCH_PROGRAM
"""
import contextlib
import io
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
import machines  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402


def fails_with(words, function, *args):
    """Whether FUNCTION fails and says WORDS."""
    try:
        function(*args)
    except machines.Failed as error:
        assert words in str(error), f"{error!r} without '{words}'"
        return
    raise AssertionError(f"no failure that says '{words}'")


def check_program():
    """Each test natively, for a moment; and what the program is asked wrongly."""
    machine = machines.Machine(machines.Kind("native", None), 1, None, 0)
    machine.data = ""
    try:
        tests = machine.list()
        names = [name for name, *_ in tests]
        assert len(names) > 40 and len(set(names)) == len(names), names
        assert {group for _, group, *_ in tests} < set(run.GROUPS), tests
        assert set(run.KERNEL_PATHS) <= set(names), names
        for name, group, cpus, _ in tests:
            if group == "kernel" or int(cpus) > (os.cpu_count() or 1):
                continue  # may not happen while one looks; cannot be done
            ns, ops, output = machine.test(name, 1)
            assert ns > 0 and ops > 0 and not output, (name, ns, ops, output)
        assert machine.operations("syscall", 1234)[1] == 1234
        fails_with("cannot run 'nonesuch'", machine.test, "nonesuch", 1)
        fails_with("cannot run 'syscall'", machine.operations, "syscall", 0)
        fails_with("unknown command", machine.run, "nonesuch")
    finally:
        machine.end()


def check_exec():
    """Programs: their output, their input, their failure."""
    # Without a root of their own, the programs are this host's.
    process = machines.Process([machines.PROGRAM, ""])
    machine = machines.Machine.__new__(machines.Machine)
    machine.process, machine.data, machine.first = process, "", None
    try:
        machine._until_ready(10)
        shown = machine.run("exec /dev/null\tshow\t/bin/echo\ttwo words\tx")
        assert shown[2] == ["two words x"] and shown[0] > 0, shown
        assert machine.run("exec /dev/null\thide\t/bin/echo\tx")[2] == []
        assert machine.run(f"exec {os.path.abspath(__file__)}\tshow\t/usr/bin/head\t-1")[2] == \
            ["#!/usr/bin/python3"]
        fails_with("exit status 1", machine.run, "exec /dev/null\tshow\t/bin/false")
        fails_with("signal 9", machine.run, "exec /dev/null\tshow\t/bin/sh\t-c\tkill -9 $$")
    finally:
        machine.end()


def results():
    """A run's results, made up: an engine twice as slow as natively and TCG ten times."""
    def test(group, **ns):
        return {"group": group, "what": "thing", "ns": ns, "ops": {}}
    return {
        "machines": ["native", "bt", "tcg"], "engines": ["bt"],
        "tests": {
            "integer": test("compute", native=[10, 11, 900], bt=[22], tcg=[110]),
            "libm": test("compute", native=[1e6], bt=[5e5], tcg=[4e6]),
            "syscall": test("os", native=[100], bt=[251.5], tcg=[250]),
            "one-busy": test("smp", bt=[2.0]), "two-busy": test("smp", bt=[1.0]),
        },
        "boot": {"bt": {"first_ns": [5e8], "shell_ns": [6e8], "statistics":
                        {"resident": 60 << 20, "guest_resident": 20 << 20,
                         "exits": {"port": 2000, "cpuid": 10, "halt": 5, "mmio": 0},
                         "exit_ns": {"port": 800000, "cpuid": 15000, "halt": 9e9, "mmio": 0},
                         "work": {"translation-us": 300, "translated-instructions": 250}}},
                 "tcg-microvm": {"first_ns": [1e9], "shell_ns": [2e9]}},
        "paths": {"bt": {"syscall": {"instructions": 300, "syscall": 1.0, "port": 0.001}}},
        "errors": ["tcg: gcc: exit status 1"], "clock": {"bt": {1: 0.001}, "tcg": {1: -0.35, 2: 0}},
        "host": {"cpu": "C", "cpus": 2, "kernel": "K", "doppel": "D", "commit": "0", "qemu": "Q",
                 "load_before": 0.1, "load_after": 1, "time": "T", "seconds": 5, "rounds": 3,
                 "ms": 1, "whole": True},
    }


def check_engines():
    """KVM is measured where it is real."""
    before = machines.DOPPEL
    with tempfile.TemporaryDirectory() as folder:
        machines.DOPPEL = os.path.join(folder, "doppel")
        for native, wanted in ("true", ["bt", "kvm", "interp"]), ("false", ["bt", "interp"]):
            with open(machines.DOPPEL, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\ncase $1 in\n"
                           "run) echo \"unknown engine '?' (known: auto, bt, interp, kvm)\" >&2 ;;\n"
                           f"doctor) echo '{{\"kvm_native\": {native}}}' ;;\nesac\n")
            os.chmod(machines.DOPPEL, 0o755)
            assert machines.engines() == wanted, (native, machines.engines())
    machines.DOPPEL = before


def check_report():
    """Medians, ratios, means and targets, in all forms."""
    found = report.Found(results())
    assert found.median["integer"] == {"native": 11, "bt": 22, "tcg": 110}
    assert found.ratio("integer", "tcg", "bt") == 5
    assert found.ratio("one-busy", "tcg", "bt") is None
    assert abs(found.mean("compute", "bt", "native") - 1) < 1e-9  # of 2 and 1/2
    reached = {what: reached for what, _, _, reached in report.targets(found)[1]}
    assert reached == {
        "computing, times native": True, "computing, times as fast as TCG": True,
        "operating system, times as fast as TCG": False, "null system call": False,
        "tests slower than TCG": False, "boot to the first program, times TCG's microvm": True,
        "two busy threads, times one": True, "translation, for each guest instruction": False,
        "monitor's memory beyond the guest's": True}, reached
    partial = results()
    partial["host"]["whole"] = False
    assert report.targets(report.Found(partial))[1] == []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        report.write(results(), folder)
        with open(os.path.join(folder, "results.md"), encoding="utf-8") as text:
            table = text.read()
        assert os.path.getsize(os.path.join(folder, "results.json")) > 1000
    assert "| integer | thing | 11 ns | 22 ns | 2.00 | 110 ns | 10 | 5.00 |" in table, table
    assert "**geometric mean**" in table and "exit status 1" in table, table
    assert "clock of tcg was -35.0% off" in table and "clock of bt" not in table, table
    assert "MISSED   null system call: 251.50 ns (at most 250 ns)" in said.getvalue()
    assert "MISSED   translation, for each guest instruction: 1200.00 ns" in said.getvalue()
    assert "| bt | 500 ms | 600 ms | 0.50 | 40 MiB | 1.2 µs |" in table, table
    assert "| port | 2000 | 400 ns |" in table and "| cpuid | 10 | 1.5 µs |" in table, table
    assert "| halt |" not in table and "| mmio |" not in table, table
    assert [report.human_time(ns) for ns in (0.5, 999, 12345, 2.5e9)] == \
        ["0.5 ns", "999 ns", "12.3 µs", "2.5 s"]
    check_engines()
    machine = machines.Machine.__new__(machines.Machine)
    machine.first, machine.last = (7_000, 1_000), (7_000 + 16 * 10**9, 1_000 + 20 * 10**9)
    assert abs(machine.drift() + 0.2) < 1e-9
    machine.last = 7_001, 1_001
    assert machine.drift() is None
    assert run.openssl_ns(["+DT:A:1:16384", "+R:500:A:0.5"]) == 1e6


def main():
    machines.PROGRAM = os.path.abspath(sys.argv[1])
    for check in (check_program, check_exec, check_report):
        check()
        print(f"{check.__name__}: ok")


if __name__ == "__main__":
    main()
