#!/usr/bin/env bash
# From a fresh clone to a trained and evaluated long-tailed detector: data, teacher, training, evaluation, images.
#
#   bash scripts/quickstart.sh [FOLDER]                     default: runs/quickstart; finished steps are skipped
#   TRAIN_TEACHER=1 bash scripts/quickstart.sh [FOLDER]     also trains the teacher; otherwise uses the shipped one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
started=$SECONDS

out="${1:-runs/quickstart}"
data="$out/data" teacher="$out/teacher" run="$out/run"
step() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - started))"; }

step "environment"
bash scripts/setup.sh
python=.venv/bin/python
# Make waiting threads sleep: with few cores, spinning threads only slow each other down.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

step "data: synthetic images in the formats of LVIS and ImageNet-LVIS"
if [ ! -f "$data/imagenet-lvis/imagenet_lvis_image_info.json" ]; then
    $python tools/make_mini_lvis.py --output "$data"
fi

step "teacher: a small CLIP, trained on the image-level images alone"
if [ "${TRAIN_TEACHER:-0}" = 1 ]; then
    if [ ! -f "$teacher/mini_clip.safetensors" ]; then
        $python tools/train_mini_clip.py --images "$data/imagenet-lvis" --output "$teacher" --steps 1600
    fi
else
    # The command above trained it on these same images; shipping it saves nine minutes.
    teacher=config/quickstart
    echo "$teacher/mini_clip.safetensors; TRAIN_TEACHER=1 retrains it"
fi

step "training RichSem"
# One process per GPU. On a CPU two: a small model's operations are too small to split among threads.
processes=$($python -c 'import os, torch; print(torch.cuda.device_count() or min(2, os.cpu_count() or 1))')
# A run that was stopped goes on; one that is done trains nothing.
bash scripts/richsem_dist.sh "$processes" --resume auto -c config/quickstart/richsem_mini.py --data_path "$data" \
    --output_dir "$run" --num_workers 0 --options batch_size=$((8 / processes)) \
    clip_model="$teacher/mini_clip.json" clip_pretrained="$teacher/mini_clip.safetensors"

step "images"
$python tools/plot_curves.py "$run" --output "$out/curves.png"

step "evaluation of $run/checkpoint.pth"
$python main.py --eval --resume "$run/checkpoint.pth" --output_dir "$out/eval" | tee "$out/metrics.txt"
$python tools/contact_sheet.py --annotations "$data/lvis_v1/annotations/lvis_v1_val.json" \
    --predictions "$out/eval/eval/predictions.npy" --output "$out/contact_sheet.png"

step "done"
tail -n 14 "$out/metrics.txt"
echo "images: $out/contact_sheet.png (ground truth and detections), $out/curves.png (loss and AP)"
