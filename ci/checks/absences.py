"""The invariants of the portable crates, most of which are absences.

`wire`, `tunnel` and `core` have no clock, socket, random source, thread, `async`, `unsafe` or
logging sink. `#![no_std]` makes most slips fail on every build; these say it in words, and see
what the compiler on a host would let pass.
"""

import re

from tree import Tree, code_only, lines_matching, without_tests

PORTABLE = ["firmware/altnet-wire", "firmware/altnet-tunnel", "firmware/altnet-core"]

FORBIDDEN = {
    r"\bextern\s+crate\s+std\b": "pulls in std",
    r"\bstd::": "names std",
    r"\bunsafe\b": "is unsafe",
    r"\basync\b|\.await\b": "is async",
    r"\b(?:e?print|e?println|dbg)!": "prints",
    r"\b(?:log|tracing|defmt)::": "logs",
    r"\bSystemTime\b|\bInstant::now\b": "reads a clock",
    r"\bthread::|\b(?:Tcp|Udp)(?:Stream|Socket|Listener)\b": "names a thread or a socket",
    r"\b(?:OsRng|getrandom|thread_rng)\b": "draws randomness of its own",
    r"\bcfg\w*\(\s*(?:not\(\s*)?feature\b": "depends on a cargo feature",
}

PREAMBLE = ["#![no_std]", "#![forbid(unsafe_code)]"]


def portable_crates_lack_the_world(tree: Tree) -> list[str]:
    """No line outside tests matches a `FORBIDDEN` pattern."""
    complaints = []
    for crate in PORTABLE:
        for path, source in tree.under(f"{crate}/src", ".rs").items():
            if is_test_file(path):
                continue
            code = without_tests(source)
            for pattern, fault in FORBIDDEN.items():
                complaints += [f"{path}:{line} {fault}" for line in lines_matching(pattern, code)]
    return complaints


def portable_crates_say_so(tree: Tree) -> list[str]:
    """Each portable crate opens with the attributes of `PREAMBLE`, unconditionally."""
    complaints = []
    for crate in PORTABLE:
        path = f"{crate}/src/lib.rs"
        if path not in tree.files:
            continue
        lines = {line.strip() for line in code_only(tree.files[path]).splitlines()}
        complaints += [f"{path} lacks {attribute}" for attribute in PREAMBLE if attribute not in lines]
    return complaints


def nothing_is_left_undone(tree: Tree) -> list[str]:
    """No `todo!`, `unimplemented!` or ignored test without a reason, anywhere."""
    complaints = []
    for path, source in tree.files.items():
        if not path.endswith(".rs"):
            continue
        code = code_only(source)
        complaints += [f"{path}:{line} is left undone" for line in lines_matching(r"\b(?:todo|unimplemented)!", code)]
        complaints += [f"{path}:{line} ignores a test without a reason" for line in lines_matching(r"#\[ignore\]", code)]
    return complaints


HAS_TESTS = re.compile(r"#\[cfg\((?:all\()?test\b")


def portable_modules_carry_their_tests(tree: Tree) -> list[str]:
    """A module (its file and its folder) with more than 60 lines of code has tests, there or by name in a file of tests."""
    complaints = []
    elsewhere = "\n".join(source for path, source in tree.files.items() if path.endswith(".rs") and is_test_file(path))
    for crate in PORTABLE:
        modules: dict[str, str] = {}
        for path, source in tree.under(f"{crate}/src", ".rs").items():
            name = path.removeprefix(f"{crate}/src/").split("/")[0].removesuffix(".rs")
            modules[name] = modules.get(name, "") + source
        for name, source in modules.items():
            code = without_tests(source)
            is_long = sum(bool(line.strip()) for line in code.splitlines()) > 60 and " fn " in code
            if is_long and name != "lib" and not HAS_TESTS.search(source) and f"{name}::" not in elsewhere:
                complaints.append(f"{crate}: module {name} has no tests: put them at its bottom, or name it in a file of tests")
    return complaints


def is_test_file(path: str) -> bool:
    """Whether a file holds tests alone: `tests/` of a crate, or a module declared behind `#[cfg(test)]`."""
    return path.endswith(("/tests.rs", "/testing.rs")) or "/tests/" in path


def _core(source: str) -> Tree:
    return Tree({"firmware/altnet-core/src/lib.rs": source, "firmware/altnet-core/src/node.rs": source})


CHECKS = {
    portable_crates_lack_the_world: [
        _core("extern crate std;"),
        _core("use std::vec::Vec;"),
        _core("fn f() { unsafe { g() } }"),
        _core("async fn f() {}"),
        _core('fn f() { println!("x") }'),
        _core("fn f() { log::info!() }"),
        _core("fn f() { let now = Instant::now(); }"),
        _core("fn f() { thread::spawn(g) }"),
        _core("fn f() { getrandom(b) }"),
        _core('#[cfg(feature = "x")]\nfn f() {}'),
        _core("#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { unsafe {} }"),
    ],
    portable_crates_say_so: [
        _core("#![no_std]\n"),
        _core("#![cfg_attr(not(test), no_std)]\n#![forbid(unsafe_code)]"),
        _core("// #![no_std]\n#![forbid(unsafe_code)]"),
    ],
    nothing_is_left_undone: [
        Tree({"a.rs": "fn f() { todo!() }"}),
        Tree({"a.rs": "#[test]\n#[ignore]\nfn f() {}"}),
    ],
    portable_modules_carry_their_tests: [
        _core("pub fn f() {\n" + "    g();\n" * 80 + "}\n"),
    ],
}
