#!/usr/bin/env bash
# From nothing to a saved pipeline: tokenizer, dVAE, a reranker if the preset has one, prior, and a page of samples.
#
#   bash training/speedrun.sh [PRESET] [PROCESSES] [--data.path FOLDER …] [--dry_run]
#
# PRESET: training/configs/emoji_cpu.yaml unless given. PROCESSES: one a GPU; on a CPU one with all its threads; of
# several, torchrun gives each a single one. Flags: --data.… and --output_dir are for all, --training.… for the
# dVAE, the reranker and the prior, if all have it; --dvae.training.steps 100, --prior.model.hidden_size 64 and the
# like are for that part alone, as a preset has it. --training.dvae FOLDER_OR_ID, here or in the preset's prior section,
# takes a first stage that is there, and no dVAE is trained; of a preset whose prior goes on from a pipeline's
# (init_from) the tokenizer is not, nor a dVAE unless the preset has a section of it. --dry_run says what the dVAE and
# the prior would take, and ends.
# A run that was stopped goes on where its last checkpoint lies, with the tokenizer that is there.
set -euo pipefail
preset=training/configs/emoji_cpu.yaml processes=
if [[ ${1:---} != --* ]]; then preset=$1; shift; fi
if [[ ${1:---} != --* ]]; then processes=$1; shift; fi
shared=("$preset") loops=(--training.resume_from latest) own=() plan=() of=shared
for argument in "$@"; do
    case $argument in
        --data.* | --output_dir | --output_dir=*) of=shared ;;
        --training.dvae | --training.dvae=*) of=takers ;;
        --training.*) of=loops ;;
        --dry_run) of=plan ;;
        --tokenizer.*) of=tokenizer argument=--training.${argument#--tokenizer.} ;;
        --dvae.* | --reranker.* | --prior.*) of=${argument#--} of=${of%%.*} argument=--${argument#--*.} ;;
        --*) echo "$argument is one part's: say --dvae.${argument#--}, or --prior.${argument#--}" >&2; exit 2 ;;
    esac
    case $of in
        shared) shared+=("$argument") ;;
        loops) loops+=("$argument") ;;
        takers) own+=("reranker $argument" "prior $argument") ;;
        plan) plan+=("$argument") ;;
        *) own+=("$of $argument") ;;
    esac
done
flags_of() { # PART: all that its trainer is given
    flags=("${shared[@]}")
    if [ "$1" = tokenizer ]; then flags+=(--training.keep true); else flags+=("${loops[@]}"); fi
    for flag in ${own[@]+"${own[@]}"}; do
        if [[ $flag == "$1 "* ]]; then flags+=("${flag#* }"); fi
    done
}
parts=(dvae prior)
if grep -qs ^reranker: "$preset"; then parts=(dvae reranker prior); fi
for part in "${parts[@]}"; do # a wrong flag is found before hours are spent
    flags_of "$part"
    config=$(python -m "training.train_$part" "${flags[@]}" --print_config) # in the end the prior's
done
said() { sed -n "s/^  $1: //p" <<<"$config" | grep -vx null || true; } # KEY: what the prior's settings have for it
named=$(said dvae) start=$(said init_from) first=(tokenizer)
if [ -n "$named" ]; then own=("reranker --training.dvae=$named" ${own[@]+"${own[@]}"}); fi # before what a flag says
if [ -n "$start" ]; then first=(); fi
if [ -n "$named" ] || { [ -n "$start" ] && ! grep -qs ^dvae: "$preset"; }; then parts=("${parts[@]:1}"); fi
if [ "${#plan[@]}" -gt 0 ]; then
    for part in "${parts[@]}"; do
        if [ "$part" = reranker ]; then continue; fi
        flags_of "$part"
        python -m "training.train_$part" "${flags[@]}" "${plan[@]}"
    done
    exit
fi
gpus=$(python -c "import torch; print(torch.cuda.device_count())")
if [ "$gpus" -gt 0 ]; then
    processes=${processes:-$gpus} launch=(accelerate launch --num_processes "${processes:-$gpus}" -m)
else
    processes=${processes:-1} launch=(torchrun --nproc_per_node "${processes:-1}" -m)
    export ACCELERATE_USE_CPU=true
    # glibc: keep freed memory instead of handing each step's back to the kernel page by page
    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456
fi
if [ "$processes" -eq 1 ]; then launch=(python -m); fi # whose errors and exit code no launcher hides

for part in ${first[@]+"${first[@]}"} "${parts[@]}"; do
    flags_of "$part"
    "${launch[@]}" "training.train_$part" "${flags[@]}"
done
