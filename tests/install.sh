#!/bin/bash
# install.sh - what make install puts in place works from there, and make uninstall takes all of it away. BUILD=build/release.
unset PROGRAM_PREFIX DESTDIR PREFIX MAKEFLAGS MAKELEVEL MFLAGS
# shellcheck source=tests/cli/lib.sh
. tests/cli/lib.sh

stage=$WORK/stage
# shellcheck disable=SC2317 # called by check
in_stage() { make -s "B=$BUILD" DESTDIR="$stage" PREFIX=/opt/cllm PROGRAM_PREFIX=cllm- "$@"; }
check "installs" in_stage install
for program in cpack cverify crun; do
    if [ -x "$stage/opt/cllm/bin/cllm-$program" ]; then
        check "cllm-$program starts" "$stage/opt/cllm/bin/cllm-$program" --version
    else
        not_ok "cllm-$program is installed"
    fi
    check "cllm-$program has a manual" [ -s "$stage/opt/cllm/share/man/man1/cllm-$program.1" ]
done

cat >"$WORK/user.c" <<'C'
#include <cllm.h>
#include <cllm_decode.h>
#include <stdio.h>
int main(void)
{
    struct cllm_error err;
    struct cllm_reader *reader;
    enum cllm_status status = cllm_reader_open("/nonexistent", &reader, &err);
    printf("%s %s\n", CLLM_VERSION, err.message);
    return status == CLLM_E_IO ? 0 : 1;
}
C
# shellcheck disable=SC2317
flags() { PKG_CONFIG_PATH=$stage/opt/cllm/lib/pkgconfig pkg-config --define-variable=prefix="$stage/opt/cllm" --static "$@" cllm; }
# shellcheck disable=SC2046 # a list of flags
check "another program compiles with it" cc -std=c11 $(flags --cflags) -o "$WORK/user" "$WORK/user.c" $(flags --libs)
check "and runs" "$WORK/user"

check "uninstalls" in_stage uninstall
left=$(find "$stage" ! -type d)
if [ -z "$left" ]; then ok "nothing is left"; else not_ok "nothing is left" "found $left"; fi
finish
