#!/usr/bin/python3
"""doppel cp: files and folders to a guest and back, and guests that send archives of another kind than asked for."""
import io
import os
import stat
import tarfile

from agent_rig import AGENT_PORT, HELLO, Machine, frame, machine, played, saying
from vm import check, check_complaint, check_run, main, scratch, write

TIME = 1234567890


def make_tree(root):
    """A folder with some of everything."""
    os.makedirs(os.path.join(root, "empty"))
    deep = os.path.join(root, *["folder-" + "x" * 60] * 5)
    os.makedirs(deep)
    for path, data, mode in (("plain", b"hello\n", 0o640), ("tool", b"#!/bin/sh\n", 0o755), ("none", b"", 0o444),
                             ("-dash", b"-", 0o600), ("Größe \N{SNOWMAN}", b"utf-8", 0o644),
                             ("large", os.urandom(1 << 20) * 3 + b"end", 0o600), ("n" * 200, b"long", 0o644),
                             (os.path.join(deep, "file"), b"deep", 0o644)):
        path = write(os.path.join(root, path), data)
        os.chmod(path, mode)
        os.utime(path, (TIME, TIME + len(data)))
    os.symlink("plain", os.path.join(root, "link"))
    os.symlink("/nonesuch/" + "t" * 150, os.path.join(root, "far"))
    os.mkfifo(os.path.join(root, "pipe"))
    os.chmod(os.path.join(root, "empty"), 0o555)
    os.utime(os.path.join(root, "empty"), (TIME, TIME))
    return root


def listing(root):
    """What is below a folder: kinds, modes, times, contents."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    what = file.read(), int(status.st_mtime)
            else:
                what = stat.S_IFMT(status.st_mode), int(status.st_mtime) if name == "empty" else 0
            mode = 0 if stat.S_ISLNK(status.st_mode) else status.st_mode & 0o777
            found[os.path.relpath(path, root)] = mode, what
    return found


def there_and_back(vm, at):
    """A tree to the guest, and what comes back."""
    tree = make_tree(at("tree"))
    expected = listing(tree)
    del expected["pipe"]
    done = vm.run("cp", tree, "web:/tmp")
    check_run(done, 0, b"", b"doppel: 1 devices, pipes or sockets were left out\n")
    check_run(vm.exec("sh", "-c", "cd /tmp/tree; stat -c '%a %u %Y' plain; stat -c %a tool empty; cat ./-dash; readlink link"),
              0, b"640 0 %d\n755\n555\n-plain\n" % (TIME + 6), b"")
    check_run(vm.run("cp", "web:/tmp/tree", at("back")), 0, b"", b"")  # is none yet
    check(listing(at("back")) == expected, "another tree comes back:", set(listing(at("back")).items() ^ expected.items()))
    os.mkdir(at("into"))
    check_run(vm.run("cp", "web:/tmp/tree/", at("into")), 0, b"", b"")
    check(listing(at("into/tree")) == expected, "another tree comes into a folder")
    # All that is in a folder, and over what is there.
    write(at("into/plain"), b"old")
    os.mkdir(at("into/other"))
    check_run(vm.run("cp", "web:/tmp/tree/.", at("into")), 0, b"", b"")
    found = listing(at("into"))
    check(all(found[name] == what for name, what in expected.items()) and "other" in found, found.keys())
    check_run(vm.run("cp", "web:/tmp/tree/.", at("into")), 0, b"", b"")  # once more
    check_run(vm.run("cp", at("into/other/."), "web:/tmp/new"), 0, b"", b"")
    check_run(vm.exec("ls", "-A", "/tmp/new"), 0, b"", b"")
    # A symbolic link here is replaced, and what it leads to stays.
    write(at("kept"), b"kept")
    os.symlink("kept", at("plain"))
    check_run(vm.run("cp", "web:/tmp/tree/plain", at("plain")), 0, b"", b"")
    with open(at("kept"), "rb") as kept, open(at("plain"), "rb") as plain:
        check(kept.read() == b"kept" and plain.read() == b"hello\n" and not os.path.islink(at("plain")), "it is written through")


def single(vm, at):
    """Files by themselves, several at once, as a user, and by relative names."""
    write(at("a"), b"A")
    write(at("b"), b"B")
    check_run(vm.run("cp", at("a"), "web:/tmp/renamed"), 0, b"", b"")
    check_run(vm.exec("cat", "/tmp/renamed"), 0, b"A", b"")
    check_run(vm.run("cp", at("a"), at("b"), "web:"), 0, b"", b"")  # the home folder
    check_run(vm.exec("cat", "/root/a", "/root/b"), 0, b"AB", b"")
    check_run(vm.run("cp", "web:a", "web:/root/b", "web:/etc/passwd", ".", cwd=at("")), 0, b"", b"")
    with open(at("passwd"), "rb") as file:
        check(b"root:" in file.read(), "another file")
    check_run(vm.run("cp", "-u", "5:6", at("a"), "web:/tmp/five"), 0, b"", b"")
    check_run(vm.exec("stat", "-c", "%u:%g", "/tmp/five"), 0, b"5:6\n", b"")
    # A name with a colon is a file's of this host if a slash comes first.
    write(at("c:d"), b"C")
    check_run(vm.run("cp", "./c:d", "web:/tmp", cwd=at("")), 0, b"", b"")
    check_run(vm.exec("cat", "/tmp/c:d"), 0, b"C", b"")
    # What fails says why, and where.
    done = vm.run("cp", "web:/tmp/nonesuch", at("x"))
    check(done.returncode == 125 and b"'web': tar: ./nonesuch: No such file" in done.stderr, done)
    check(not os.path.exists(at("x")), "there is something")
    check_complaint(vm.run("cp", at("nonesuch"), "web:/tmp"), "nonesuch", "No such file")
    check_complaint(vm.run("cp", at("a"), "web:/tmp/nonesuch/"), "is no folder")
    check_complaint(vm.run("cp", at("a"), at("b"), "web:/tmp/none"), "is no folder")
    done = vm.run("cp", at("a"), "web:/nonesuch/a")
    check(done.returncode == 125 and b"/nonesuch" in done.stderr, done)
    check_complaint(vm.run("cp", "web:a", at("none/such")), "none", "No such file")


def default_guest():
    """All of it in one guest."""
    with machine() as vm, scratch() as at:
        check_run(vm.exec("true"), 0, b"", b"")
        there_and_back(vm, at)
        single(vm, at)
        os.chmod(at("tree/empty"), 0o755)


# ---- Guests that a test plays ----


def archive(*entries, **options):
    """A tar archive of ENTRIES: names with what else tarfile knows of one."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", **options) as tar:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            data = what.pop("data", b"")
            info.size = len(data)
            for key, value in what.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def folder(name, **more):
    """A folder of an archive."""
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **more}


def link(name, target, kind=tarfile.SYMTYPE):
    """A link of an archive."""
    return name, {"type": kind, "linkname": target}


HOSTILE = {
    "above": archive(("../evil", {"data": b"x"})),
    "above from below": archive(folder("x"), ("x/../../evil", {"data": b"x"})),
    "absolute": archive(("/evil", {"data": b"x"})),
    "another": archive(("evil", {"data": b"x"})),
    "a longer name": archive(("xevil", {"data": b"x"})),
    "through a link": archive(link("x", "../outside"), ("x/evil", {"data": b"x"})),
    "through a link below": archive(folder("x"), link("x/l", "../../outside"), ("x/l/evil", {"data": b"x"})),
    "a folder through a link": archive(folder("x"), link("x/l", "../../outside"), folder("x/l/evil")),
    "a link through a link": archive(folder("x"), link("x/l", "../../outside"), link("x/l/evil", "x")),
    "a link for a folder": archive(folder("x"), folder("x/l"), link("x/l", "../../outside"), ("x/l/evil", {"data": b"x"})),
    "a hard link from above": archive(folder("x"), link("x/l", "../outside/secret", tarfile.LNKTYPE)),
    "a hard link from here": archive(folder("x"), link("x/l", "mine", tarfile.LNKTYPE)),
    "a hard link through a link": archive(folder("x"), link("x/l", "../../outside"),
                                          link("x/m", "x/l/secret", tarfile.LNKTYPE)),
    "a file for a folder": archive(folder("x"), folder("x/f"), ("x/f", {"data": b"x"})),
    "a file that is a folder": archive(("x", {"data": b"x"}), ("x/evil", {"data": b"x"})),
    "many folders": archive(folder("x"), *(folder("x" + "/a" * depth) for depth in range(1, 300))),
    "a long name": archive(("x/" + "n" * 256, {"data": b"x"}), format=tarfile.GNU_FORMAT),
    "cut off": archive(("x", {"data": b"x" * 2000}))[:1500],
    "no archive": b"no archive" * 100,
    "a large header": archive(("x", {"data": b"x", "pax_headers": {"path": "x/" + "y/" * 300000}}),
                              format=tarfile.PAX_FORMAT),
}


def copied(pieces, *sources, target="dest"):
    """What doppel cp makes of these PIECES of an archive: the folder's path to look at, and how it ended."""
    frames = [frame(b"O", piece[at:at + 32768]) for piece in pieces for at in range(0, len(piece), 32768)]
    with played({AGENT_PORT: saying(HELLO, *frames, frame(b"X", b"\0"))}) as user:
        os.makedirs(user.at("dest"))
        os.makedirs(user.at("outside"))
        write(user.at("outside/secret"), b"secret")
        write(user.at("dest/mine"), b"mine")
        done = user.run("cp", *(sources or ["web:/srv/x"]), user.at(target))
        check(os.listdir(user.at("outside")) == ["secret"], "made outside:", os.listdir(user.at("outside")))
        check(sorted(os.listdir(user.at(""))) == ["data", "dest", "outside", "run"], os.listdir(user.at("")))
        check(os.stat(user.at("outside/secret")).st_nlink == 1 and os.stat(user.at("dest/mine")).st_nlink == 1, "linked")
        check("evil" not in os.listdir(user.at("dest")), os.listdir(user.at("dest")))
        with open(user.at("dest/mine"), "rb") as file:
            check(file.read() == b"mine", "changed")
        return done, listing(user.at("dest"))


def hostile():
    """Whatever an archive of the guest says, nothing is made elsewhere than asked for."""
    for name, data in HOSTILE.items():
        done, found = copied([data])
        check(done.returncode == 125 and done.stderr.startswith(b"doppel: ") and done.stderr.count(b"\n") <= 2, name, done)
        check(b"Traceback" not in done.stderr and len(found) < 300, name, found)
    done, found = copied([archive(("x\x1b]0;evil\x07", {"data": b"x"}))])
    check(done.returncode == 125 and b"\x1b" not in done.stderr, done)
    done, found = copied([archive(folder("x", mode=0o7777), ("x/s", {"data": b"x", "mode": 0o6755}),
                                  ("x/d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
                                  link("x/h", "x/s", tarfile.LNKTYPE))])
    check_run(done, 0, b"", b"doppel: 1 devices, pipes or sockets were left out\n")
    check(found["x"][0] == 0o777 and found["x/s"][0] == 0o755 and found["x/h"] == found["x/s"] and "x/d" not in found, found)
    done, found = copied([])
    check(done.returncode == 125, done)
    # What the guest's tar complains of is shown without what controls a terminal, and not for ever.
    text = b"tar: \x1b[31mred\n" + b"more of it\n" * 10000
    with played({AGENT_PORT: saying(HELLO, *(frame(b"E", text[at:at + 32768]) for at in range(0, len(text), 32768)),
                                    frame(b"X", b"\2"))}) as user:
        done = user.run("cp", "web:x", user.at("y"))
        check(done.returncode == 125 and b"'web': tar: ?[31mred\n" in done.stderr and len(done.stderr) < 20000, done)


def refused():
    """What is wrong with the command line is one clear line."""
    with scratch() as at:
        user = Machine(at)
        user.define("")
        check_complaint(user.run("cp"), "too few arguments")
        check_complaint(user.run("cp", "web:x"), "too few arguments")
        check_complaint(user.run("cp", "a", "b"), "'a'", "to this host or back")
        check_complaint(user.run("cp", "web:a", "web:b"), "'web:a'", "to this host or back")
        check_complaint(user.run("cp", "web:a", "db:b", "."), "'db' is not 'web'")
        check_complaint(user.run("cp", "--wait", "x", "web:a", "."), "--wait")
        done = user.run("cp", "web:a", at("x"))
        check(done.returncode == 125 and b"'web' does not run" in done.stderr, done)


main(default_guest, hostile, refused)
