"""An image from beginning to end, and the lock."""

import fcntl
import gzip
import hashlib
import json
import pathlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass

from . import boards, boot, disk, packages, root, sbom
from .boards import Board, BuildError
from .modules import Kernel
from .packages import Store

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Inputs:
    """What a build depends on besides the repository's own files."""

    programs: pathlib.Path  # our binaries, built for the board
    cache: pathlib.Path  # packages, fetched and unpacked
    apt: str  # apt's trees, but for the architecture at the end
    grub_tool: pathlib.Path  # grub-mkimage, of this machine
    epoch: int  # the commit's time, in seconds since 1970: that of all files
    version: str
    release_keys: pathlib.Path | None  # whose updates the image takes; none without


def kept(board: Board, inputs: Inputs, out: pathlib.Path) -> dict:
    """Builds, unless the last build was of the very same: then what it made is there. Others may do this at the same time, and read what is
    there: it is replaced whole."""
    # A folder beside what is there, so that a build that fails leaves that alone.
    fresh, old, built = out.with_name(f"{out.name}.new"), out.with_name(f"{out.name}.old"), out / "built.json"
    depends = _digest(board, inputs)
    with _alone(out):
        if built.exists():
            before = json.loads(built.read_text())
            if before["inputs"] == depends and pathlib.Path(before["report"]["image"]).exists():
                return before["report"]
        report = build(board, inputs, fresh)
        report["image"] = str(out / pathlib.Path(report["image"]).name)
        (fresh / built.name).write_text(json.dumps({"inputs": depends, "report": report}))
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        fresh.rename(out)
        shutil.rmtree(old, ignore_errors=True)
        return report


def build(board: Board, inputs: Inputs, out: pathlib.Path) -> dict:
    """Writes the image, a slot's bytes and the SBOM to `out`; returns sizes, in bytes."""
    work = out / "work"
    shutil.rmtree(out, ignore_errors=True)
    work.mkdir(parents=True)
    store = Store(board.architecture, inputs.apt, inputs.cache, packages.locked(board.architecture))
    kernel = _kernel(board, store)

    absent = root.build_root(board, store, kernel, inputs.programs, work / "root")
    _release(board, inputs, work / "root/etc/altnet")
    root.squashfs(work / "root", work / "root.sqfs", inputs.epoch)
    root.build_initrd(board, store, kernel, inputs.programs, work / "root/etc/altnet", work / "initrd")
    (work / "initrd.zst").write_bytes(root.run("zstd", "-19", "-q", "-c", stdin=root.cpio(work / "initrd", inputs.epoch)))
    slot = {"initrd.zst": work / "initrd.zst", "root.sqfs": work / "root.sqfs", **_kernel_file(board, kernel, work)}
    sizes = {name: path.stat().st_size for name, path in slot.items()}
    if sum(sizes.values()) > board.slot_bytes:
        raise BuildError(f"the files of a slot have {sum(sizes.values())} bytes, the budget of {board.name} is {board.slot_bytes}: {sizes}")
    name = f"altnet-{board.name}"
    disk.fat(out / f"{name}.slot", disk.SLOT_SIZE, disk.SLOT_LABEL, 16, slot, inputs.epoch)

    raw, grub = {}, None
    if board.loader == "grub":
        grub = _grub(store, inputs, work)
        raw = grub.bios() | {disk.CHOICE_AT: disk.choice_files(work, inputs.epoch)}
    files = boot.boot_files(board, _firmware(board, store, kernel), grub, work / "boot", inputs.epoch)
    disk.fat(work / "boot.vfat", disk.BOOT_SIZE, disk.BOOT_LABEL, 32, files, inputs.epoch)
    disk.ext4(work / "data.ext4", disk.DATA_SIZE, board.name, inputs.epoch)
    # Both slots hold the same: what one loses, the other has.
    parts = {"boot": work / "boot.vfat", "slot-a": out / f"{name}.slot", "slot-b": out / f"{name}.slot", "data": work / "data.ext4"}
    disk.assemble(out / f"{name}.img", board.name, board.partitions, board.loader, parts, raw)
    image = out / f"{name}.img.zst"
    # The second slot is as far from the first as a window of 64 MiB reaches.
    root.run("zstd", "-19", "--long=26", "-T0", "-q", "-f", str(out / f"{name}.img"), "-o", str(image))

    linked = sbom.crates(REPOSITORY, board.target)
    (out / f"{name}.spdx.json").write_text(sbom.document(board, inputs.version, inputs.epoch, image, list(store.used.values()), linked))
    shutil.rmtree(work)
    compressed = image.stat().st_size
    if compressed > board.image_bytes:
        raise BuildError(f"{image.name} has {compressed} bytes, the budget of {board.name} is {board.image_bytes}: {sizes}")
    return {
        "board": board.name, "version": inputs.version, "image": str(image), "image_bytes": compressed, "image_budget_bytes": board.image_bytes,
        "disk_bytes": disk.total_bytes(), "slot_bytes": sum(sizes.values()), "slot_budget_bytes": board.slot_bytes, "files": sizes,
        "sha256": hashlib.sha256(image.read_bytes()).hexdigest(), "packages": len(store.used), "crates": len(linked),
        "not_as_locked": store.notes, "modules_not_in_kernel": sorted(absent),
    }


def renew(cache: pathlib.Path, apt: str, scratch: pathlib.Path) -> list[str]:
    """Takes the newest packages of the mirror into the lock, for every board; returns what changed, in words."""
    before = {package for each in ("arm64", "amd64") for package in packages.locked(each).values()}
    after = set()
    for name in boards.names():
        board = boards.load(name)
        store = Store(board.architecture, apt, cache, {})
        kernel = _kernel(board, store)
        shutil.rmtree(scratch, ignore_errors=True)
        root.build_root(board, store, kernel, scratch / "none", scratch / "root")
        root.build_initrd(board, store, kernel, scratch / "none", scratch / "root/etc/altnet", scratch / "initrd")
        _firmware(board, store, kernel)
        if board.loader == "grub":
            _grub_parts(store)
        after |= set(store.used.values())
    shutil.rmtree(scratch, ignore_errors=True)
    packages.write_lock(after)
    return [f"- {package}" for package in sorted(before - after)] + [f"+ {package}" for package in sorted(after - before)]


def twice(board: Board, inputs: Inputs, out: pathlib.Path) -> dict:
    """Builds into two folders, and compares every file that came out."""
    with _alone(out):
        first, second = build(board, inputs, out / "first"), build(board, inputs, out / "second")
    differing = [
        path.name for path in sorted((out / "first").iterdir())
        if path.read_bytes() != (out / "second" / path.name).read_bytes()
    ]
    if differing:
        raise BuildError(f"two builds differ in {', '.join(differing)}: compare {out}/first and {out}/second")
    shutil.rmtree(out / "second")
    return {**first, "image": first["image"], "identical": first["sha256"] == second["sha256"]}


def _digest(board: Board, inputs: Inputs) -> str:
    """Of all that an image is made from; of the mirror, when it was asked last."""
    digest = hashlib.sha256(json.dumps([board.name, inputs.epoch, inputs.version]).encode())
    files = {file for folder in ("linux-image", "board-support") for file in (REPOSITORY / folder).rglob("*") if "__pycache__" not in file.parts}
    # Where cargo puts programs it has folders of its own.
    files |= {*inputs.programs.iterdir(), REPOSITORY / "Cargo.lock", inputs.grub_tool, *filter(None, [inputs.release_keys])}
    for file in sorted(files):
        if file.is_file():
            digest.update(f"{file} {file.stat().st_mode} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    asked = pathlib.Path(f"{inputs.apt}{board.architecture}") / "updated"
    digest.update(str(asked.stat().st_mtime_ns if asked.exists() else 0).encode())
    return digest.hexdigest()


@contextmanager
def _alone(out: pathlib.Path):
    """Waits until nobody else builds into a folder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_name(f"{out.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def text(report: dict) -> str:
    """A report for people."""
    files = ", ".join(f"{name} {size:,}" for name, size in report["files"].items())
    lines = [
        f"{report['image']}",
        f"  image  {report['image_bytes']:>12,} bytes of {report['image_budget_bytes']:,}",
        f"  slot   {report['slot_bytes']:>12,} bytes of {report['slot_budget_bytes']:,}: {files}",
        f"  disk   {report['disk_bytes']:>12,} bytes",
        f"  sha256 {report['sha256']}",
        f"  {report['packages']} packages, {report['crates']} crates",
        *(["  two builds are identical"] if report.get("identical") else []),
        *(f"  note: {note}" for note in report["not_as_locked"]),
    ]
    return "\n".join(lines)


def as_json(report: dict) -> str:
    """A report for programs."""
    return json.dumps(report)


def _release(board: Board, inputs: Inputs, into: pathlib.Path) -> None:
    """What the image says of itself to updates. The counter only has to grow; the commit's time does."""
    lines = {"product": "altnet", "board": board.name, "version": inputs.version, "counter": inputs.epoch, "floor": 0, "built": inputs.epoch}
    (into / "release").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
    if inputs.release_keys:
        shutil.copyfile(inputs.release_keys, into / "release-keys")


def _kernel(board: Board, store: Store) -> Kernel:
    return Kernel(store.use(store.newest_kernel(board.kernel)))


def _kernel_file(board: Board, kernel: Kernel, work: pathlib.Path) -> dict[str, pathlib.Path]:
    """The kernel as the loader wants it: U-Boot unpacks ARM's, PCs' unpacks itself."""
    if board.loader == "grub":
        return {"vmlinuz": _copied(kernel.image, work / "vmlinuz")}
    (work / "Image.gz").write_bytes(gzip.compress(kernel.image.read_bytes(), 9, mtime=0))
    return {"Image.gz": work / "Image.gz"}


def _firmware(board: Board, store: Store, kernel: Kernel) -> dict[str, pathlib.Path]:
    """What the board's own firmware reads, by its place on the boot partition."""
    files = {}
    for package, places in board.firmware.items():
        folder = kernel.trees if package == "kernel" else store.use(package)
        for place, source in places.items():
            if not (folder / source).is_file():
                raise BuildError(f"{package} has no {source}: its contents changed, so change {board.path}")
            files[place] = folder / source
    return files


def _grub_parts(store: Store) -> dict[str, pathlib.Path]:
    return {kind: store.use(package) for kind, package in boot.GRUB_PACKAGES.items()}


def _grub(store: Store, inputs: Inputs, work: pathlib.Path) -> boot.Grub:
    return boot.Grub(inputs.grub_tool, _grub_parts(store), work)


def _copied(source: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    shutil.copyfile(source, into)
    return into
