#!/bin/bash
# Makes the packet filter tools: nft and iptables from Debian's binary packages, together
# with the loader, the libraries and the modules they need, and a launcher of our own.
#
#   build.sh OUT         into OUT/tree, from the packages of packages.lock
#   build.sh OUT --lock  write packages.lock anew, with the newest packages
#
# OUT/versions holds what `pack helper -version` wants, OUT/packages.tsv what was used:
# package, version, source package, its version; OUT/copyright/ their terms.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
lock=$here/packages.lock
arch=$(dpkg --print-architecture)

warn() { echo "embedded-bins/pf: WARNING: $*" >&2; }
die() { echo "embedded-bins/pf: $*" >&2; exit 1; }
apt_get() { apt-get -qq -o APT::Sandbox::User=root "$@"; }

candidate() { apt-cache policy "$1" | awk '$1 == "Candidate:" { print $2 }'; }

# download PACKAGE VERSION: prints the name of the .deb, which is kept for the next time.
download() {
	local deb
	deb=$out/debs/$1_${2//:/%3a}_$arch.deb
	[ -s "$deb" ] || (cd "$out/debs" && apt_get download "$1=$2") >&2 || return 1
	[ -s "$deb" ] || die "apt-get download $1=$2 did not write $deb"
	echo "$deb"
}

mkdir -p "$out/debs"
rm -rf "$out/tree" "$out/root" "$out/copyright"
mkdir -p "$out/root" "$out/copyright" "$out"/tree/pf/{bin,lib,xtables}

if [ "${2:-}" = --lock ]; then
	apt_get update
	grep '^#' "$lock" >"$out/packages.lock"
	for package in $(awk '!/^#/ { print $1 }' "$lock"); do
		version=$(candidate "$package")
		deb=$(download "$package" "$version")
		printf '%-23s %-23s %-6s %s\n' "$package" "$version" "$arch" "$(sha256sum <"$deb" | cut -d' ' -f1)"
	done >>"$out/packages.lock"
	mv "$out/packages.lock" "$lock"
	exit
fi

: >"$out/packages.tsv"
updated=
while read -r package version locked_arch sha256; do
	if [ "$locked_arch" != "$arch" ]; then
		warn "packages.lock is for $locked_arch: taking the newest $package for $arch, unchecked"
		version=$(candidate "$package")
		sha256=
	fi
	if ! deb=$(download "$package" "$version" 2>/dev/null); then
		# The lists of packages may be missing (a fresh container image) or old.
		[ -n "$updated" ] || apt_get update
		updated=yes
		newest=$(candidate "$package")
		if [ -z "$newest" ] || [ "$newest" = '(none)' ]; then
			die "package $package cannot be had: apt-cache knows no version of it"
		fi
		if ! deb=$(download "$package" "$version" 2>/dev/null); then
			warn "$package $version, which packages.lock names, is gone from the mirror: taking $newest, unchecked ('make update-pf' locks it)"
			version=$newest
			sha256=
			deb=$(download "$package" "$version") || die "apt-get download $package=$version failed"
		fi
	fi
	got=$(sha256sum <"$deb" | cut -d' ' -f1)
	if [ -n "$sha256" ] && [ "$got" != "$sha256" ]; then
		rm -f "$deb"
		die "$package $version has sha256 $got, but packages.lock says $sha256"
	fi
	dpkg-deb --extract "$deb" "$out/root"
	dpkg-deb --showformat='${Package}\t${Version}\t${source:Package}\t${source:Version}\n' --show "$deb" >>"$out/packages.tsv"
	cp "$out/root/usr/share/doc/$package/copyright" "$out/copyright/$package"
done < <(grep -v '^#' "$lock")

# find_one NAME: the file or link of this name in the unpacked packages.
find_one() {
	local found
	found=$(find "$out/root" -name "$1" \( -type f -o -type l \) | sort | head -n 1)
	[ -n "$found" ] || die "no package of packages.lock holds $1"
	echo "$found"
}

needed() { readelf --dynamic "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

tree=$out/tree/pf

# with_libraries FILE: puts the libraries it needs, and those they need, into lib.
with_libraries() {
	local name found
	for name in $(needed "$1"); do
		case $name in ld-linux*) continue ;; esac
		if [ ! -e "$tree/lib/$name" ]; then
			found=$(find_one "$name")
			install -m 755 "$(readlink -f "$found")" "$tree/lib/$name"
			with_libraries "$tree/lib/$name"
		fi
	done
}

for program in nft xtables-nft-multi xtables-legacy-multi; do
	install -m 755 "$(find_one "$program")" "$tree/bin/$program"
	with_libraries "$tree/bin/$program"
done
cp -a "$(dirname "$(find_one libxt_tcp.so)")"/. "$tree/xtables/"
find "$tree/xtables" -type f -exec chmod 644 {} +
for module in "$tree"/xtables/*.so; do with_libraries "$module"; done
loader=$(needed "$tree/lib/libc.so.6" | grep '^ld-linux')
install -m 755 "$(readlink -f "$(find_one "$loader")")" "$tree/ld.so"

flags=(-Os -Wall -Wextra -Werror "-ffile-prefix-map=$here=." -Wl,--build-id=none -s)
musl-gcc -static -D_GNU_SOURCE "${flags[@]}" -o "$tree/launcher" "$here/launcher.c"
gcc -shared -fPIC "${flags[@]}" -o "$tree/lib/protocols.so" "$here/protocols.c"

# Everything must be found here, and nothing on whatever host this will run on.
for object in "$tree"/bin/* "$tree"/xtables/*.so; do
	if strays=$("$tree/ld.so" --inhibit-cache --library-path "$tree/lib" --list "$object" |
		grep -v -e "$tree/" -e linux-vdso -e '/ld-linux'); then
		die "$object needs more than what is packed with it:"$'\n'"$strays"
	fi
done

ln -s pf/launcher "$out/tree/nft"
for family in iptables ip6tables; do
	for flavour in '' -nft -legacy; do
		for verb in '' -save -restore; do
			ln -s pf/launcher "$out/tree/$family$flavour$verb"
		done
	done
done
awk -F'\t' '$1 == "nftables" || $1 == "iptables" { list = list sep $1 "=" $2; sep = "," } END { print list }' \
	"$out/packages.tsv" >"$out/versions"
rm -rf "$out/root"
