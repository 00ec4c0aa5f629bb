"""An NBD server for tests, in memory, which fails when it is told to (the protocol:
https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
"""
import contextlib
import socket
import struct
import threading

OPTION, REPLY, REQUEST, ANSWER = 0x49484156454F5054, 0x3E889045565A9, 0x25609513, 0x67446698
OPT_EXPORT_NAME, OPT_ABORT, OPT_GO = 1, 2, 7
REP_ACK, REP_INFO, REP_UNSUPPORTED = 1, 3, 0x80000001
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
HAS_FLAGS, SEND_FLUSH, SEND_TRIM, SEND_ZEROES = 1, 4, 32, 64
EIO, ENOSPC = 5, 28
HANG_UP = -1  # no error, but the end of the connection


class Server:
    """BYTES are what it serves. FAILS: the error of each type of request, by its number."""

    def __init__(self, path, size):
        self.bytes, self.fails, self.counts = bytearray(size), {}, {}
        self.uri = f"nbd+unix:///?socket={path}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # close() alone does not wake who is in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client):
        with client, contextlib.suppress(OSError, EOFError):
            if self._negotiate(client):
                while self._serve(client):
                    pass

    @staticmethod
    def _take(client, size):
        taken = b""
        while len(taken) < size:
            more = client.recv(size - len(taken))
            if not more:
                raise EOFError
            taken += more
        return taken

    def _negotiate(self, client):
        """True when requests follow."""
        flags = HAS_FLAGS | SEND_FLUSH | SEND_TRIM | SEND_ZEROES
        client.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION, 3))  # newstyle, fixed, without zeroes
        self._take(client, 4)
        while True:
            _, option, size = struct.unpack(">QII", self._take(client, 16))
            self._take(client, size)
            def reply(what, data=b"", option=option):
                client.sendall(struct.pack(">QIII", REPLY, option, what, len(data)) + data)
            if option == OPT_EXPORT_NAME:
                client.sendall(struct.pack(">QH", len(self.bytes), flags))
                return True
            if option == OPT_GO:
                reply(REP_INFO, struct.pack(">HQH", 0, len(self.bytes), flags))
                reply(REP_ACK)
                return True
            if option == OPT_ABORT:
                reply(REP_ACK)
                return False
            reply(REP_UNSUPPORTED)

    def _serve(self, client):
        _, _, kind, handle, at, size = struct.unpack(">IHHQQI", self._take(client, 28))
        data = self._take(client, size) if kind == WRITE else b""
        error, answer = self.fails.get(kind, 0), b""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == DISCONNECT or error == HANG_UP:
            return False
        if not error and kind == READ:
            answer = bytes(self.bytes[at:at + size])
        elif not error and kind in (WRITE, TRIM, ZEROES):
            self.bytes[at:at + size] = data or bytes(size)
        client.sendall(struct.pack(">IIQ", ANSWER, error, handle) + answer)
        return True
