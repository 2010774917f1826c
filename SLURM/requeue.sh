# shellcheck shell=bash
# Read by the job scripts. `run_or_requeue COMMAND...` runs a command as a step of the job. When it was stopped and has
# saved (exit code 75), the job requeues itself under the same id, and the same command resumes where it stopped.

# First of all: until there is a handler, a signal ends this shell and with it the job.
signals='' step=''
trap 'signals+=U; [ -z "$step" ] || kill -USR1 "$step" || :' USR1  # the time limit is near: srun tells the tasks
trap 'signals+=U; [ -z "$step" ] || kill -USR2 "$step" || :' USR2
trap 'signals+=T' TERM  # SLURM ends the job, has signalled the tasks, and decides about requeueing

cd "${SLURM_SUBMIT_DIR:?}" || exit
export RESEARCH_SLURM="${RESEARCH_SLURM:-$PWD/SLURM}"
# Variables inherited when a job is submitted from inside another one; they would send the ranks to a wrong rendezvous.
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR MASTER_PORT "${!SLURM_STEP@}"
. "$RESEARCH_SLURM/site.sh"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"  # compute nodes have no network; `research prepare` has fetched everything
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}" SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

# Where names do not resolve, ranks ask SLURM for the first node's address. In a container they cannot.
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
RESEARCH_FIRST_ADDRESS=$(scontrol show node --oneliner "$first_node" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
export RESEARCH_FIRST_ADDRESS

# $SLURM_JOB_ID of an array's last task is the id of the whole array, and would requeue all of it. And a job submitted
# from inside an array's task has inherited that task's variables, and must not requeue it.
own_id() {
    local task="${SLURM_ARRAY_JOB_ID:-}_${SLURM_ARRAY_TASK_ID:-}"
    if scontrol show job --oneliner "$task" 2>&1 | grep -q "^JobId=$SLURM_JOB_ID "; then
        echo "$task"
    else
        echo "$SLURM_JOB_ID"
    fi
}

run_or_requeue() {
    local code=75 before
    if [ -z "$signals" ]; then
        # In the background, or the traps would wait for it. One task that fails ends the others.
        local -a container
        eval "container=(${RESEARCH_CONTAINER:-})"
        srun --kill-on-bad-exit=1 --export=ALL "${container[@]}" "$@" &
        step=$!
        until before=$signals; wait "$step"; code=$?; [ "$signals" = "$before" ]; do :; done  # a trap ends `wait`
    fi
    case "$code:$signals" in
    75: | 75:U* | 138: | 138:U* | 140: | 140:U*) ;;  # 138, 140: USR1 or USR2 came before the command could take it
    *) exit "$code" ;;  # also after TERM alone: SLURM has decided what becomes of the job
    esac
    echo "$(date '+%F %T') stopped and saved: job $(own_id) goes back into the queue"
    command -v scontrol >/dev/null || echo "there is no scontrol on $(hostname): submit the same command again"
    scontrol requeue "$(own_id)" || exit 75
}
