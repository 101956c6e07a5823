#!/usr/bin/env bash
# Installs SLURM and munge from Debian's packages and starts a cluster of this one machine.
# For CI machines and containers alone: it needs root and writes /etc/slurm/slurm.conf.
set -euo pipefail
if command -v sinfo >/dev/null && sinfo >/dev/null 2>&1; then exit 0; fi
[ "$(id -u)" = 0 ] || { echo "needs root to install and start SLURM" >&2; exit 3; }
command -v slurmctld >/dev/null || {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
}
host=$(hostname -s)
state=/var/lib/slurm-test
mkdir -p "$state"/{ctld,d} /etc/slurm /run/munge /var/log/munge
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile=$state/ctld.pid
SlurmdPidFile=$state/d.pid
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldLogFile=$state/ctld.log
SlurmdLogFile=$state/d.log
ReturnToService=2
JobRequeue=1
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName=$host CPUs=$(nproc) State=UNKNOWN
PartitionName=low Nodes=$host Default=YES PriorityTier=1 GraceTime=30 State=UP
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF State=UP
CONF
chown -R munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
[ -f /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; chown munge: /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
pgrep munged >/dev/null || su -s /bin/sh munge -c munged
pgrep slurmctld >/dev/null || slurmctld
pgrep slurmd >/dev/null || slurmd
for _ in $(seq 60); do
  if sinfo -h -o %t 2>/dev/null | grep -qE "idle|mix|alloc"; then exit 0; fi
  sleep 1
done
echo "the node did not come up:" >&2
tail -5 "$state"/*.log >&2
exit 4
