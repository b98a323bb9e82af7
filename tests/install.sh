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
# A packer in C++, which sees every header that is installed, and links what a build with CUDA needs.
cat >"$WORK/packer.cc" <<'C'
#include <cstdio>
int main(int, char **argv)
{
    cllm_error err{};
    cllm_source_options source_options{};
    cllm_pack_options options{};
    cllm_pack_report report{};
    cllm_verify_options verify_options{};
    cllm_verify_report verified{};
    cllm_source *source = nullptr;
    cllm_reader *reader = nullptr;
    cllm_status status = cllm_source_open(argv[1], &source_options, &source, &err);
    if (!status) status = cllm_pack(source, argv[2], &options, &report, &err);
    cllm_source_close(source);
    if (!status) status = cllm_reader_open(argv[2], &reader, &err);
    if (!status) status = cllm_verify(reader, &verify_options, &verified, &err);
    cllm_reader_close(reader);
    std::printf("%s, %u GPUs\n", status ? err.message : "packed and verified", cllm_gpu_count());
    return status;
}
C
# shellcheck disable=SC2317
flags() { PKG_CONFIG_PATH=$stage/opt/cllm/lib/pkgconfig pkg-config --define-variable=prefix="$stage/opt/cllm" --static "$@" cllm; }
# shellcheck disable=SC2046 # a list of flags
check "another program compiles with it" cc -std=c11 $(flags --cflags) -o "$WORK/user" "$WORK/user.c" $(flags --libs)
check "and runs" "$WORK/user"
for header in "$stage"/opt/cllm/include/cllm/*.h; do
    # shellcheck disable=SC2046
    check "${header##*/} compiles alone" cc -std=c11 -Wall -Wextra -Werror -pedantic -fsyntax-only $(flags --cflags) "$header"
    echo "#include <${header##*/}>" >>"$WORK/all.cc"
done
cat "$WORK/packer.cc" >>"$WORK/all.cc"
if command -v c++ >/dev/null; then
    # shellcheck disable=SC2046
    check "a program in C++ is built with it" c++ -std=c++17 -Wall -Wextra -Werror -pedantic $(flags --cflags) -o "$WORK/packer" \
        "$WORK/all.cc" $(flags --libs)
    check "and packs" "$WORK/packer" fixtures/shakespeare-llama "$WORK/packed.cllm"
else
    skip "a program in C++ is built with it" "no C++ compiler"
fi

check "uninstalls" in_stage uninstall
left=$(find "$stage" ! -type d)
if [ -z "$left" ]; then ok "nothing is left"; else not_ok "nothing is left" "found $left"; fi
finish
