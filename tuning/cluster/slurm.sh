#!/usr/bin/env bash
# A search on a SLURM cluster: one Ray node on every machine of the job, the search on the first of them.
#   sbatch tuning/cluster/slurm.sh --config cifar10_lt --data.root data --gpus-per-trial 0.25
#   sbatch --nodes 4 --gpus-per-node 8 tuning/cluster/slurm.sh --config cifar10_lt
# Submit from the repository's root, with the environment active in which otrw is installed: SLURM passes it on. What
# follows the script goes to tuning/search.py. Change: the lines below (partition, account, GPUs, time), and OTRW_STORAGE, the
# folder of all searches, on a file system that all machines share.
#SBATCH --job-name=otrw-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"
storage=${OTRW_STORAGE:-$PWD/searches}

# Mode and token of this job alone, on every machine (srun passes the environment on).
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

head=${SLURMD_NODENAME:-$(hostname --short)} # sbatch runs this script on the first machine
port=$((20000 + 2 * (SLURM_JOB_ID % 5000))) # it and the next: jobs that share a machine do not meet
address=$(python -c 'import ray; print(ray.util.get_node_ip_address())'):$port
cpus=${SLURM_CPUS_PER_TASK:-1}
ray_node=(ray start --block "--num-cpus=$cpus" --disable-usage-stats)

stop() {
    trap - EXIT
    jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true # srun ends the Ray nodes with itself
    wait || true
}
trap stop EXIT
trap 'exit 143' TERM INT

srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$head" \
    "${ray_node[@]}" --head "--node-ip-address=${address%:*}" "--port=$port" \
    "--ray-client-server-port=$((port + 1))" \
    "--temp-dir=/tmp/ray-$SLURM_JOB_ID" --include-dashboard=false &

for attempt in {1..60}; do
    ray health-check --address "$address" >/dev/null 2>&1 && break
    if ((attempt == 60)); then
        echo "error: the Ray head at $address did not start within two minutes" >&2
        exit 1
    fi
    sleep 2
done

if ((SLURM_JOB_NUM_NODES > 1)); then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --overlap --nodes="$others" --ntasks="$others" --cpus-per-task="$cpus" --exclude="$head" \
        "${ray_node[@]}" "--address=$address" &
fi

python tuning/search.py --address "$address" --storage "$storage" "$@"
