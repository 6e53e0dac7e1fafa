"""The package's scripts, run on a pretend device, and what they call compared with what is committed."""

import pathlib

# First: it finds the modules beside this folder.
from layout import EPOCH, expect, ipk, package, readers
from device import HERE, Device
from readers import check

OWN = ("dhcp", "firewall", "network")
INIT = "/etc/init.d/altnet"


def start(device: Device) -> list[str]:
    return device.run(INIT, "start")


def reload(device: Device) -> list[str]:
    return device.run(INIT, "reload")


def stock(name: str) -> str:
    return (HERE / "stock" / name).read_text()


def check_stock(device: Device, *but: str) -> None:
    """OpenWrt's own files are as they were before the package came."""
    for name in OWN:
        check(name in but or device.config(name) == stock(name), f"{name} is\n{device.config(name)}")


def has_no_leftovers(device: Device) -> None:
    check(not device.uci.uncommitted, f"changes of {device.uci.uncommitted} are not committed")


def install(device: Device) -> list[str]:
    """As opkg does, with the scripts of the package itself."""
    control = readers.ipk(ipk.build(package.make("x86_64", "0.1.0-r1", EPOCH, b"program"))).control
    for name, entry in control.items():
        if entry.kind == "file":
            path = device.root / "control" / name
            path.write_bytes(entry.data)
            path.chmod(entry.mode)
    return device.run("/control/postinst", "configure")


def installed_and_removed(altnet: pathlib.Path, record: bool) -> None:
    with Device(altnet) as device:
        expect("install.txt", log(install(device)), record)
        has_no_leftovers(device)
        for name in OWN:
            expect(f"{name}.conf", device.config(name), record)
        expect("altnet.conf", device.config("altnet"), record)
        check(not (device.root / "etc/uci-defaults/99-altnet").exists(), "uci-defaults is still there")
        expect("remove.txt", log(device.run("/control/prerm", "remove")), record)
        has_no_leftovers(device)
        check_stock(device)


def log(calls: list[str]) -> str:
    return "".join(f"{call}\n" for call in calls)


def started_again_it_changes_nothing(altnet: pathlib.Path, record: bool) -> None:
    with Device(altnet) as device:
        install(device)
        calls = start(device)
        expect("start.txt", log(calls), record)
        check(device.code == 0 and not [call for call in calls if call.startswith("uci")], "a start writes to flash")


def an_upgrade_leaves_settings_alone(altnet: pathlib.Path, _: bool) -> None:
    with Device(altnet) as device:
        install(device)
        device.uci.run("delete", "firewall.altnet_ping")
        device.uci.run("commit", "firewall")
        before = {name: device.config(name) for name in OWN}
        script = (device.root / "control/prerm").read_text().replace("#!/bin/sh", "#!/bin/sh\nexport PKG_UPGRADE=1", 1)
        (device.root / "control/prerm").write_text(script)
        calls = device.run("/control/prerm", "upgrade")
        device.reinstall_files()
        calls += install(device)
        check({name: device.config(name) for name in OWN} == before, "an upgrade changed settings")
        check("rc disable" not in calls, "an upgrade switched altnet off")


def dns_goes_to_and_fro(altnet: pathlib.Path, record: bool) -> None:
    with Device(altnet) as device:
        install(device)
        device.change("altnet", "dns 'behind'", "dns 'resolver'")
        expect("resolver.txt", log(start(device)), record)
        expect("resolver-dhcp.conf", device.config("dhcp"), record)
        device.change("altnet", "dns_port '5300'", "dns_port '5400'")
        start(device)
        check(device.uci.run("get", "dhcp.@dnsmasq[0].port") == (0, "5400\n"), "another port is not taken")
        device.change("altnet", "dns 'resolver'", "dns 'behind'")
        calls = reload(device)
        check(calls.index("procd_kill altnet") < calls.index("/etc/init.d/dnsmasq restart"), "dnsmasq is to wait for port 53")
        check(device.uci.run("get", "dhcp.@dnsmasq[0].server") == (0, "/corp.example/192.0.2.53 /alt/127.0.0.1#5400\n"), "behind dnsmasq")
        device.change("altnet", "dns 'behind'", "dns 'none'")
        check("procd_kill altnet" not in reload(device), "it is stopped for nothing")
        check_stock(device, "firewall", "network")
        has_no_leftovers(device)


def a_port_of_dnsmasqs_own_comes_back(altnet: pathlib.Path, _: bool) -> None:
    with Device(altnet) as device:
        device.change("dhcp", "\toption domainneeded '1'\n", "\toption domainneeded '1'\n\toption port '5353'\n")
        before = device.config("dhcp")
        device.change("altnet", "dns 'behind'", "dns 'resolver'")
        start(device)
        check("5353" in device.config("dhcp") and device.config("dhcp") != before, "the handover")
        device.change("altnet", "enabled '1'", "enabled '0'")
        calls = start(device)
        check(not [call for call in calls if call.startswith("procd_set_param")], "it was started although it is off")
        check(device.uci.run("get", "dhcp.@dnsmasq[0].port") == (0, "5353\n"), "its port")
        check(sorted(device.config("dhcp")) == sorted(before), "something is left in dhcp")


def a_mistake_is_logged_and_the_house_keeps_its_names(altnet: pathlib.Path, record: bool) -> None:
    with Device(altnet) as device:
        install(device)
        device.change("altnet", "dns 'behind'", "dns 'resolver'")
        start(device)
        device.change("altnet", "option listen_port '51820'", "option listen_port '70000'")
        calls = reload(device)
        expect("mistake-reload.txt", log(calls), record)
        check(device.code != 0 and "altnet_dns 'resolver" in device.config("dhcp"), "what runs has to go on as it was")
        calls = start(device)
        expect("mistake.txt", log(calls), record)
        check(device.code != 0, "a start with a mistake succeeds")
        check_stock(device, "firewall", "network")
        device.run(INIT, "check")
        check(device.code != 0 and "listen_port: a number is expected here" in device.output, device.output)


def the_rule_follows_the_port(altnet: pathlib.Path, _: bool) -> None:
    with Device(altnet) as device:
        install(device)
        device.change("altnet", "option listen_port '51820'", "option listen_port '4500'")
        calls = start(device)
        check("/etc/init.d/firewall reload" in calls, "the firewall doesn't hear of it")
        check(device.uci.run("get", "firewall.altnet_tunnel.dest_port") == (0, "4500\n"), "the rule's port")
        check("/etc/init.d/firewall reload" not in start(device), "the firewall is reloaded for nothing")


def sections_of_a_person_stay(altnet: pathlib.Path, _: bool) -> None:
    mine = "config zone\n\toption name 'altnet'\n\toption input 'DROP'\n\n"
    own_name = "config rule 'altnet_tunnel'\n\toption name 'mine'\n\toption src 'wan'\n\n"
    interface = "config interface 'altnet'\n\toption proto 'static'\n\n"
    for file, section in (("firewall", mine), ("firewall", own_name), ("network", interface)):
        with Device(altnet) as device:
            path = device.root / "etc/config" / file
            path.write_text(path.read_text() + section)
            before = path.read_text()
            install(device)
            check(device.config(file).startswith(before.rstrip("\n")), f"{file} is\n{device.config(file)}")
            device.run("/control/prerm", "remove")
            check(path.read_text().strip() == before.strip(), f"afterwards {file} is\n{path.read_text()}")


def an_image_that_is_being_made_is_not_reconfigured(altnet: pathlib.Path, _: bool) -> None:
    with Device(altnet) as device:
        install(device)
        script = "#!/bin/sh\nexport IPKG_INSTROOT=/elsewhere\n. /control/postinst-pkg\n. /control/prerm-pkg\n"
        check(device.script(script) == [], "a script reaches out of the image")


def the_independent_parser_reads_it(altnet: pathlib.Path, _: bool) -> None:
    """uciparse, which isn't ours, finds in the package's file what we wrote there."""
    from uciparse.uci import UciConfigLine, UciFile, UciListLine, UciOptionLine

    found, section = [], ""
    path = HERE.parent / "files/etc/config/altnet"
    for line in UciFile.from_file(str(path)).lines:
        match line:
            case UciConfigLine(section=kind):
                section = kind
            case UciOptionLine(name=name, value=value) | UciListLine(name=name, value=value):
                found.append(f"{section}.{name}={value}")
    expected = [
        "openwrt.enabled=1", "openwrt.dns=behind", "openwrt.dns_port=5300", "altnet.state_directory=/etc/altnet/state",
        "altnet.listen_port=51820", "lan.interface=br-lan", "lan.advertise=off", "audit.max_bytes=262144",
    ]
    check(found == expected, f"it reads {found}")
    with Device(altnet) as device:
        install(device)
        for name in ("altnet", *OWN):
            UciFile.from_file(str(device.root / "etc/config" / name))


CHECKS = [
    installed_and_removed,
    started_again_it_changes_nothing,
    an_upgrade_leaves_settings_alone,
    dns_goes_to_and_fro,
    a_port_of_dnsmasqs_own_comes_back,
    a_mistake_is_logged_and_the_house_keeps_its_names,
    the_rule_follows_the_port,
    sections_of_a_person_stay,
    an_image_that_is_being_made_is_not_reconfigured,
    the_independent_parser_reads_it,
]
