#!/bin/bash
# One run on several machines under Slurm: sbatch examples/slurm.sh --dataset cifar10 --backbone gpt2-xl
# A job that is preempted gets SIGTERM, saves its state and ends; --requeue starts it again, and it resumes where it stopped.
#SBATCH --job-name=fpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
OUTPUT=${OUTPUT:-runs/slurm-$SLURM_JOB_ID}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
GPUS=${SLURM_GPUS_ON_NODE:-8}
RESUME=()
if [ -f "$OUTPUT/run.json" ]; then RESUME=(--resume); fi

export OUTPUT HEAD GPUS
# SLURM_NODEID is known on each machine only, so it is read there.
srun --kill-on-bad-exit=1 bash -c '
    exec python -m fpt.launch --config_file accelerate_configs/multi_node.yaml \
        --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * GPUS))" --machine_rank "$SLURM_NODEID" \
        --main_process_ip "$HEAD" --main_process_port "${PORT:-29500}" \
        train.py --output_dir "$OUTPUT" "$@"
' launch "${RESUME[@]}" "$@"
