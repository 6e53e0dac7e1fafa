"""The two file systems of a slot: the initial RAM disk, and the root that stays."""

import pathlib
import shutil
import subprocess

from . import elf
from .boards import Board, BuildError
from .modules import Kernel, wanted
from .packages import Store

ROOM = pathlib.Path(__file__).resolve().parents[1]
TRIPLETS = {"arm64": "aarch64-linux-gnu", "amd64": "x86_64-linux-gnu"}
PROGRAMS = ("altnetd", "altnet", "altnet-tls", "altnet-routerd", "altnet-update", "altnet-setup", "altnet-rescue")  # those of ours that are there
APPLETS_BEGIN = b"\0[\0[[\0"  # busybox's table of names, sorted, ends with an empty one
INITRD_APPLETS = (
    "sh", "[", "mount", "umount", "cat", "cut", "dd", "basename", "dirname", "readlink", "sleep", "ln", "mkdir", "modprobe", "reboot", "switch_root",
    # Rescue's, and those of altnet-reset and altnet-led.
    "find", "sort", "xargs", "ip", "udhcpd", "setsid", "sync", "mktemp", "rm", "head", "tr", "wc", "grep",
    # Whoever looks around has these too.
    "ls", "dmesg", "ps",
)


def build_root(board: Board, store: Store, kernel: Kernel, programs: pathlib.Path, into: pathlib.Path) -> list[str]:
    """Lays out the root below `into`; returns the names of modules that the kernel doesn't have."""
    for folder in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc/altnet", "proc", "sys", "dev", "run", "tmp", "data", "var/empty", "var/lib", "root"):
        (into / folder).mkdir(parents=True)
    for link, target in {
        "bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "etc/resolv.conf": "/run/altnet-router/resolv.conf",
        "etc/mtab": "/proc/self/mounts", "etc/altnet/altnet.toml": "/data/etc/altnet.toml", "var/run": "/run", "var/log": "/run/log",
        "var/lock": "/run/lock", "var/tmp": "/tmp", "var/lib/altnet": "/data/altnet", "var/lib/dhcpcd": "/run/altnet/dhcpcd", "var/lib/altnet-router": "/data/altnet-router",
    }.items():
        (into / link).symlink_to(target)
    for source in sorted((ROOM / "root").rglob("*")):
        if source.is_file():
            _copy(source, into / source.relative_to(ROOM / "root"))

    from_packages = [*wanted_files().items(), *board.packages.items()]
    for name, files in from_packages:
        folder = store.use(name)
        for place, source in files.items():
            _copy(_found(folder, source, name), into / place)
    applets(into / "usr/bin/busybox", into)
    for name in PROGRAMS:
        if (programs / name).exists():
            _copy(programs / name, into / "usr/bin" / name)
    _without_absent_services(board, into)
    libraries(store, from_packages, into)
    _describe(board, into)
    return kernel.install([*wanted((ROOM / "modules").read_text()), *board.modules, *board.initrd_modules], into / "usr")


def wanted_files() -> dict[str, dict[str, str]]:
    """`packages.toml`."""
    import tomllib

    return tomllib.loads((ROOM / "packages.toml").read_text())


def libraries(store: Store, from_packages: list[tuple[str, dict[str, str]]], into: pathlib.Path) -> None:
    """Adds what the programs are linked with, and what that is linked with, and the interpreters."""
    ours = [(f"usr/bin/{name}", "libc6") for name in PROGRAMS if (into / "usr/bin" / name).exists()]  # static ones want nothing
    queue = [(place, name) for name, files in from_packages for place in files if elf.is_elf(into / place)] + ours
    done = set()
    while queue:
        place, package = queue.pop(0)
        interpreter, sonames = elf.wants(into / place)
        for wish in [*([interpreter] if interpreter else []), *sonames]:
            soname = wish.rsplit("/", 1)[-1]
            if soname in done:  # the interpreter, which libraries want by its name alone, comes first
                continue
            done.add(soname)
            owner, source = store.library(soname, package)
            store.use(owner)
            # The interpreter where the program says, below /usr by the links; libraries where it looks.
            where = f"usr{wish}" if wish.startswith("/") else f"usr/lib/{TRIPLETS[store.architecture]}/{soname}"
            _copy(source, into / where, mode=0o755)
            queue.append((where, owner))


def applets(busybox: pathlib.Path, into: pathlib.Path) -> None:
    """Links to busybox for every word it knows, as read from its own table, but for those that are something else here."""
    data = busybox.read_bytes()
    at = data.find(APPLETS_BEGIN)
    if at < 0:
        raise BuildError("busybox has no table of applets where it had one: see APPLETS_BEGIN")
    names = data[at + 1 : data.index(b"\0\0", at)].decode().split("\0")
    for name in names:
        link = into / "usr/bin" / name
        if name != "busybox" and not link.exists() and not (into / "usr/sbin" / name).exists():
            link.symlink_to("busybox")
    # What the kernel and init call by a fixed name.
    for name in ("init", "modprobe", "reboot", "poweroff", "mdev"):
        (into / "usr/sbin" / name).symlink_to("../bin/busybox")


def _without_absent_services(board: Board, into: pathlib.Path) -> None:
    """Takes the lines of programs that were not built out of inittab, with their scripts; and those of a button and of lights that the board hasn't got."""
    there = {name: (into / "usr/bin" / name).exists() for name in PROGRAMS} | {"button": board.button is not None, "leds": bool(board.leds)}
    lines = []
    for line in (into / "etc/inittab").read_text().splitlines():
        script = into / line.rsplit(":", 1)[-1].lstrip("-/")
        if not there.get(script.name, True):
            script.unlink(missing_ok=True)
        else:
            lines.append(line)
    (into / "etc/inittab").write_text("\n".join(lines) + "\n")


def _describe(board: Board, into: pathlib.Path) -> None:
    """What the running system knows of its board: the file itself, and the few words that scripts need."""
    shutil.copyfile(board.path, into / "etc/altnet/board.toml")
    words = {"BOARD": board.name, "LOADER": board.loader, "BUTTON": str(board.button or ""), "LAN": " ".join(board.ports.get("lan", []))}
    words |= {f"LED_{role.upper()}": light for role, light in board.leds.items()}
    (into / "etc/altnet/board.env").write_text("".join(f'{name}="{value}"\n' for name, value in words.items()))


def build_initrd(board: Board, store: Store, kernel: Kernel, programs: pathlib.Path, described: pathlib.Path, into: pathlib.Path) -> None:
    """Lays out the initial RAM disk below `into`; `described` is what the root has of its board and its release."""
    for folder in ("bin", "sbin", "etc", "proc", "sys", "dev", "run", "root"):
        (into / folder).mkdir(parents=True)
    _copy(store.use("busybox-static") / "bin/busybox", into / "bin/busybox")
    for name in INITRD_APPLETS:
        (into / "bin" / name).symlink_to("busybox")
    (into / "sbin/modprobe").symlink_to("../bin/busybox")  # where the kernel looks
    if (programs / "altnet-rescue").exists():
        _copy(programs / "altnet-rescue", into / "bin/altnet-rescue")
    for name in ("altnet-reset", "altnet-led"):
        _copy(ROOM / "root/usr/sbin" / name, into / "bin" / name)
    _copy(ROOM / "initrd/init", into / "init")
    _copy(ROOM / "initrd/rescue", into / "etc/rescue")
    for source in described.iterdir():
        if not source.is_symlink():
            _copy(source, into / "etc/altnet" / source.name)
    names = ["loop", "squashfs", "vfat", "nls_cp437", "nls_ascii", *board.initrd_modules]
    rescue = [*wanted((ROOM / "initrd/modules").read_text()), *board.rescue_modules]
    absent = set(kernel.install([*names, *rescue], into))
    for file, wishes in (("modules", names), ("rescue-modules", rescue)):
        (into / "etc" / file).write_text(" ".join(name for name in wishes if name not in absent) + "\n")


def cpio(folder: pathlib.Path, epoch: int) -> bytes:
    """A folder as the kernel's `newc` archive, in order of names, with ids and times that don't depend on the machine.

    Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    out = bytearray()

    def add(name: str, mode: int, data: bytes, number: int) -> None:
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, epoch, len(data), 0, 0, 0, 0, len(raw), 0)
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + raw)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    for number, path in enumerate(sorted(folder.rglob("*")), 1):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            add(name, 0o120777, str(path.readlink()).encode(), number)
        elif path.is_dir():
            add(name, 0o040755, b"", number)
        else:
            add(name, 0o100755 if path.stat().st_mode & 0o100 else 0o100644, path.read_bytes(), number)
    add("TRAILER!!!", 0, b"", 0)
    return bytes(out)


def squashfs(folder: pathlib.Path, into: pathlib.Path, epoch: int) -> None:
    """Packs the root: everything root's, times of the commit."""
    run("mksquashfs", str(folder), str(into), "-noappend", "-all-root", "-comp", "zstd", "-Xcompression-level", "19", "-b", "262144",
        "-mkfs-time", str(epoch), "-all-time", str(epoch), "-no-xattrs", "-no-exports", "-quiet", "-no-progress")


def run(*command: str, stdin: bytes = b"", environment: dict[str, str] | None = None) -> bytes:
    """Runs a tool to its end; what it said is the error if it failed."""
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment)
    if done.returncode:
        raise BuildError(f"{' '.join(command[:3])}: {done.stderr.decode(errors='replace').strip()[-800:]}")
    return done.stdout


def _found(folder: pathlib.Path, source: str, package: str) -> pathlib.Path:
    path = folder / source
    if not path.is_file():
        raise BuildError(f"{package} has no {source}: its contents changed, so change packages.toml or board.toml")
    return path.resolve()


def _copy(source: pathlib.Path, into: pathlib.Path, mode: int | None = None) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, into)
    into.chmod(mode or (0o755 if source.stat().st_mode & 0o100 else 0o644))
