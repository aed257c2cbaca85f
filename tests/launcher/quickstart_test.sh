#!/bin/bash
# launcher/quickstart with a make-believe build and program: which run goes on, which begins, and
# what is said about it.   quickstart_test.sh SOURCE_FOLDER
set -uo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
expect() { # NAME GOT WANTED
  [[ $2 == "$3" ]] && return
  printf 'FAILED %s\n  got:    %s\n  wanted: %s\n' "$1" "$2" "$3"
  failures=$((failures + 1))
}
says() { # NAME WORDS
  grep -qF -- "$2" "$work/said" && return
  printf 'FAILED %s: "%s" is not in:\n' "$1" "$2"
  cat "$work/said"
  failures=$((failures + 1))
}

mkdir -p "$work"/{launcher,bin,build/release,.cache/corpora}
cp "$1/launcher/quickstart" "$work/launcher/"
touch "$work/build/release/build.ninja"
cat >"$work/launcher/install" <<'END'
#!/bin/bash
END
cat >"$work/launcher/corpus" <<'END'
#!/bin/bash
echo "It is a text." >".cache/corpora/$1.txt"
touch ".cache/corpora/$1.jsonl"
echo ".cache/corpora/$1.jsonl"
END
cp "$work/launcher/install" "$work/bin/cmake"
# Trains in no time; leaves no summary while the file `interrupt` is there.
cat >"$work/build/release/shoestring" <<'END'
#!/bin/bash
while (($#)); do
  case $1 in
    --out) echo made >"$2" ;;
    run.directory=*) directory=${1#*=} ;;
    train.steps=*) steps=${1#*=} ;;
    data.sources=*) path=${1##*path = \'} && path=${path%%\'*} ;;
  esac
  shift
done
[[ -n ${directory:-} ]] || exit 0
[[ $directory != *trial || ! -e stop_trial ]] || exit 75 # as after Ctrl-C
mkdir -p "$directory"
printf '[train]\nsteps = %s\n[[data.sources]]\npath = "%s"\n' "$steps" "$path" \
  >"$directory/config.toml"
echo "$directory $steps $path" >>trained
[[ ! -e interrupt || $directory == *trial ]] || exit 75
printf '{\n  "tokens_per_second": %s,\n  "next": [\n    "its own"\n  ],\n  %s\n}\n' \
  "$(cat speed)" '"bits_per_byte": 2.0' >"$directory/summary.json"
END
chmod +x "$work"/launcher/* "$work/bin/cmake" "$work/build/release/shoestring"
export PATH=$work/bin:$PATH
run() { # ARGUMENTS...: sets `code` and `last`, the last training
  "$work/launcher/quickstart" "$@" >"$work/said" 2>&1
  code=$?
  last=$(tail -1 "$work/trained")
}

echo 8192 >"$work/speed"
austen=.cache/quickstart/austen.h5
touch "$work/interrupt"
run --minutes 1 # 8,192 tokens/s and 4,096 tokens a step: 2 steps a second
expect "interrupted: code" "$code" 75
expect "interrupted: run" "$last" "runs/quickstart 120 $austen"

run
expect "no options: goes on" "$last" "runs/quickstart 120 $austen"
says "no options" "going on with the interrupted run in runs/quickstart, 1 min of austen"
says "no options" "launcher/quickstart --new"

run --minutes 2
expect "other minutes: a new run" "$last" "runs/quickstart-2 240 $austen"
says "other minutes" "a new run in runs/quickstart-2, 2 min of austen"
says "other minutes" "runs/quickstart was interrupted (1 min of austen)"
says "other minutes" "launcher/quickstart --corpus austen --minutes 1"

run --corpus kjv
expect "another corpus: a new run" "$last" "runs/quickstart-3 600 .cache/quickstart/kjv.h5"
says "another corpus" "runs/quickstart-2 was interrupted (2 min of austen)"

rm "$work/interrupt"
run --corpus kjv
expect "the same corpus: goes on" "$last" "runs/quickstart-3 600 .cache/quickstart/kjv.h5"
expect "finished: code" "$code" 0
# The summary holds what was said last, and stays JSON.
python3 - "$work" <<'END' >"$work/wrong" 2>&1
import json, sys

summary = json.load(open(f"{sys.argv[1]}/runs/quickstart-3/summary.json"))
said = open(f"{sys.argv[1]}/said").read().split("\nnext:\n")[1].splitlines()
assert summary["next"] == [line.strip() for line in said] and len(said) == 5, summary
assert "generate --model runs/quickstart-3" in summary["next"][0], summary
assert summary["xz_bits_per_byte"] > 0 and summary["bits_per_byte"] == 2.0, summary
END
expect "finished: summary" "$(cat "$work/wrong")" ""
run --minutes 1
expect "the same minutes: goes on" "$last" "runs/quickstart 120 $austen"

touch "$work/interrupt"
run --new
expect "--new" "$last" "runs/quickstart-4 600 $austen"
rm "$work/runs/quickstart-2/quickstart.minutes" # of a run that an older script began
run --corpus austen
expect "unknown minutes" "$last" "runs/quickstart-2 240 $austen"
says "unknown minutes" "? min of austen"

run --help
says "--help" "launcher/quickstart --new"
says "--help" "the old one can go on later"
# The speed is that of now: half of it, half the steps.
echo 4096 >"$work/speed"
run --new --minutes 1
expect "a slower machine" "$last" "runs/quickstart-5 60 $austen"
says "a slower machine" "4096 tokens/s: 60 steps in about 1 min"
echo 500 >"$work/speed"
run --minutes 1 --folder "$work/slow"
says "too slow for the time" "500 tokens/s: 20 steps in about 2.8 min"
echo 4096 >"$work/speed"
run --minutes 1 --folder "$work/apart"
expect "--folder: run and store" "$last" \
  "$work/apart/runs/quickstart 60 $work/apart/data/austen.h5"
expect "--folder: nothing else" "$([[ -e $work/runs/quickstart-6 ]] && echo begun)" ""
touch "$work/stop_trial"
run --new
expect "Ctrl-C while measuring: code" "$code" 130
says "Ctrl-C while measuring" "no run was begun"
expect "Ctrl-C while measuring: no run" "$([[ -e $work/runs/quickstart-6 ]] && echo begun)" ""

refused() { # WORDS ARGUMENTS...: at once, before packages or a build
  local words=$1
  shift
  run "$@"
  expect "$*: code" "$code" 2
  says "$*" "error: $words"
  expect "$*: lines" "$(wc -l <"$work/said")" 1
}
refused "--minutes wants a number above 0 but got 'many'" --minutes many
refused "--minutes wants a number above 0 but got '0'" --minutes 0
refused "--minutes wants a number above 0 but got '0.0'" --minutes 0.0
refused '--minutes needs a number' --minutes
refused '--folder needs a path' --folder
refused '--corpus needs a name: austen, kjv or david' --corpus
refused "--corpus 'foo' is none of austen, kjv and david" --corpus foo
refused "unknown option '--foo'" --foo
exit $((failures > 0))
