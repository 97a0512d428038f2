#!/bin/bash
# Training on several nodes under SLURM, one process per GPU, which find each other by themselves:
#
#     sbatch experiments/cluster/slurm.sh pretrain \
#         --config=experiments/configs/dfc/pretrain_lite.py --workdir=/shared/runs/pretrain_lite
#
# (with --workdir=..., not --workdir ...).
#
# Submit from the repository's folder; that folder, the virtual environment and the workdir are on
# a file system that all nodes see. config.batch is the batch of all processes together. For a
# container instead of the virtual environment: PYTHON=python, and --container-image=... (pyxis)
# after srun, or `apptainer exec --nv IMAGE` before "$PYTHON".

#SBATCH --job-name=dfc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
# The log and the workdir go on where they were when the job is queued again.
#SBATCH --open-mode=append
#SBATCH --requeue
# Three minutes before the time is up; to end a call and to save takes less.
#SBATCH --signal=B:TERM@180

set -u
program=$1
shift
PYTHON=${PYTHON:-.venv/bin/python}
for flag in "$@"; do
    case $flag in --workdir=*) workdir=${flag#*=} ;; esac
done

# On SIGTERM (the time is nearly up, or the job is preempted) the programs save a checkpoint and
# leave with code 0; the job then goes back into the queue and continues from there.
stopped=0
trap 'stopped=1; kill -TERM "$step"' TERM

srun --kill-on-bad-exit=1 "$PYTHON" -m "experiments.$program" "$@" &
step=$!
wait "$step"
code=$?
# A trapped signal ends `wait` before the step ends.
while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    code=$?
done

# Where only the step was signalled, it has left without the weights that a finished run writes.
if [ "$code" = 0 ] && { [ "$stopped" = 1 ] || [ ! -e "$workdir/weights.safetensors" ]; }; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
