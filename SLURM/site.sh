# shellcheck shell=bash disable=SC1091
# What is particular to this cluster: edit it once. It is read three times: by you before `sbatch` (`. SLURM/site.sh`),
# by `research submit`, and by every job. A local copy named SLURM/site.local.sh is read after it and not committed.

# Where jobs go. sbatch reads these; they win over the #SBATCH lines of a script, and the command line over them.
# export SBATCH_ACCOUNT=my-project
# export SBATCH_PARTITION=gpu

# Software, as the login node and the compute nodes both see it.
# module load python/3.11 cuda/12
if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi

# Models and data, on a file system that login and compute nodes share: `research prepare` fills them.
export HF_HOME="${HF_HOME:-${SCRATCH:-$HOME/.cache}/huggingface}"

# Where node names do not resolve on the compute nodes, or the network between them has an address of its own:
# export MASTER_ADDR=$(hostname -I | cut -d' ' -f1)
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0

if [ -f SLURM/site.local.sh ]; then . SLURM/site.local.sh; fi
