# What altnet changes of OpenWrt's own configuration, and how it changes it back. Sourced by the init script, by
# uci-defaults and when the package is removed.
#
# Whatever is added has a section's name or an option that begins with `altnet`, and only that is removed.

# altnet_dns MODE [PORT]: hands the names on the LAN over. `resolver`: dnsmasq moves to PORT, and altnetd answers.
# `behind`: dnsmasq asks altnetd, at PORT, for .alt. `none`: as it was before. Nothing is written if it is so already.
altnet_dns() {
	local mode="$1" wanted="$*" dnsmasq='dhcp.@dnsmasq[0]' now
	uci -q get "$dnsmasq" >/dev/null || return 0
	now="$(uci -q get "$dnsmasq.altnet_dns")"
	[ "$mode" != none ] || wanted=
	[ "$now" != "$wanted" ] || return 0

	altnet_dns_back "$dnsmasq" "$now"
	case "$mode" in
	resolver) altnet_dns_resolver "$dnsmasq" "$2" ;;
	behind)
		uci add_list "$dnsmasq.server=/alt/127.0.0.1#$2"
		# The addresses under .alt are private ones, which dnsmasq else holds for an attack.
		uci add_list "$dnsmasq.rebind_domain=alt"
		;;
	esac
	[ -z "$wanted" ] || uci set "$dnsmasq.altnet_dns=$wanted"
	uci commit dhcp
	/etc/init.d/dnsmasq restart
}

altnet_is_resolver() {
	case "$(uci -q get 'dhcp.@dnsmasq[0].altnet_dns')" in
	resolver*) return 0 ;;
	esac
	return 1
}

altnet_dns_resolver() {
	local dnsmasq="$1" before pool
	before="$(uci -q get "$dnsmasq.port")"
	[ -z "$before" ] || uci set "$dnsmasq.altnet_port_before=$before"
	uci set "$dnsmasq.port=$2"
	# On another port than 53 dnsmasq no longer tells DHCP clients of itself. 0.0.0.0 is this machine's own
	# address, whatever it is.
	for pool in $(altnet_sections dhcp dhcp); do
		[ "$(uci -q get "dhcp.$pool.ignore")" != 1 ] || continue
		case " $(uci -q get "dhcp.$pool.dhcp_option") " in
		*" 6,"* | *" option:dns-server,"*) ;;
		*)
			uci add_list "dhcp.$pool.dhcp_option=6,0.0.0.0"
			uci set "dhcp.$pool.altnet_dns=1"
			;;
		esac
	done
}

# altnet_dns_back SECTION 'MODE PORT'
altnet_dns_back() {
	local dnsmasq="$1" mode="${2%% *}" port="${2#* }" before pool
	case "$mode" in
	resolver)
		before="$(uci -q get "$dnsmasq.altnet_port_before")"
		uci -q delete "$dnsmasq.port"
		[ -z "$before" ] || uci set "$dnsmasq.port=$before"
		uci -q delete "$dnsmasq.altnet_port_before"
		for pool in $(altnet_sections dhcp dhcp); do
			[ "$(uci -q get "dhcp.$pool.altnet_dns")" = 1 ] || continue
			uci -q del_list "dhcp.$pool.dhcp_option=6,0.0.0.0"
			uci -q delete "dhcp.$pool.altnet_dns"
		done
		;;
	behind)
		uci -q del_list "$dnsmasq.server=/alt/127.0.0.1#$port"
		uci -q del_list "$dnsmasq.rebind_domain=alt"
		;;
	esac
	uci -q delete "$dnsmasq.altnet_dns"
	return 0
}

# altnet_sections FILE KIND: the names of its sections of one kind, also of those that have none.
altnet_sections() {
	uci -q -X show "$1" | sed -n "s/^$1\.\([^.=]*\)=$2\$/\1/p"
}

# altnet_value KIND OPTION DEFAULT: what /etc/config/altnet says.
altnet_value() {
	uci -q get "altnet.@$1[0].$2" || echo "$3"
}

# altnet_made SECTION: whether it is one that altnet_set_up made.
altnet_made() {
	case " $(uci -q get 'altnet.@openwrt[0].made') " in
	*" $1 "*) return 0 ;;
	esac
	return 1
}

# The rule that lets tunnels in follows the port of the configuration.
altnet_tunnel_port() {
	local port
	altnet_made firewall.altnet_tunnel || return 0
	port="$(altnet_value altnet listen_port 51820)"
	[ "$(uci -q get firewall.altnet_tunnel.dest_port || echo "$port")" != "$port" ] || return 0
	uci set "firewall.altnet_tunnel.dest_port=$port"
	uci commit firewall
	/etc/init.d/firewall reload
}

# Gives altnet an interface and a zone of its own, once: what somebody changed or removed since stays so, and so
# does what was there before.
altnet_set_up() {
	local zone
	[ "$(altnet_value openwrt set_up 0)" != 1 ] || return 0
	uci -q get 'altnet.@openwrt[0]' >/dev/null || uci set altnet.openwrt=openwrt
	uci set 'altnet.@openwrt[0].set_up=1'

	if altnet_make network.altnet interface; then
		uci set network.altnet.proto=none
		uci set "network.altnet.device=$(altnet_value tun name altnet0)"
	fi
	for zone in $(altnet_sections firewall zone); do
		[ "$(uci -q get "firewall.$zone.name")" != altnet ] || return 0
	done
	altnet_zone
	if altnet_make firewall.altnet_tunnel rule; then
		uci set firewall.altnet_tunnel.name=Allow-altnet
		uci set firewall.altnet_tunnel.src=wan
		uci set firewall.altnet_tunnel.proto=udp
		uci set "firewall.altnet_tunnel.dest_port=$(altnet_value altnet listen_port 51820)"
		uci set firewall.altnet_tunnel.target=ACCEPT
	fi
}

altnet_zone() {
	if altnet_make firewall.altnet zone; then
		uci set firewall.altnet.name=altnet
		uci add_list firewall.altnet.network=altnet
		uci set firewall.altnet.input=REJECT
		uci set firewall.altnet.output=ACCEPT
		uci set firewall.altnet.forward=REJECT
		uci set firewall.altnet.family=ipv6
	fi
	if altnet_make firewall.altnet_out forwarding; then
		uci set firewall.altnet_out.src=lan
		uci set firewall.altnet_out.dest=altnet
	fi
	# Who of the network may reach whom is altnetd's policy: what that refuses never gets here.
	if altnet_make firewall.altnet_in forwarding; then
		uci set firewall.altnet_in.src=altnet
		uci set firewall.altnet_in.dest=lan
	fi
	if altnet_make firewall.altnet_ping rule; then
		uci set firewall.altnet_ping.name=Allow-altnet-ping
		uci set firewall.altnet_ping.src=altnet
		uci set firewall.altnet_ping.proto=icmp
		uci set firewall.altnet_ping.family=ipv6
		uci set firewall.altnet_ping.target=ACCEPT
	fi
}

# altnet_make SECTION KIND: makes it and notes that, unless somebody has one of that name.
altnet_make() {
	! uci -q get "$1" >/dev/null || return 1
	uci set "$1=$2"
	uci add_list "altnet.@openwrt[0].made=$1"
}

altnet_commit() {
	uci commit network
	uci commit firewall
	uci commit altnet
}

# Has what was changed of them read.
altnet_apply() {
	ubus call network reload
	/etc/init.d/firewall reload
}

# Puts everything back, before the package goes.
altnet_take_down() {
	local section
	# First altnetd, which has port 53 where it is the resolver.
	/etc/init.d/altnet stop
	altnet_dns none
	for section in $(uci -q get 'altnet.@openwrt[0].made'); do
		uci -q delete "$section"
	done
	uci -q delete 'altnet.@openwrt[0].made'
	uci -q delete 'altnet.@openwrt[0].set_up'
	altnet_commit
	altnet_apply
}
