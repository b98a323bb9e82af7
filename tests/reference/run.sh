#!/bin/sh
# What cpack packs, the decoder written from FORMAT.md alone must restore; what the fixtures spoil, it must reject.
#
#   [BUILD=build/release] tests/reference/run.sh      from the project root; needs python3-zstandard and python3-xxhash
#
# Prints `ok NAME`, `not ok NAME` or `skip NAME (reason)` for each case and the three counts. Exits 1 if a case failed.

set -u

BUILD=${BUILD:-build/release}
REAL_WEIGHTS=../shared/data/real-weights
passed=0 failed=0 skipped=0

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

reference() { /usr/bin/python3 -B tests/reference/cllm_reference.py "$@"; }

pass() { echo "ok $1"; passed=$((passed + 1)); }
skip() { echo "skip $1 ($2)"; skipped=$((skipped + 1)); }
fail() {
    echo "not ok $1"
    [ -z "${2-}" ] || printf '%s\n' "$2" | sed 's/^/    /'
    failed=$((failed + 1))
}

# expect NAME STATUS PATTERN COMMAND...: the command exits with STATUS and prints exactly one line, which matches PATTERN.
expect() {
    case_name=$1 status=$2 pattern=$3
    shift 3
    output=$("$@" 2>&1)
    got=$?
    # shellcheck disable=SC2254 # the pattern is meant to be one
    case $output in
        *"
"*) matches=no ;; # a traceback, or a complaint beside the verdict
        $pattern) matches=yes ;;
        *) matches=no ;;
    esac
    if [ "$got" -eq "$status" ] && [ "$matches" = yes ]; then
        pass "$case_name"
    else
        fail "$case_name" "exit status $got: $output"
    fi
}

# Each file of directory $1 is in directory $2 with the same bytes.
same_files() {
    (cd "$1" && find . -type f) >"$scratch/names" || return 1
    while IFS= read -r file; do
        cmp "$1/$file" "$2/$file" || return 1
    done <"$scratch/names"
}

# round_trip NAME INPUT: packs the directory or file with cpack, verifies and restores it with the second decoder, compares.
round_trip() {
    container=$scratch/$1.cllm restored=$scratch/$1.restored original=$2
    if [ -f "$2" ]; then
        original=$scratch/$1.original
        mkdir "$original" && cp "$2" "$original" || return
        set -- "$1" "$2" --only-weights
    fi
    name=$1 input=$2
    shift 2
    if ! output=$("$BUILD/cpack" "$@" "$input" -o "$container" 2>&1); then
        fail "pack_$name" "$output"
        return
    fi
    expect "verify_$name" 0 "*: OK" reference verify "$container"
    if output=$(reference restore "$container" "$restored" 2>&1) &&
        output=$(same_files "$original" "$restored" 2>&1) && output=$(same_files "$restored" "$original" 2>&1); then
        pass "restore_$name"
    else
        fail "restore_$name" "$output"
    fi
}

# spoil CONTAINER RESTORED: spoils a container that was just verified, in the ways that need no new checksums.
spoil() {
    good=$1 bad=$scratch/bad.cllm
    size=$(stat -c %s "$good")
    expect reject_what_is_no_container 1 "*: FAILED (not a container): *" reference verify "$0"
    head -c $((size - 1)) "$good" >"$bad"
    expect reject_cut_by_a_byte 1 "*: FAILED (corrupt): *" reference verify "$bad"
    { cat "$good" && printf 'x'; } >"$bad"
    expect reject_with_a_byte_appended 1 "*: FAILED (corrupt): *" reference verify "$bad"
    for change in header:20 payload:70 index:$((size - 110)) footer:$((size - 50)); do
        at=${change#*:}
        { head -c "$at" "$good" && tail -c +$((at + 1)) "$good" | head -c 1 | tr '\000-\377' '\001-\377\000' &&
            tail -c +$((at + 2)) "$good"; } >"$bad"
        expect "reject_changed_byte_in_${change%:*}" 1 "*: FAILED (damaged): *" reference verify "$bad"
    done
    expect restore_overwrites_nothing 1 "*: FAILED (i/o): *exists*" reference restore "$good" "$2"
}

# kind_of FIXTURE: the kind of error that fixtures/README.md gives for it (its table: file, result, step, what); `ok` for none.
kind_of() {
    awk -F ' *[|] *' -v file="$1" '$2 == file { print $3 == "format" ? "not a container" : $3 }' fixtures/README.md
}

# fixtures PREFIX: verify says of each fixtures/PREFIX-*.cllm what the table says.
fixtures() {
    set -- "$1" fixtures/"$1"-*.cllm
    if [ ! -e "$2" ]; then
        skip "fixtures_$1" "no fixtures/$1-*.cllm"
        return
    fi
    prefix=$1
    shift
    reference verify "$@" >"$scratch/verdicts" 2>&1
    got=$?
    for file in "$@"; do
        verdict=$(grep -F "$file: " "$scratch/verdicts")
        kind=$(kind_of "$(basename "$file")")
        case $prefix:$kind:$verdict in
            "good:ok:$file: OK" | "bad:$kind:$file: FAILED ($kind): "* | "unsupported:unsupported:$file: FAILED (unsupported): "*)
                pass "fixture_$(basename "$file" .cllm)"
                ;;
            *) fail "fixture_$(basename "$file" .cllm)" "${verdict:-no verdict, exit status $got}; expected: ${kind:-nothing}" ;;
        esac
    done
}

summary() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

if ! /usr/bin/python3 -c 'import xxhash, zstandard' 2>/dev/null; then
    skip reference_decoder "/usr/bin/python3 has no zstandard or no xxhash (python3-zstandard, python3-xxhash)"
    summary
fi

if output=$(reference selftest 2>&1); then
    pass examples_of_the_specification
else
    fail examples_of_the_specification "$output"
fi

if [ -x "$BUILD/cpack" ]; then
    round_trip shakespeare-llama fixtures/shakespeare-llama
    round_trip shakespeare-llama-weights fixtures/shakespeare-llama/model.safetensors
    spoil "$scratch/shakespeare-llama.cllm" "$scratch/shakespeare-llama.restored"
    if [ -d "$REAL_WEIGHTS" ]; then
        for input in "$REAL_WEIGHTS"/*; do
            round_trip "$(basename "$input")" "$input"
        done
    else
        skip real_weights "no $REAL_WEIGHTS"
    fi
else
    fail cpack_is_built "no $BUILD/cpack: make first, or set BUILD"
fi

fixtures good
for fixture in fixtures/good-*.cllm; do
    name=${fixture#fixtures/good-}
    digest=$(sha256sum <"$fixture")
    expect "FORMAT.md 16 lists ${name%.cllm}" 0 "| ${name%.cllm} *" grep "${digest%% *}" spec/FORMAT.md
done
fixtures bad
fixtures unsupported
summary
