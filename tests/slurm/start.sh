#!/usr/bin/env bash
# Starts a Slurm of one node for the tests, as root on Debian, and prints the shell line that points to it:
#     eval "$(tests/slurm/start.sh DIR)"
# Packages: munge slurmctld slurmd slurm-client. No systemd, no cgroups, no network but the loopback.
# Its two GPUs are character devices that any machine has. Partition "urgent" preempts "main".
set -euo pipefail
DIR=$(mkdir -p "$1" && cd "$1" && pwd) HOST=$(hostname -s)
export SLURM_CONF=$DIR/slurm.conf PATH=$PATH:/usr/sbin
mkdir -p "$DIR"/{state,spool}
until_ok() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; tail "$DIR"/*.log >&2; exit 1; }

(umask 077; head -c 64 /dev/urandom >"$DIR/munge.key")
printf 'NodeName=localhost Name=gpu File=%s Flags=nvidia_gpu_env\n' /dev/null /dev/zero >"$DIR/gres.conf"
cat >"$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again; two minutes unless set
AuthInfo=socket=$DIR/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=${SLURMCTLD_PORT:-6817}
SlurmdPort=${SLURMD_PORT:-6818}
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
GresTypes=gpu
AccountingStorageType=accounting_storage/none
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=$HOST CPUs=4 RealMemory=8000 Gres=gpu:2
PartitionName=main Nodes=localhost Default=YES DefaultTime=60 DefMemPerCPU=1000 PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=localhost DefaultTime=60 DefMemPerCPU=1000 PriorityTier=10 PreemptMode=OFF
CONF

munged --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" --pid-file="$DIR/munged.pid" \
  --log-file="$DIR/munged.log" --seed-file="$DIR/munge.seed" --force
until_ok munge -n -S "$DIR/munge.socket"
slurmctld
until_ok scontrol ping
slurmd
until_ok sh -c 'sinfo --noheader --format=%T | grep -q idle'
printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
