#!/usr/bin/python3
"""A disk that grows while its guest runs. The library is called directly: the command cannot do it yet."""
import ctypes
import os
import threading
import time

from vm import DOPPEL, check, guest, main, scratch, write

MIB = 1 << 20
OUTPUT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t)
TEXT, FUNCTION = ctypes.c_char_p, ctypes.c_void_p


class Serial(ctypes.Structure):
    _fields_ = [("output", OUTPUT), ("full", FUNCTION), ("input_ready", FUNCTION), ("opaque", FUNCTION)]


class Config(ctypes.Structure):
    """struct doppel_config as far as it is used here: the library is told how long this one is."""
    _fields_ = [("engine", ctypes.c_int), ("cpus", ctypes.c_uint), ("memory", ctypes.c_uint64), ("kernel", TEXT),
                ("initrd", TEXT), ("extra", FUNCTION), ("extra_size", ctypes.c_size_t), ("command_line", TEXT),
                ("no_kaslr", ctypes.c_bool), ("no_host_decompress", ctypes.c_bool), ("serial", Serial * 4),
                ("devices", ctypes.POINTER(TEXT))]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("text", ctypes.c_char * 480)]


class Machine:
    """The default guest's shell on the first serial port."""

    def __init__(self, *devices):
        self.lib = ctypes.CDLL(os.path.join(os.path.dirname(os.path.realpath(DOPPEL)), "libdoppel.so"))
        self.lib.doppel_create_sized.restype = ctypes.c_void_p
        self.said, self.changed, self.err = b"", threading.Condition(), Error()
        self.output = OUTPUT(self._hear)
        config = Config()
        self.lib.doppel_config_init_sized(ctypes.byref(config), ctypes.c_size_t(ctypes.sizeof(config)))
        config.kernel, config.initrd = guest("vmlinuz").encode(), guest("initrd.img").encode()
        config.command_line = b"console=ttyS0 quiet cryptomgr.notests"
        config.serial[0].output = self.output
        config.devices = (TEXT * (len(devices) + 1))(*(d.encode() for d in devices), None)
        self.vm = ctypes.c_void_p(self.lib.doppel_create_sized(
            ctypes.byref(config), ctypes.c_size_t(ctypes.sizeof(config)), ctypes.byref(self.err)))
        check(self.vm, self.err.text)
        check(self.lib.doppel_start(self.vm, ctypes.byref(self.err)) == 0, self.err.text)
        self.expect(b"# ")

    def _hear(self, _, data, size):
        with self.changed:
            self.said += data[:size]
            self.changed.notify_all()

    def expect(self, words, timeout=120):
        """Waits for WORDS and takes all up to them."""
        end = time.monotonic() + timeout
        with self.changed:
            while words not in self.said:
                check(time.monotonic() < end, f"no {words!r} in {self.said!r}")
                self.changed.wait(1)
            before, self.said = self.said.split(words, 1)
        return before

    def do(self, command):
        """Returns what COMMAND says."""
        text = f"{command}; echo do''ne\n".encode()
        while text:
            text = text[self.lib.doppel_serial_input(self.vm, 0, text, ctypes.c_size_t(len(text))):]
            time.sleep(0.001)
        return self.expect(b"done\r\n").split(b"\n", 1)[1].replace(b"\r", b"")

    def resize(self, disk, size):
        return self.lib.doppel_resize_disk(self.vm, disk, ctypes.c_uint64(size), ctypes.byref(self.err))

    def close(self):
        self.lib.doppel_destroy(self.vm)


def grows():
    """The driver hears of it, and the new part can be used."""
    with scratch() as at:
        image = write(at("disk.raw"), bytes(4 * MIB))
        machine = Machine(f"disk,file={image}")
        try:
            check(machine.do("cat /sys/block/vda/size") == b"8192\n", machine.said)
            check(machine.resize(1, 6 * MIB) < 0 and b"no disk 1" in machine.err.text, machine.err.text)
            check(machine.resize(0, 2 * MIB) < 0 and b"grow" in machine.err.text, machine.err.text)
            check(machine.resize(0, 6 * MIB) == 0, machine.err.text)
            end = time.monotonic() + 60
            while machine.do("cat /sys/block/vda/size") != b"12288\n":
                check(time.monotonic() < end, "the driver has not heard of it")
            machine.do("echo new | dd of=/dev/vda bs=1M seek=5 conv=fsync")
        finally:
            machine.close()
        with open(image, "rb") as file:
            check(file.seek(0, os.SEEK_END) == 6 * MIB, file.tell())
            file.seek(5 * MIB)
            check(file.read(4) == b"new\n", "the new part was not written")


if __name__ == "__main__":
    main(grows)
