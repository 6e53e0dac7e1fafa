#!/bin/sh
# Installs altnet's package on OpenWrt, or a newer one over it, so that it is undone unless somebody confirms it.
# `altnet-provision openwrt install` brings it to the router and calls it there; it wants nothing but OpenWrt's busybox.
#
#   sh install.sh facts                        what the router is, a `name value` a line
#   sh install.sh prepare PACKAGE SHA256       whether PACKAGE came whole, and its program works here
#   sh install.sh install PACKAGE SECONDS      writes down what there is, and starts a service that installs PACKAGE and
#                                              undoes it after SECONDS, unless it is confirmed
#   sh install.sh outcome                      how far it is: installing, waiting, confirmed, undone WHY or none
#   sh install.sh check                        whether altnet runs and the router does what it did before
#   sh install.sh confirm                      keeps what was installed
#   sh install.sh undo WHY                     undoes it now
#
# The plan, $UNDO/plan, is there from before the first change until after the last: whoever finds it at a boot undoes what
# it was for. Each step can be done again.
set -u

RAM=/tmp/altnet-install
UNDO=/etc/altnet/undo
INIT=/etc/init.d/altnet-undo
CONFIGS='network firewall dhcp altnet'

fail() {
	echo "$*" >&2
	exit 1
}

# Before anything of it counts: on flash, whole.
settled() {
	sync
}

manager() {
	if command -v apk >/dev/null; then echo apk; else echo opkg; fi
}

installed_version() {
	case "$(manager)" in
	apk) apk list -I altnet 2>/dev/null | sed -n 's/^altnet-\([0-9][^ ]*\) .*/\1/p' ;;
	opkg) opkg list-installed altnet 2>/dev/null | sed -n 's/^altnet - //p' ;;
	esac | head -n 1
}

# The files of the package that is installed, from the root on.
installed_files() {
	case "$(manager)" in
	apk) apk info -L altnet 2>/dev/null | sed -n 's|^\([^/ ].*/.*\)$|/\1|p' ;;
	opkg) opkg files altnet 2>/dev/null | sed -n 's|^\(/.*\)|\1|p' ;;
	esac
}

has_kmod() {
	case "$(manager)" in
	apk) apk list -I kmod-tun 2>/dev/null ;;
	opkg) opkg list-installed kmod-tun 2>/dev/null ;;
	esac | grep -q '^kmod-tun'
}

# Kibibytes that are free where a path lies.
free_kib() {
	local free
	free="$(df -k "$1" 2>/dev/null | awk 'END { print $(NF - 2) }')"
	echo "${free:-0}"
}

flash() {
	if [ -d /overlay ]; then echo /overlay; else echo /; fi
}

resolves() {
	nslookup openwrt.org 127.0.0.1 >/dev/null 2>&1
}

facts() {
	local arch
	. /etc/openwrt_release 2>/dev/null || fail "this is not OpenWrt: there is no /etc/openwrt_release"
	echo "release ${DISTRIB_RELEASE:-}"
	echo "manager $(manager)"
	case "$(manager)" in
	apk) arch="$(cat /etc/apk/arch 2>/dev/null)" ;;
	opkg) arch="$(opkg print-architecture 2>/dev/null | sed -n 's/^arch \([^ ]*\) .*/\1/p' | tr '\n' ' ')" ;;
	esac
	echo "arch ${arch:-${DISTRIB_ARCH:-}}"
	echo "board $(cat /tmp/sysinfo/board_name 2>/dev/null)"
	echo "model $(cat /tmp/sysinfo/model 2>/dev/null)"
	echo "flash_kib $(free_kib "$(flash)")"
	echo "flash_kind $(sed -n "s|^[^ ]* $(flash) \([^ ]*\) .*|\1|p" /proc/mounts | tail -n 1)"
	echo "memory_kib $(free_kib /tmp)"
	echo "kmod_tun $(has_kmod && echo yes || echo no)"
	echo "installed $(installed_version)"
	echo "program_kib $(du -k /usr/bin/altnet-box 2>/dev/null | cut -f 1)"
	echo "names $(resolves && echo yes || echo no)"
	echo "pending $([ -f $UNDO/plan ] && echo yes || echo no)"
}

# Unpacked into memory, tried there and removed: nothing is installed that doesn't run on this processor.
prepare() {
	local package="$1" sum
	sum="$(sha256sum "$package" | cut -d ' ' -f 1)"
	[ "$sum" = "$2" ] || fail "the package did not come whole"
	rm -rf $RAM/tried
	mkdir -p $RAM/tried/state
	case "$package" in
	*.apk) apk extract --allow-untrusted --destination $RAM/tried "$package" >/dev/null ;;
	*) tar -xzOf "$package" ./data.tar.gz | tar -xzf - -C $RAM/tried ;;
	esac || fail "the package can't be unpacked on this router"
	echo "program_kib $(du -k $RAM/tried/usr/bin/altnet-box | cut -f 1)"
	$RAM/tried/usr/bin/altnet selftest --dir $RAM/tried/state >$RAM/selftest 2>&1 || {
		tail -n 5 $RAM/selftest >&2
		rm -rf $RAM/tried
		fail "the package's program does not work on this router"
	}
	(cd $RAM/tried && find . ! -type d) | sed 's|^\.||' >$RAM/brings
	rm -rf $RAM/tried
}

# What is there now, in archives. Those of the settings are small and always on flash; an older package goes there if there is room.
remember() {
	local file paths=
	rm -rf $UNDO
	mkdir -p $UNDO
	chmod 700 $UNDO
	for file in $CONFIGS; do
		[ ! -f /etc/config/"$file" ] || paths="$paths etc/config/$file"
	done
	# shellcheck disable=SC2086 # a list
	tar -czf $UNDO/settings.tgz -C / $paths || return 1
	# All that the old package and the new one bring, and what of it is there; with the manager's own files.
	{
		installed_files
		cat $RAM/brings
	} | sort -u >$UNDO/files
	{
		sed 's|^/||' $UNDO/files
		cd / && ls -d usr/lib/opkg/status usr/lib/opkg/info/altnet.* lib/apk/db/* etc/apk/world lib/apk/packages/altnet.* \
			etc/rc.d/*altnet 2>/dev/null
	} | while read -r file; do [ ! -f "/$file" ] && [ ! -L "/$file" ] || echo "$file"; done >$UNDO/kept
	[ -n "$(installed_version)" ] || return 0
	# shellcheck disable=SC2046 # names without spaces
	if [ "$(free_kib "$(flash)")" -ge "$1" ] && tar -czf $UNDO/package.tgz -C / $(cat $UNDO/kept); then
		return 0
	fi
	# A power cut then loses it.
	rm -f $UNDO/package.tgz
	# shellcheck disable=SC2046
	tar -czf $RAM/package.tgz -C / $(cat $UNDO/kept)
}

install() {
	local package="$1" seconds="$2"
	[ ! -f $UNDO/plan ] || fail "another installation waits to be confirmed"
	rm -rf $RAM/decided
	echo installing >$RAM/outcome
	remember "$(($(du -k "$package" | cut -f 1) * 2 + 512))" || {
		rm -rf $UNDO
		fail "there is no room to write down what is installed now"
	}
	{
		[ -n "$(installed_version)" ] && ! /etc/init.d/altnet running || echo altnetd
		! resolves || echo names
	} >$UNDO/worked
	cp "$0" $UNDO/install.sh
	cat >$INIT <<-'INIT'
		#!/bin/sh /etc/rc.common
		# An installation of altnet that nobody has confirmed yet: a boot undoes it, before the network is up.
		START=11
		USE_PROCD=1
		boot() {
			sh /etc/altnet/undo/install.sh boot
		}
		start_service() {
			procd_open_instance
			procd_set_param command /bin/sh /etc/altnet/undo/install.sh run
			procd_set_param stdout 1
			procd_set_param stderr 1
			procd_close_instance
		}
	INIT
	chmod 755 $INIT
	$INIT enable
	settled
	printf 'package %s\nseconds %s\nbefore %s\n' "$package" "$seconds" "$(installed_version)" >$UNDO/plan.new
	settled
	mv $UNDO/plan.new $UNDO/plan
	settled
	$INIT start
}

planned() {
	sed -n "s/^$1 //p" $UNDO/plan
}

# The service: installs, waits for somebody who confirms, and undoes it else.
run() {
	local package seconds
	[ -f $UNDO/plan ] || exit 0
	package="$(planned package)" seconds="$(planned seconds)"
	add "$package" >$RAM/log 2>&1 || {
		undo "the package manager said: $(grep -v '^$' $RAM/log | tail -n 2 | tr '\n' ' ')"
		exit 0
	}
	echo waiting >$RAM/outcome
	while [ "$seconds" -gt 0 ]; do
		sleep 1
		[ -f $UNDO/plan ] || exit 0
		seconds=$((seconds - 1))
	done
	undo "nobody confirmed it"
}

add() {
	# The lists of packages are in memory, so after a boot there are none.
	has_kmod || "$(manager)" update
	case "$1" in
	*.apk) apk add --allow-untrusted "$1" ;;
	*) opkg install --force-reinstall --force-downgrade "$1" ;;
	esac
}

check() {
	altnet selftest --dir $RAM >/dev/null 2>&1 || fail "altnet does not work as it is installed"
	! worked altnetd || /etc/init.d/altnet running ||
		fail "altnetd does not run; \`logread -e altnet\` on the router says why"
	! worked names || resolves || fail "the router no longer resolves names, which it did before"
}

worked() {
	grep -qx "$1" $UNDO/worked
}

# Whoever comes first, the person or the service, decides.
decides() {
	[ -f $UNDO/plan ] && mkdir $RAM/decided 2>/dev/null || fail "that is decided already: $(outcome)"
}

confirm() {
	decides
	echo confirmed >$RAM/outcome
	forget
}

# The plan goes first: without it the rest does nothing.
forget() {
	rm -f $UNDO/plan
	settled
	[ ! -x $INIT ] || $INIT disable
	rm -rf $INIT $UNDO $RAM/package.tgz
	settled
}

undo() {
	local why="$1"
	decides
	echo undoing >$RAM/outcome
	take_back
	forget
	echo "undone $why" >$RAM/outcome
	logger -t altnet -p daemon.err "the installation was undone: $why"
	/etc/init.d/network reload
	/etc/init.d/firewall reload
	/etc/init.d/dnsmasq restart
	[ ! -x /etc/init.d/altnet ] || /etc/init.d/altnet start
}

# At a boot nothing runs yet that would have to be told.
boot() {
	[ -f $UNDO/plan ] || { forget; return; }
	mkdir -p -m 700 $RAM
	take_back
	forget
	echo "undone the router was restarted before anybody confirmed it" >$RAM/outcome
	logger -t altnet -p daemon.err "the installation was undone: the router was restarted before anybody confirmed it"
}

take_back() {
	local file archive=
	[ ! -x /etc/init.d/altnet ] || /etc/init.d/altnet stop
	for file in $UNDO $RAM; do [ ! -f $file/package.tgz ] || archive=$file/package.tgz; done
	if [ -z "$archive" ] && [ -n "$(planned before)" ] && altnet selftest --dir $RAM >/dev/null 2>&1; then
		# The older package was lost with the memory: whichever is there works, and stays.
		:
	else
		# Also what came by halves, of which the manager knows nothing.
		[ -n "$archive" ] || case "$(manager)" in
		apk) apk del altnet ;;
		opkg) opkg remove altnet ;;
		esac
		while read -r file; do
			[ -n "$archive" ] && grep -qxF "${file#/}" $UNDO/kept || rm -f "$file"
		done <$UNDO/files
		[ -z "$archive" ] || tar -xzf $archive -C /
	fi
	# The settings as they were, with those that were not there gone.
	for file in $CONFIGS; do
		tar -tzf $UNDO/settings.tgz | grep -qxF "etc/config/$file" || rm -f /etc/config/"$file"
	done
	tar -xzf $UNDO/settings.tgz -C /
	settled
}

outcome() {
	if [ -f $RAM/outcome ]; then cat $RAM/outcome; else echo none; fi
}

mkdir -p -m 700 $RAM
action="${1:-}"
[ $# -eq 0 ] || shift
case "$action" in
facts | prepare | install | run | outcome | check | confirm | undo | boot) "$action" "$@" ;;
*) fail "what is $action?" ;;
esac
