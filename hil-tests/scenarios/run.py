"""Runs scenarios by name; see `hil-tests/run --help`."""

import inspect
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

from lab.places import CannotRunHere, LabError  # noqa: E402
from scenarios import (  # noqa: E402
    appliance, audit, certificates, derp, derpers, doors, first_boot, hostile, house, images, interop, lans, logins, mesh, nats, nearby, outages, pages, portmap, power, referral, refusals, router,
    sizes, slots,
    traversal, turn, uplinks,
)

FAMILIES = [
    nats, interop, derp, pages, refusals, hostile, logins, referral, power, outages, house, audit, portmap, traversal, sizes, mesh, nearby, turn,
    derpers, doors, certificates, router, uplinks, lans, slots, images, first_boot, appliance,
]
SKIP = 77


def scenarios(long: bool) -> dict:
    """Functions by name, in the order of the families."""
    found = {}
    for family in FAMILIES:
        found.update({scenario.__name__: scenario for scenario in family.SCENARIOS})
        if long:
            found.update({scenario.__name__: scenario for scenario in getattr(family, "LONG", [])})
    return found


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print("".join(line.lstrip("# ") for line in (HERE.parents[1] / "run").read_text().splitlines(True)[1:8]))
        return 0
    known = scenarios(long=True)
    names = [word for word in arguments if not word.startswith("--")] or list(scenarios(long="--all" in arguments))
    unknown = [name for name in names if name not in known]
    if unknown or set(arguments) - set(names) - {"--all", "--list", "--describe"}:
        print(f"there is no {' '.join(unknown) or 'such option'}; see hil-tests/run --list", file=sys.stderr)
        return 2
    if "--list" in arguments:
        print("\n".join(names))
        return 0
    if "--describe" in arguments:
        for name in names:
            print(f"{name}\n    {inspect.getdoc(known[name]).splitlines()[0]}")
        return 0
    return max((run(known[name]) for name in names), key=lambda code: (code == 1, code))


def run(scenario) -> int:
    """Runs one scenario and says how it went on one line, after whatever it printed."""
    started = time.monotonic()
    try:
        scenario()
        code, said = 0, "held"
    except CannotRunHere as reason:
        code, said = SKIP, f"cannot run here: {reason}"
    except (AssertionError, LabError) as fault:
        traceback.print_exc()
        code, said = 1, f"FAILED: {fault}"
    print(f"{scenario.__name__} {said} ({time.monotonic() - started:.1f} s)", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
