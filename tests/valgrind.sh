#!/bin/bash
# valgrind.sh - no leak and no bad access while the small model is packed, verified, restored and run. BUILD=build/valgrind.
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh

if ! command -v valgrind >/dev/null; then
    skip "valgrind" "it is not installed"
    finish
fi
model=fixtures/shakespeare-llama
packed=$WORK/model.cllm

# under NAME COMMAND...: valgrind's own exit code is 97, so that it cannot be taken for the program's.
under() {
    local name=$1
    shift
    expect "$name" 0 valgrind -q --leak-check=full --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible \
        --error-exitcode=97 "$@"
    if grep -q '^==' "$WORK/stderr"; then not_ok "$name: nothing reported" "$(head -c 2000 "$WORK/stderr")"; fi
}

under "pack" "$CPACK" "$model" -o "$packed"
under "list" "$CPACK" -lvv "$packed"
under "verify" "$CVERIFY" "$packed"
under "verify against the original" "$CVERIFY" --against "$model" "$packed"
under "restore" "$CPACK" -d "$packed" -o "$WORK/restored"
check "restored as it was" diff -r "$model" "$WORK/restored"
under "run" "$CRUN" "$packed" -p "ROMEO:" -n 8 --temp 0
cp "$packed" "$WORK/damaged.cllm"
printf 'sixteen bytes of' | dd of="$WORK/damaged.cllm" bs=1 seek=1000000 conv=notrunc status=none
expect "damage is found" 4 valgrind -q --leak-check=full --error-exitcode=97 "$CVERIFY" "$WORK/damaged.cllm"
finish
