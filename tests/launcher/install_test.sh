#!/bin/bash
# launcher/install with a make-believe package manager: what it asks for, and when it stays quiet.
set -uo pipefail
install=$1/launcher/install
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
expect() { # NAME GOT WANTED
  [[ $2 == "$3" ]] && return
  printf 'FAILED %s\n  got:    %s\n  wanted: %s\n' "$1" "$2" "$3"
  failures=$((failures + 1))
}

mkdir "$work/bin"
cat >"$work/bin/dpkg-query" <<END
#!/bin/bash
sed 's/^/installed /' "$work/installed"
echo "config-files removed-package"
END
cat >"$work/bin/apt-get" <<END
#!/bin/bash
echo "\$*" >>"$work/asked"
[[ \$* != *install* || ! -e $work/broken ]] || { rm "$work/broken"; exit 100; }
END
cat >"$work/bin/apt-cache" <<END
#!/bin/bash
[[ -e $work/lists ]]
END
cat >"$work/bin/sudo" <<END
#!/bin/bash
exec "\$@"
END
chmod +x "$work"/bin/*
export PATH=$work/bin:$PATH
run() {
  : >"$work/asked"
  "$install" "$@" 2>"$work/said"
}

"$install" --list >"$work/all"
expect "lists more than 20 packages" "$(($(wc -l <"$work/all") > 20))" 1
"$install" --tests --list >"$work/installed"
run --tests
expect "everything is there: nothing is said" "$(cat "$work/said" "$work/asked")" ""

touch "$work/lists"
grep -v libhwy-dev "$work/all" >"$work/installed"
run
expect "says what it installs" "$(cat "$work/said")" "installing 1 packages: libhwy-dev"
expect "asks for what is missing" "$(cat "$work/asked")" \
  "-qq install -y --no-install-recommends libhwy-dev"

rm "$work/lists"
run
expect "updates lists that lack a package" "$(head -1 "$work/asked")" "-qq update"

touch "$work/lists" "$work/broken"
run
again="-qq install -y --no-install-recommends libhwy-dev;"
expect "updates lists that are old" "$(tr '\n' ';' <"$work/asked")" "$again-qq update;$again"

run --test
expect "unknown option" "$?" 2
exit $((failures > 0))
