#!/usr/bin/env python3
"""Runs one bare-metal guest in doppel and judges its report.

    run.py DOPPEL KERNEL [--engine NAME] [--cpus N] [--device NAME] [--crash]
    run.py --direct [--switch] PROGRAM KERNEL ...

A guest passes when it ends through the debug-exit port with status 1 (it wrote 0), printed a plan
("1..N") and just as many results, none of them "not ok". With --crash it must die of a triple fault
instead, having announced it, and print no "not ok". With --direct, PROGRAM (direct.c) runs it in
place of doppel; its machine has all devices that a guest asks for with --device. With --switch, the engines
(--engine NAME,NAME...) take turns in one machine.

With kvm, kvm-own or kvm-board among the engines it is skipped where there is no KVM, and what kvm.py lists may differ.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

import kvm

DEBUG_EXIT_PASSED = 1
DEBUG_EXIT_FAILED = 3  # checks have failed
SKIPPED = 77  # as meson understands it
TIMEOUT_S = 240


def excuse_differences(guest, report, status):
    """REPORT and STATUS as they are without the failures that kvm.py excuses."""
    def judge(line):
        why = kvm.excuse(guest, line[0])
        return f'ok {line[1]} # failed, as it may: {why}' if why else line[0]
    report = re.sub(r'^not ok (\d+ - .*)$', judge, report, flags=re.M)
    if status == DEBUG_EXIT_FAILED and not re.search('^(not ok|Bail out!)', report, re.M):
        status = DEBUG_EXIT_PASSED
    return report, status


def problems(report, status, crash):
    results = re.findall(r'^(ok|not ok|differs) \d+ - ', report, re.M)
    if 'not ok' in results:
        yield f'{results.count("not ok")} of {len(results)} checks failed'
    if 'differs' in results:
        yield 'a check was excused as under QEMU'
    if 'Bail out!' in report:
        yield 'the guest gave up'
    if crash:
        if status == DEBUG_EXIT_PASSED or '# a triple fault follows' not in report:
            yield f'no triple fault (status {status})'
        return
    if status != DEBUG_EXIT_PASSED:
        yield f'exit status {status}'
    plan = re.search(r'^1\.\.(\d+)$', report, re.M)
    if not plan:
        yield 'no plan at the end: it did not run to its end'
    elif int(plan[1]) != len(results):
        yield f'{len(results)} results where {plan[1]} were planned'


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('doppel')
    parser.add_argument('kernel')
    parser.add_argument('--cpus', default='1')
    parser.add_argument('--device', action='append', default=[])
    parser.add_argument('--crash', action='store_true')
    parser.add_argument('--engine', default='interp')
    parser.add_argument('--direct', action='store_true')
    parser.add_argument('--switch', action='store_true')
    args = parser.parse_args()
    guest = os.path.basename(args.kernel).split('.')[0]
    under_kvm = any(name.startswith('kvm') for name in args.engine.split(','))
    moves = args.direct and ',' in args.engine and not args.switch
    reason = under_kvm and kvm.why_not(guest, moves)
    if reason:
        print(f'not run: {reason}')
        return SKIPPED
    with tempfile.NamedTemporaryFile() as console:
        command = [args.doppel, 'run', '--kernel', args.kernel, '--no-reboot', '--test-device',
                   '--debug-exit', '--debug-console', console.name, '--memory', '64M', '--cpus', args.cpus,
                   '--engine', args.engine]
        for device in args.device:
            command += ['--device', device]
        if args.direct:
            command = [args.doppel, *(['--switch'] if args.switch else []), args.engine, args.kernel, args.cpus]
        try:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False)
            status, said = ended.returncode, ended.stdout
        except subprocess.TimeoutExpired as expired:
            status, said = f'none within {TIMEOUT_S} s', expired.stdout or b''
        report = console.read().decode('latin-1')
    said = said.decode('latin-1')
    if args.direct:
        report, said = said, ''
    if under_kvm:
        report, status = excuse_differences(guest, report, status)
    found = list(problems(report, status, args.crash))
    shown = report if not found else report + said
    sys.stdout.write(shown)
    for problem in found:
        print(f'{args.kernel}: {problem}')
    return int(bool(found))


if __name__ == '__main__':
    sys.exit(main())
