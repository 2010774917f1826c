# shellcheck shell=bash disable=SC1091
# What is particular to this cluster: edit it once. It is read three times: by you before `sbatch` (`. SLURM/site.sh`),
# by `research submit`, and by every job. A local copy named SLURM/site.local.sh is read after it and not committed.

# Where jobs go. sbatch reads these; they override the #SBATCH lines of a script, and the command line overrides them.
# export SBATCH_ACCOUNT=my-project
# export SBATCH_PARTITION=gpu
# export SBATCH_GPUS_PER_NODE=4         # GPUs of each node; one task for each: --ntasks-per-node=4 in train.sbatch
# export SBATCH_SIGNAL=B:USR2@120       # the warning before the time limit: USR1 or USR2, seconds before

# In a container: what stands before `research` under srun, a command or srun's own options (pyxis).
# export RESEARCH_CONTAINER="apptainer exec --nv --bind $SCRATCH $HOME/research.sif"
# export RESEARCH_CONTAINER="--container-image=$HOME/research.sqsh --container-mounts=$HOME,$SCRATCH --container-workdir=$PWD"

# Software, as the login node and the compute nodes both see it.
# module load python/3.11 cuda/12
here=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)
export RESEARCH_SLURM="$here"  # where the job scripts are, for jobs submitted from other folders
if [ -f "$here/../.venv/bin/activate" ]; then . "$here/../.venv/bin/activate"; fi

# Models and data, on a file system that login and compute nodes share: `research prepare` fills them.
export HF_HOME="${HF_HOME:-${SCRATCH:-$HOME/.cache}/huggingface}"

# Where node names do not resolve on the compute nodes, or the network between them has an address of its own:
# export MASTER_ADDR=$(hostname -I | cut -d' ' -f1)
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0

# Where compute nodes have a network, models and data may be fetched in the job:
# export HF_HUB_OFFLINE=0

if [ -f "$here/site.local.sh" ]; then . "$here/site.local.sh"; fi
