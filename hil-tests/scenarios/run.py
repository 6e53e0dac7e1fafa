"""Runs scenarios by name; see `hil-tests/run --help`."""

import inspect
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

from lab import guest  # noqa: E402
from lab.places import IN_GUEST, CannotRunHere  # noqa: E402
from scenarios import (  # noqa: E402
    appliance, audit, certificates, claim, cuts, derp, derpers, doors, first_boot, hostile, house, images, interop, lans, logins, mesh, nats, nearby, ntp, offload, outages, pages,
    portmap, power, pppoe, rates, referral, refusals, rescue, router,
    sizes, slots,
    traversal, turn, unplugged, updates, uplinks, vlans, wifi,
)

FAMILIES = [
    nats, interop, derp, pages, refusals, hostile, logins, referral, power, outages, house, audit, portmap, traversal, sizes, mesh, nearby, turn,
    derpers, doors, certificates, router, uplinks, lans, slots, claim, images, first_boot, appliance, updates, rescue, cuts, unplugged, wifi, vlans, pppoe, rates, offload, ntp,
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


def in_a_guest() -> dict:
    """Functions by name of those that want more of a kernel than this machine's may have."""
    return {scenario.__name__: scenario for family in FAMILIES for scenario in getattr(family, "GUEST", [])}


def untried() -> dict:
    """Functions by name of those that were written and never seen to hold: only who names one runs it."""
    return {scenario.__name__: scenario for family in FAMILIES for scenario in getattr(family, "UNTRIED", [])}


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print("".join(line.lstrip("# ") for line in (HERE.parents[1] / "run").read_text().splitlines(True)[1:11]))
        return 0
    known = {**scenarios(long=True), **in_a_guest(), **untried()}
    usual = in_a_guest() if "--guest" in arguments else scenarios(long="--all" in arguments)
    names = [word for word in arguments if not word.startswith("--")] or list(usual)
    unknown = [name for name in names if name not in known]
    if unknown or set(arguments) - set(names) - {"--all", "--guest", "--list", "--describe"}:
        print(f"there is no {' '.join(unknown) or 'such option'}; see hil-tests/run --list", file=sys.stderr)
        return 2
    if "--list" in arguments:
        print("\n".join(names))
        return 0
    if "--describe" in arguments:
        for name in names:
            print(f"{name}\n    {inspect.getdoc(known[name]).splitlines()[0]}")
        return 0
    guests = [name for name in names if name in in_a_guest() and not IN_GUEST]
    codes = [run(known[name]) for name in names if name not in guests]
    if guests:
        codes.append(run_in_a_guest(guests))
    return max(codes, key=lambda code: (code == 1, code))


def run_in_a_guest(names: list[str]) -> int:
    """Runs scenarios in one guest, and says once more how each went."""
    try:
        said = guest.run(names)
    except CannotRunHere as reason:
        said = {name: f"cannot run here: {reason}" for name in names}
    except Exception as fault:
        traceback.print_exc()
        print(f"the guest FAILED: {fault}", flush=True)
        return 1
    print()
    for name, how in said.items():
        print(f"{name} {how} in the guest", flush=True)
    if any(how.startswith("FAILED") for how in said.values()):
        return 1
    return 0 if all(how == "held" for how in said.values()) else SKIP


def run(scenario) -> int:
    """Runs one scenario and says how it went on one line, after whatever it printed."""
    started = time.monotonic()
    try:
        scenario()
        code, said = 0, "held"
    except CannotRunHere as reason:
        code, said = SKIP, f"cannot run here: {reason}"
    except Exception as fault:
        traceback.print_exc()
        code, said = 1, f"FAILED: {next(iter(str(fault).splitlines()), type(fault).__name__)}"
    print(f"{scenario.__name__} {said} ({time.monotonic() - started:.1f} s)", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
