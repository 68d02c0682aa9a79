#!/bin/bash
# The first process of a test host, and after setting up the host its reaper.
# It starts in new net, mnt, pid, uts and ipc namespaces, still over the machine's files:
#   init.sh join HOSTDIR NAME MACHINEID   then:
#     K0ST_ADDRESSES the host's addresses, one "ADDRESS/LEN GATEWAY" a line
#     K0ST_JOIN   cgroup.procs files, one a line, of the cgroups made for this host
#     K0ST_CGROUP cgroup mounts to make, one "TYPE OPTIONS DIR" a line
#     K0ST_BIND   directories of the machine to show unchanged, one a line
# It waits for end of file on its input (the network cable is plugged in) and writes a
# line to descriptor 3 when the host is up.
set -eu
stage=$1 H=$2 name=$3 machineid=$4
R=$H/root

if [ "$stage" = join ]; then
  # The cgroup namespace's root is where the process is when it is made: join first.
  while read -r procs; do echo 0 >"$procs"; done <<<"$K0ST_JOIN"
  shift
  exec unshare --cgroup -- bash "$0" boot "$@"
fi

hostname "$name"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$H/up,workdir=$H/work" "$R"
mount -t proc proc "$R/proc"
mount -t sysfs sysfs "$R/sys"
mount --rbind /dev "$R/dev"
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
mount -t tmpfs -o mode=0755 tmpfs "$R/run"
mount --bind "$H/tmp" "$R/tmp"

# An overlay cannot be the upper layer of a container's overlay, so /var/lib is real disk.
# What Debian has installed is still true in here.
mount --bind "$H/var" "$R/var/lib"
if [ -d /var/lib/dpkg ]; then
  mkdir -p "$R/var/lib/dpkg"
  mount --bind /var/lib/dpkg "$R/var/lib/dpkg"
  mount -o remount,bind,ro "$R/var/lib/dpkg"
fi
while read -r dir; do
  [ -n "$dir" ] || continue
  mkdir -p "$R$dir"
  mount --rbind "$dir" "$R$dir"
done <<<"$K0ST_BIND"

# Kernel settings that no namespace divides: what the host sets stays in the host.
mkdir -p "$H/sysctl"
for s in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$s" ] || continue
  cat "/proc/sys/$s" >"$H/sysctl/${s//\//.}"
  mount --bind "$H/sysctl/${s//\//.}" "$R/proc/sys/$s"
done

mount -t tmpfs -o mode=0755 tmpfs "$R/sys/fs/cgroup"
while read -r type options dir; do
  mkdir -p "$R/sys/fs/cgroup/$dir"
  mount -t "$type" -o "$options" "$type" "$R/sys/fs/cgroup/$dir"
  if [ "$type" = cgroup2 ]; then # processes live in a leaf, or no controller can be shared out
    mkdir -p "$R/sys/fs/cgroup/$dir/init"
    echo 0 >"$R/sys/fs/cgroup/$dir/init/cgroup.procs"
  fi
done <<<"$K0ST_CGROUP"

echo "$machineid" >"$R/etc/machine-id"
mkdir -p "$R/oldroot"
pivot_root "$R" "$R/oldroot"
cd /
umount -l /oldroot
rmdir /oldroot
mount --make-rshared /

while read -r _; do :; done
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad # a host does not change once it is up
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set lo up
ip link set eth0 up
while read -r address gateway; do
  ip addr add "$address" dev eth0
  ip route add default via "$gateway"
done <<<"$K0ST_ADDRESSES"

echo up >&3
# bash reaps whatever is orphaned in this pid namespace.
exec env -i PATH="$PATH" bash -c 'exec 3>&- </dev/null; while :; do sleep infinity & wait $!; done'
