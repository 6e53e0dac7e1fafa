"""The kernel's modules: those that are wanted, with what they depend on, and the tables that modprobe reads."""

import pathlib
import re
import shutil
import subprocess

from .boards import BuildError

# What busybox's modprobe and the kernel's own requests read; kmod's binary tables are of no use here.
TABLES = ("modules.dep", "modules.alias", "modules.softdep", "modules.builtin", "modules.symbols")


def wanted(text: str) -> list[str]:
    """The names in a list with comments."""
    return [word for line in text.splitlines() for word in line.split("#")[0].split()]


class Kernel:
    """A kernel's package, unpacked: its image, its modules, its device trees."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.version = next((folder / "lib/modules").iterdir()).name
        self.image = folder / f"boot/vmlinuz-{self.version}"
        self.trees = folder / f"usr/lib/linux-image-{self.version}"
        self.modules = folder / "lib/modules" / self.version
        if not (self.modules / "modules.dep").exists():
            depmod(folder, self.version)
        lines = [line.split(":") for line in (self.modules / "modules.dep").read_text().splitlines()]
        # File names by module, each with what it depends on after it.
        self._depends = {module_name(file): [file, *after.split()] for file, after in lines}

    def install(self, names: list[str], under: pathlib.Path) -> list[str]:
        """Copies modules below `under`/lib/modules; returns the names that this kernel has no module of."""
        builtin = {module_name(line) for line in (self.modules / "modules.builtin").read_text().split()}
        absent = [name for name in names if module_name(name) not in self._depends and module_name(name) not in builtin]
        files = sorted({file for name in names for file in self._depends.get(module_name(name), [])})
        into = under / "lib/modules" / self.version
        for file in files:
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.modules / file, into / file)
        for table in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copyfile(self.modules / table, into / table)
        depmod(under, self.version)
        for table in into.glob("modules.*"):
            if table.name not in TABLES:
                table.unlink()
        return absent


def module_name(file: str) -> str:
    """A module's name: its file's, with dashes as the underscores that they count as."""
    return re.sub(r"\.ko(\.\w+)?$", "", file.rsplit("/", 1)[-1]).replace("-", "_")


def depmod(under: pathlib.Path, version: str) -> None:
    """Writes the tables of the modules below `under`."""
    done = subprocess.run(["/sbin/depmod", "-b", str(under), version], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"depmod: {done.stderr.strip()}")
