"""What the bare-metal guests may do differently under KVM, and where they are not run at all.

A real KVM has no entry here: the host's processor executes the guest. A "pagetable" KVM (the module
kvm_pvm) executes only user code so, and has an emulator for everything else, which leaves out much of
what a processor does. What is listed is excused there, by the name of the check, and nowhere else.
"""
import os
import re

# Why.
REASONS = {
    'int': 'INT n and INT3 of user code raise #UD, or do not look at the gate\'s DPL',
    'partial': 'a write that faults in its second page has written to the first',
    'canonical': 'addresses of 57 bits count as canonical where the host has LA57, or nothing is checked',
    'breakpoints': 'the emulator knows of no breakpoints on data and ports, and of few single steps',
    'alignment': 'the emulator does not check the operand of FXSAVE, and saves another area',
    'errors': 'a fault during the delivery of another one is always #DF, and CR2 is the page',
    'modes': 'the emulator does not look at the mode',
    'hidden': 'user code and CPUID show features of the host that KVM cannot hide',
    'registers': 'the emulator takes any value for some model-specific registers',
    'tsc': 'the TSC is the host\'s, so deadlines in it are far away',
    'batches': 'the emulator looks for interrupts after many instructions only',
    'locked': 'locked accesses across two pages are not atomic',
    'nothing': 'page tables that are not in memory are a page that is not present',
    'syscall': 'SYSCALL and SYSENTER do not change the privilege level',
    'paging32': '32-bit paging cannot be enabled',
    'tasks': 'the emulator knows of no tasks',
    'stuck': 'the emulator does not come to an end',
    'slow': 'takes minutes',
}

NOT_RUN = {
    'paging32': 'paging32', 'strings32': 'paging32', 'watch32': 'paging32', 'control': 'paging32',
    'tasks': 'tasks', 'double32': 'tasks', 'gates32': 'int', 'gates64': 'int', 'syscalls': 'syscall',
    'io32': 'int', 'io64': 'int', 'v86': 'int', 'paging64': 'int', 'spaces': 'int',
    'matrix32': 'slow', 'matrix64': 'slow', 'race': 'slow',
    'realmode': 'stuck', 'movss32': 'breakpoints', 'movss64': 'breakpoints',
    'apic': 'tsc', 'irq': 'slow', 'smp': 'locked',
}

INT = [('int', r'INT 4[01]h from user|INT3 from user|aligned |unaligned |byte: '),]
STEPS = [('breakpoints', r'breakpoint|: [0-9a-f]+, wanted|traps after each|are not stepped')]
USER = [('int', r'in user mode( with CR4.TSD)?: #UD'),
        ('hidden', r'XSETBV without|MONITOR in user mode')]
DIFFERENCES = {
    'exceptions32': INT, 'exceptions64': INT,
    'tlb': [('breakpoints', r'a breakpoint is met')],
    'access': [('partial', r'wrote nothing$'), ('canonical', r'non-canonical|end of the low half'),
               ('alignment', r'FXSAVE')],
    'compat': [('modes', r'SWAPGS in compat|the upper half of CR')],
    'limits': [('int', r'PUSH .*: #UD')],
    'descriptors32': USER, 'descriptors64': USER,
    'debug32': STEPS, 'debug64': STEPS,
    'watch64': [('breakpoints', r'')],
    'double64': [('errors', r'CR2 is of the second|is one #PF|then #NP')],
    'fpu': [('alignment', r'FXSAVE leaves')],
    'msr': [('registers', r'IA32_(PRED|FLUSH)_CMD|of IA32_SPEC_CTRL'), ('tsc', r'TSC|RDMSR of it'),
            ('hidden', r'PKE|MOVBE')],
    'mmio': [('nothing', r'reserved bits are set')],
    'testdev': [('batches', r'rises|a level comes again')],
}

# What has a register hold what no processor lets in, so that no machine is loaded with it.
IMPOSSIBLE = {'canonical', 'modes', 'registers'}


def emulates():
    return os.path.exists('/sys/module/kvm_pvm')


def why_not(guest, moves):
    """Why GUEST cannot be run under KVM here, or None. MOVES: its machine is saved and loaded meanwhile."""
    try:
        os.close(os.open('/dev/kvm', os.O_RDWR))
    except OSError as error:
        return f'/dev/kvm: {error.strerror}'
    if emulates() and guest in NOT_RUN:
        return f'this KVM is an emulator: {REASONS[NOT_RUN[guest]]}'
    for reason, _ in DIFFERENCES.get(guest, []) if emulates() and moves else []:
        if reason in IMPOSSIBLE:
            return f'this KVM is an emulator: {REASONS[reason]}, and what it leaves then is no state to load'
    return None


def excuse(guest, check):
    """Why CHECK, a line of GUEST's report, may fail here, or None."""
    for reason, pattern in DIFFERENCES.get(guest, []) if emulates() else []:
        if re.search(pattern, check):
            return REASONS[reason]
    return None
