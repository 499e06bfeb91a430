#!/usr/bin/env bash
# Ends the Slurm that start.sh started in a folder: its jobs first, then its daemons.
set -uo pipefail
DIR=$1 SLURM_CONF=$1/slurm.conf
export SLURM_CONF
timeout 10 scancel --user="$(id -un)"
for _ in $(seq 100); do [ -z "$(timeout 10 squeue --noheader 2>/dev/null)" ] && break; sleep 0.1; done
for daemon in slurmd slurmctld munged; do
  pid=$(cat "$DIR/$daemon.pid" 2>/dev/null) && kill "$pid" 2>/dev/null
done
exit 0
