#!/usr/bin/python3
"""Other kernels, and other amounts of memory, than the default guest's."""
import hashlib
import re
import tempfile

from vm import archive, check, check_run, guest, main, run, terminal


def boots(kernel, release, *options, script="uname -rm"):
    """Boots KERNEL and checks what `uname -rm` says, and the exit status."""
    done = run("run", "--kernel", guest(kernel), *options, "--", "sh", "-c", f"{script}; exit 3")
    check_run(done, 3, stderr=b"")
    check(re.match(release, done.stdout), done.stdout)
    return done.stdout


def memory_seen(output):
    """MemTotal in KiB, as the last number in OUTPUT."""
    return int(re.findall(rb"\d+", output)[-1])


SHOW_MEMORY = "uname -rm; grep MemTotal /proc/meminfo"


def debian_6_1_small():
    """128 MiB."""
    kib = memory_seen(boots("vmlinuz-6.1", rb"6\.1\.", "--memory", "128M", script=SHOW_MEMORY))
    check(60 << 10 < kib < 128 << 10, f"{kib} KiB of memory")


def debian_6_1_large():
    """8 GiB, most of it above 4 GiB, and two vCPUs."""
    kib = memory_seen(boots("vmlinuz-6.1", rb"6\.1\.", "--memory", "8G", "--cpus", "2",
                            script=SHOW_MEMORY))
    check(7 << 20 < kib < 8 << 20, f"{kib} KiB of memory")


def debian_6_12():
    """128 MiB, one vCPU."""
    boots("vmlinuz-6.12", rb"6\.12\..*cloud-amd64 x86_64\n", "--memory", "128M")


def debian_6_12_smp():
    """8 GiB, two vCPUs."""
    output = boots("vmlinuz-6.12", rb"6\.12\.", "--memory", "8G", "--cpus", "2", script="uname -r; nproc")
    check(output.endswith(b"\n2\n"), output)


def i386():
    """32-bit, with two-level page tables, to the same shell."""
    guest("initrd-i386.img")
    done = run("run", "--kernel", guest("vmlinuz-686"), stdin=b"uname -rm\n")
    check_run(done, 0, stderr=b"")
    check(re.search(rb"# uname -rm\n6\.1\.\S+-686 i686\ndoppel:~# \n$", done.stdout), done.stdout)


def i386_pae():
    """32-bit, with PAE."""
    guest("initrd-i386.img")
    boots("vmlinuz-686-pae", rb"6\.1\.\S+-686-pae i686\n")


def mp_table():
    """Two processors and their interrupts without ACPI. Debian's cloud kernels cannot read MP tables."""
    guest("initrd-i386.img")
    output = boots("vmlinuz-686-pae", rb"6\.1\.", "--cpus", "2", "--append", "acpi=off",
                   script="uname -r; nproc; dmesg | grep MPTABLE; cat /proc/interrupts")
    check(re.match(rb"\S+\n2\n", output), output)
    check(b"MPTABLE: OEM ID: DOPPEL" in output, output)
    check(re.search(rb" 4: .*IO-APIC +4-edge +ttyS0", output), output)


def dmi():
    """What the machine says about itself, and its memory, by SMBIOS."""
    output = boots("vmlinuz-6.1", rb"6\.1\.", script="uname -r; cd /sys/class/dmi/id; "
                   "cat sys_vendor product_name; cd /sys/firmware/dmi/entries; cat 17-0/raw | wc -c")
    check(re.search(rb"\ndoppel\nPC\n[1-9]", output), output)


def virtio_rng():
    """Random bytes by virtio, as the guest's kernels find, place and drive the device: over MSI-X."""
    script = ("uname -r; cd /sys/class/misc/hw_random; cat rng_current; head -c 65536 /dev/hwrng | gzip | wc -c; "
              "grep virtio0 /proc/interrupts; cat /sys/bus/pci/devices/0000:00:05.0/resource")
    for kernel, release in [("6.1", rb"6\.1\."), ("6.12", rb"6\.12\."), ("686-pae", rb"6\.1\.")]:
        guest(f"modules-{kernel}.img")
        output = boots(f"vmlinuz-{kernel}", release, "--device", "rng,slot=5", script=script)
        check(re.match(rb"\S+\nvirtio_rng\.0\n6[5-9]\d{3}\n", output), output)
        check(re.search(rb"[1-9]\d* .*MSI.*virtio0-input", output), output)
        check(re.search(rb"\n0x00000000[c-f]\w+ 0x00000000[c-f]\w+ 0x\w+\n", output), output)


def balloon():
    """A guest gives what it is asked for and what it does not use, and goes on well."""
    guest("modules-6.12.img")
    output = boots("vmlinuz-6.12", rb"6\.12", "--cpus", "2", "--memory", "512M", "--device", "balloon,inflate=64",
                   script="uname -r; head -c 100000000 /dev/zero > /a; rm /a; "
                   "for i in 1 2 3 4 5 6 7 8 9; do grep -q 'inflate 16384' /proc/vmstat && break; sleep 1; done; "
                   "grep balloon_inflate /proc/vmstat; head -c 20000000 /dev/zero | sha256sum")
    check(b"balloon_inflate 16384\n" in output, output)
    check(b"9e21c61969cd3e077a1b2b58ddb583b175e13c6479d2d83912eaddc23c0cdd52" in output, output)


def pci_pins():
    """Interrupt pins instead of messages, routed by _PRT to the I/O APIC and to the 8259s, and by the MP table."""
    script = "uname -r; head -c 65536 /dev/hwrng | gzip | wc -c; grep virtio0 /proc/interrupts"
    for kernel, append, line in [("6.12", "pci=nomsi", rb" 17: .*IO-APIC +17-fasteoi +virtio0"),
                                 ("6.1", "pci=nomsi noapic", rb"  7: .*XT-PIC +virtio0"),
                                 ("686-pae", "pci=nomsi acpi=off", rb" 17: .*IO-APIC +17-fasteoi +virtio0")]:
        guest(f"modules-{kernel}.img")
        output = boots(f"vmlinuz-{kernel}", rb"6\.1", "--device", "rng,slot=5", "--append", append, script=script)
        check(re.search(rb"\n6[5-9]\d{3}\n", output), output)
        check(re.search(line, output), output)


def compat():
    """32-bit programs under a 64-bit kernel."""
    with open(guest("initrd.img"), "rb") as initrd, open(guest("busybox-i386"), "rb") as busybox, \
         tempfile.NamedTemporaryFile() as both:
        image = initrd.read()
        both.write(image + b"\0" * (-len(image) % 4) + archive(("bin/busybox32", busybox.read())))
        both.flush()
        script = ("uname -m; head -c 1000000 /dev/zero | busybox32 sha256sum; "
                  "busybox32 awk 'BEGIN { while (i < 5000) s += ++i / 4; print s }'")
        done = run("run", "--initrd", both.name, "--", "sh", "-c", script)
    check_run(done, 0, stdout=b"x86_64\n%s  -\n3125625\n" %
              hashlib.sha256(bytes(1000000)).hexdigest().encode(), stderr=b"")


def plain_console():
    """An initramfs given by name: no session, the shell is on the console."""
    done = run("run", "--kernel", guest("vmlinuz-6.1"), "--initrd", guest("initrd.img"), "--append",
               "quiet", stdin=b"echo $((6 * 7)) on $(tty)\npoweroff\n")
    check_run(done, 0, stderr=b"")
    check(b"42 on /dev/ttyS0" in done.stdout, done.stdout)


def shows(kernel, append, pattern):
    """Starts a kernel that never ends and waits for what it says on the serial console."""
    with terminal("run", "--kernel", guest(kernel), "--append", append, "--memory", "128M") as term:
        term.expect(pattern)
        term.send(b"\1x")
        check(term.wait() == 0, "status is not 0")
        term.check_restored()


# memtest86+ draws a screen: "Pass  1%" and "Test  1%" stand in it among control sequences.
FIRST_PASS = rb"(?s)Memtest86\+.*Pass.*Test.*Testing:.*Pattern:.*[0-9]%"


def memtest_64():
    """memtest86+, 64-bit, starts its first pass."""
    shows("memtest-x64.bin", "console=ttyS0,115200", FIRST_PASS)


def memtest_32():
    """memtest86+, 32-bit."""
    shows("memtest-ia32.bin", "console=ttyS0,115200", FIRST_PASS)


def gnumach():
    """GNU Mach by Multiboot, as far as it comes without servers."""
    shows("gnumach.gz", "console=com0", rb"(?s)GNU Mach.*(no bootstrap|No bootstrap|bootstrap code)")


if __name__ == "__main__":
    main(debian_6_1_small, debian_6_1_large, debian_6_12, debian_6_12_smp, i386, i386_pae, mp_table, dmi,
         virtio_rng, balloon, pci_pins, compat, plain_console, memtest_64, memtest_32, gnumach)
