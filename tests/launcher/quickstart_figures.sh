#!/bin/bash
# The quickstart itself, two minutes of training in a folder of its own, and whether what it reports
# is what it promises.   tests/launcher/quickstart_figures.sh
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 4
folder=build/quickstart
log=build/quickstart.log
rm -rf "$folder"
launcher/quickstart --minutes 2 --folder "$folder" >"$log" 2>&1
code=$?
if ((code != 0)); then
  tail -60 "$log"
  echo "FAILED: launcher/quickstart ended with exit code $code"
  exit 1
fi
python3 tests/launcher/quickstart_summary.py "$folder/runs/quickstart/summary.json"
