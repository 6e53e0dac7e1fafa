"""Writes an .ipk, as opkg takes them: OpenWrt up to 24.10.

In: a `Package`. Out: the file's bytes, the same for the same package.

Source: opkg's format: a gzipped tar of `debian-binary`, `data.tar.gz` and `control.tar.gz`, in this order.
"""

import gzip
import io
import tarfile

from package import File, Link, Package


def build(package: Package) -> bytes:
    """The package's file."""
    data: list[tuple[str, File | Link | None]] = []
    for folder, entries in package.folders("ipk"):
        data.append((f"./{folder}/" if folder else "./", None))
        data += [(f"./{entry.path}", entry) for entry in entries]
    data.sort(key=lambda one: one[0])
    conffiles = "".join(f"{path}\n" for path in package.conffiles)
    about = [File("conffiles", conffiles.encode()), File("control", package.control().encode())]
    about += [File(name, text.encode(), 0o755) for name, text in package.ipk_scripts().items()]
    control = [("./", None), *((f"./{file.path}", file) for file in sorted(about, key=lambda file: file.path))]
    outer = [
        File("debian-binary", b"2.0\n"),
        File("data.tar.gz", _tar(package, data)),
        File("control.tar.gz", _tar(package, control)),
    ]
    return _tar(package, [(f"./{file.path}", file) for file in outer])


def _tar(package: Package, entries: list[tuple[str, File | Link | None]]) -> bytes:
    out = io.BytesIO()
    # GNU's format, which busybox, opkg and libarchive all read.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, entry in entries:
            about = tarfile.TarInfo(name)
            about.mtime = package.epoch
            about.uname = about.gname = "root"
            if entry is None:
                about.type, about.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(about)
            elif isinstance(entry, File):
                about.size, about.mode = len(entry.data), entry.mode
                tar.addfile(about, io.BytesIO(entry.data))
            else:
                about.type, about.mode, about.linkname = tarfile.SYMTYPE, 0o777, entry.target
                tar.addfile(about)
    return gzip.compress(out.getvalue(), 9, mtime=0)
