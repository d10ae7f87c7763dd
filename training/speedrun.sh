#!/usr/bin/env bash
# From nothing to a saved pipeline: tokenizer, dVAE, prior, and a page of samples.
#
#   bash training/speedrun.sh [PRESET] [PROCESSES]
#
# PRESET: training/configs/emoji_cpu.yaml unless given. PROCESSES: one a GPU; on a CPU one with all its threads; of
# several, torchrun gives each a single one.
# A run that was stopped goes on where its last checkpoint lies.
set -euo pipefail
preset=${1:-training/configs/emoji_cpu.yaml}
gpus=$(python -c "import torch; print(torch.cuda.device_count())")
if [ "$gpus" -gt 0 ]; then
    launch=(accelerate launch --num_processes "${2:-$gpus}" -m)
else
    export ACCELERATE_USE_CPU=true
    # glibc: keep freed memory instead of handing each step's back to the kernel page by page
    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456
    launch=(torchrun --nproc_per_node "${2:-1}" -m)
fi

"${launch[@]}" training.train_tokenizer "$preset"
"${launch[@]}" training.train_dvae "$preset" --training.resume_from latest
"${launch[@]}" training.train_prior "$preset" --training.resume_from latest
