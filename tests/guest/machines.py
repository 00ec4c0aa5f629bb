"""What tests of named machines share: a user's folders of their own, and archives and OCI layouts to make machines of."""
import contextlib
import hashlib
import io
import json
import os
import tarfile

from vm import check, check_complaint, check_run, environment, run as run_doppel, scratch, without_steps, write

ENV = environment()
SBIN = {**ENV, "PATH": ENV["PATH"] + ":/usr/sbin:/sbin"}


class Home:
    """A user's folders of a test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.data = os.path.join(folder, "data", "doppel")
        self.env = {k: v for k, v in SBIN.items() if not k.startswith(("XDG_", "DEBIAN_"))}
        for name in ("run", "data", "cache", "config"):
            os.mkdir(os.path.join(folder, name), 0o700)
        self.env |= {"HOME": folder, "XDG_RUNTIME_DIR": folder + "/run", "XDG_DATA_HOME": folder + "/data",
                     "XDG_CACHE_HOME": folder + "/cache", "XDG_CONFIG_HOME": folder + "/config",
                     "TMPDIR": folder}

    def create(self, *args, **options):
        """Runs `doppel create`; what it returns has no lines of progress."""
        return without_steps(run_doppel("create", *args, env=self.env, stdin=None, timeout=120, **options))

    def good(self, *args):
        """Runs it, and it must succeed and say no more than what it does."""
        check_run(self.create(*args), 0, stdout=b"", stderr=b"")

    def images(self, locks=False):
        """What is in the folder of base images, without the locks of those that are there, or with them."""
        folder = os.path.join(self.data, "images")
        names = sorted(os.listdir(folder) if os.path.isdir(folder) else ())
        return [name for name in names if locks or not (name.endswith(".lock") and name[:-5] in names)]

    def gc(self):
        """Runs `doppel gc`; returns what it says."""
        done = run_doppel("gc", env=self.env, stdin=None)
        check_run(done, 0, stderr=b"")
        return done.stdout.decode()

    def machines(self):
        """The machines that there are, complete or not."""
        folder = os.path.join(self.data, "machines")
        return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name != ".lock")

    def image(self, file=""):
        """The path of FILE in the one base image that there is."""
        check(len(self.images()) == 1, "one base image", self.images())
        return os.path.join(self.data, "images", self.images()[0], file)

    def refused(self, *args, words, **options):
        """Runs it, and it must fail with one line that has WORDS, and leave nothing behind."""
        before = self.images(), self.machines()
        check_complaint(self.create(*args, **options), *words)
        check((self.images(), self.machines()) == before, "left behind:", self.images(), self.machines())


@contextlib.contextmanager
def home():
    """A home, and a function for paths of other files."""
    with scratch() as path:
        os.mkdir(path("home"), 0o700)
        yield Home(path("home")), path


# ---- Archives ----

class Tar:
    """A tar archive that is written entry by entry."""

    def __init__(self, path, mode="w"):
        self.path = path
        self.tar = tarfile.open(path, mode, format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", **fields):
        """Adds an entry of any kind."""
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(data)
        info.mtime = 1600000000
        for field, value in fields.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def close(self):
        """Ends the archive; returns its path."""
        self.tar.close()
        return self.path


def system(tar):
    """What a system has that can be started: its kernel is none, but nobody looks at that here."""
    tar.add("./", tarfile.DIRTYPE, mode=0o755)
    tar.add("./etc/os-release", data=b"ID=test\n")
    tar.add("./boot/vmlinuz-6.1", data=b"old kernel")
    tar.add("./boot/vmlinuz-6.12", data=b"kernel")
    tar.add("./boot/initrd.img-6.12", data=b"initrd")
    return tar


class Layout:
    """An OCI image layout at PATH."""

    def __init__(self, path):
        self.path = path
        os.makedirs(os.path.join(path, "blobs/sha256"))

    def file(self, digest):
        """The path of a blob."""
        return os.path.join(self.path, "blobs/sha256", digest.partition(":")[2])

    def blob(self, data):
        """Adds a blob; returns its descriptor."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        write(self.file(digest), data)
        return {"digest": digest, "size": len(data), "mediaType": "x"}

    def archive(self, tar):
        """Adds an archive as a blob; returns its descriptor."""
        with open(tar.close(), "rb") as file:
            return self.blob(file.read())

    def index(self, *manifests):
        """Writes the index."""
        write(os.path.join(self.path, "index.json"), json.dumps({"manifests": manifests}).encode())

    def image(self, *layers, **members):
        """Has the index lead to an image of these layers; returns the descriptor of its manifest. Its JSON has no
        blanks, as Go's has none."""
        text = json.dumps({"schemaVersion": 2, "layers": layers, **members}, separators=(",", ":"))
        manifest = dict(self.blob(text.encode()), platform={"os": "linux", "architecture": "amd64"})
        self.index(manifest)
        return manifest
