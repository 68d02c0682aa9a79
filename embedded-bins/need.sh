#!/bin/bash
# need.sh PACKAGE…: installs what is missing of these Debian packages.
set -euo pipefail

missing=()
for package in "$@"; do
	# By a file each, so that a host without dpkg can have them under another name.
	case $package in
	gcc) command -v gcc >/dev/null && command -v readelf >/dev/null || missing+=(gcc) ;;
	libc6-dev) [ -e /usr/include/stdio.h ] || missing+=(libc6-dev) ;;
	libseccomp-dev) command -v pkg-config >/dev/null && pkg-config --exists libseccomp || missing+=(libseccomp-dev) ;;
	musl-tools) command -v musl-gcc >/dev/null || missing+=(musl-tools) ;;
	iproute2) command -v ip >/dev/null || missing+=(iproute2) ;;
	util-linux) command -v nsenter >/dev/null && command -v unshare >/dev/null || missing+=(util-linux) ;;
	e2fsprogs) command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs) ;;
	busybox-static) command -v busybox >/dev/null || missing+=(busybox-static) ;;
	postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql) ;;
	mariadb-server-core) command -v mariadbd >/dev/null || missing+=(mariadb-server-core) ;;
	mariadb-client-core) command -v my_print_defaults >/dev/null || missing+=(mariadb-client-core) ;;
	dpkg) command -v dpkg-deb >/dev/null || missing+=(dpkg) ;;
	*) command -v "$package" >/dev/null || missing+=("$package") ;;
	esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "This build needs what Debian calls: ${missing[*]}. There is no apt-get here: install them by hand and run make again." >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "This build needs the packages ${missing[*]}: run 'apt-get install ${missing[*]}' as root, then make again." >&2
		exit 1
	}
	sudo=sudo
fi
echo "This build needs Debian packages which are missing here: ${missing[*]}. Installing them with apt-get." >&2
export DEBIAN_FRONTEND=noninteractive
# Programs are needed here, not running servers: this policy keeps packages from starting theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | $sudo install -m 755 /dev/stdin $policy
	trap '$sudo rm $policy' EXIT
fi
apt=(apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5)
install() { $sudo "${apt[@]}" --no-install-recommends install "${missing[@]}" >/dev/null; }
# The lists of packages may be missing or too old to be of use.
install 2>/dev/null || { $sudo "${apt[@]}" update && install; } || {
	echo "apt-get could not install ${missing[*]}: see above. Install them by hand and run make again." >&2
	exit 1
}
