"""As much of the `uci` command as altnet's scripts use, over files in a folder. For tests.

Changes are seen at once and written by `commit`, as with the real one; `uncommitted` names files that were left.
"""

import pathlib
import re
import shlex


class Section:
    def __init__(self, kind: str, name: str | None) -> None:
        self.kind, self.name = kind, name
        self.options: dict[str, str | list[str]] = {}


class Uci:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.files: dict[str, list[Section]] = {}
        self.uncommitted: set[str] = set()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Does one command; its exit code and what it prints."""
        flags = [word for word in arguments if re.fullmatch("-[qX]", word)]
        command, *rest = [word for word in arguments if word not in flags]
        try:
            if command == "commit":
                self._commit(*rest)
                return 0, ""
            return 0, getattr(self, f"_{command}")(*rest) or ""
        except KeyError as error:
            return 1, "" if "-q" in flags else f"uci: Entry not found {error}\n"

    def _sections(self, file: str) -> list[Section]:
        if file not in self.files:
            path = self.folder / file
            if not path.exists():
                raise KeyError(file)
            self.files[file] = parse(path.read_text())
        return self.files[file]

    def _find(self, file: str, section: str) -> Section:
        sections = self._sections(file)
        if at := re.fullmatch(r"@(\w+)\[(\d+)\]", section):
            same = [one for one in sections if one.kind == at[1]]
            if int(at[2]) < len(same):
                return same[int(at[2])]
        for number, one in enumerate(sections):
            if section in (one.name, _given_name(number)):
                return one
        raise KeyError(f"{file}.{section}")

    def _split(self, path: str) -> tuple[str, str, str | None]:
        file, section, *option = path.split(".")
        return file, section, option[0] if option else None

    def _get(self, path: str) -> str:
        file, section, option = self._split(path)
        found = self._find(file, section)
        if option is None:
            return found.kind + "\n"
        value = found.options[option]
        return (value if isinstance(value, str) else " ".join(value)) + "\n"

    def _show(self, file: str) -> str:
        lines = []
        for number, section in enumerate(self._sections(file)):
            name = f"{file}.{section.name or _given_name(number)}"
            lines.append(f"{name}={section.kind}")
            for option, value in section.options.items():
                values = [value] if isinstance(value, str) else value
                lines.append(f"{name}.{option}=" + " ".join(f"'{one}'" for one in values))
        return "".join(f"{line}\n" for line in lines)

    def _set(self, assignment: str) -> None:
        path, value = assignment.split("=", 1)
        file, section, option = self._split(path)
        self.uncommitted.add(file)
        if option is not None:
            self._find(file, section).options[option] = value
            return
        try:
            self._find(file, section).kind = value
        except KeyError:
            self._sections(file).append(Section(value, section))

    def _add_list(self, assignment: str) -> None:
        path, value = assignment.split("=", 1)
        file, section, option = self._split(path)
        self.uncommitted.add(file)
        options = self._find(file, section).options
        old = options.get(option, [])
        options[option] = ([old] if isinstance(old, str) else old) + [value]

    def _del_list(self, assignment: str) -> None:
        path, value = assignment.split("=", 1)
        file, section, option = self._split(path)
        self.uncommitted.add(file)
        options = self._find(file, section).options
        options[option] = [one for one in options[option] if one != value]
        if not options[option]:
            del options[option]

    def _delete(self, path: str) -> None:
        file, section, option = self._split(path)
        found = self._find(file, section)
        if option is None:
            self._sections(file).remove(found)
        else:
            del found.options[option]
        self.uncommitted.add(file)

    def _commit(self, file: str) -> None:
        if file in self.uncommitted:
            (self.folder / file).write_text(written(self._sections(file)))
        self.uncommitted.discard(file)


def _given_name(number: int) -> str:
    return f"cfg{number:02x}"


def parse(text: str) -> list[Section]:
    sections: list[Section] = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        match words:
            case ["config", kind, *name]:
                sections.append(Section(kind, name[0] if name else None))
            case ["option", name, value]:
                sections[-1].options[name] = value
            case ["list", name, value]:
                sections[-1].options.setdefault(name, []).append(value)
            case []:
                pass
            case _:
                raise ValueError(line)
    return sections


def written(sections: list[Section]) -> str:
    """As `uci commit` writes a file."""
    text = ""
    for section in sections:
        text += f"\nconfig {section.kind}" + (f" '{section.name}'" if section.name else "") + "\n"
        for option, value in section.options.items():
            kind, values = ("option", [value]) if isinstance(value, str) else ("list", value)
            text += "".join(f"\t{kind} {option} '{one}'\n" for one in values)
    return text + "\n"
