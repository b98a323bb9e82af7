#!/bin/bash
# lint.sh - tools/lint finds each rule broken: a copy of the tree is broken in one place after the other.
set -u
export LC_ALL=C
unset CI MAKEFLAGS MAKELEVEL B BUILD

passed=0
failed=0
copy=$(mktemp -d) || exit 1
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard -- ':!fixtures' | xargs -0 ls -d 2>/dev/null |
    tar -c -T - | tar -x -C "$copy"
cd "$copy" || exit 1
git init -q . && git add -A

# finds NAME RULE PATTERN: the rule must fail, and say so by a line that matches the extended regular expression.
finds() {
    local said
    said=$(tools/lint build/lint "$2" 2>&1)
    if grep -q "^not ok $2" <<<"$said" && grep -qE -- "$3" <<<"$said"; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        printf 'not ok %s\n    no line like %s in:\n    %s\n' "$1" "$3" "${said//$'\n'/$'\n'    }"
    fi
}

# breaks NAME RULE FILE TEXT PATTERN: the text is appended to the file, which may be new, and taken away again.
breaks() {
    local original=
    [ -e "$3" ] && original=$(mktemp -p "$copy/.git") && cp "$3" "$original"
    mkdir -p "${3%/*}"
    printf '%b' "$4" >>"$3"
    finds "$1" "$2" "$5"
    if [ -n "$original" ]; then cp "$original" "$3"; else rm "$3"; fi
}

# builds_and_breaks: the same for rules that look at objects.
builds_and_breaks() {
    local said
    printf '%b' "$4" >"$3"
    said=$(make lib CUDA=0 B=build/lint 2>&1) || { failed=$((failed + 1)); echo "not ok $1: does not build: $said"; return; }
    finds "$1" "$2" "$5"
    rm -f "$3" "build/lint/${3%.c}".[do]
}

# ---------------------------------------------------------------------------------------------------------------- layers

breaks "format includes no encoder" layers format/broken.c '#include "cllm_source.h"\n' 'format/broken.c:1: .*encoder/cllm_source.h'
breaks "encoder includes no inside of the decoder" layers encoder/broken.c '#include "decode_float.h"\n' 'encoder/broken.c:1: '
breaks "decoder-cpu includes no encoder" layers decoder-cpu/broken.h '#include "cllm_encode.h"\n' 'decoder-cpu/broken.h:1: '
breaks "decoder-gpu includes no decoder-cpu" layers decoder-gpu/broken.cu '#include "cllm_decode.h"\n' 'decoder-gpu/broken.cu:1: '
breaks "infer includes no encoder" layers infer/broken.c '#include "cllm_encode.h"\n' 'infer/broken.c:1: '
breaks "nothing includes cli" layers infer/broken.c '#include "message.h"\n' 'infer/broken.c:1: .*cli/message.h'
breaks "no way around by .." layers format/broken.c '#include "../cli/message.h"\n' 'format/broken.c:1: '
breaks "no way around by a folder's name" layers format/broken.c '#include "encoder/cllm_source.h"\n' 'format/broken.c:1: '
breaks "one name, one header" layers encoder/digest.h '\n' 'digest.h: two folders'
breaks "the library is not written for tests" layers infer/broken.c '#include <cmocka.h>\n' 'infer/broken.c:1:cmocka'

for header in zstd.h openssl/evp.h xxhash.h pcre2.h utf8proc.h jansson.h cuda_runtime.h immintrin.h; do
    breaks "$header is for one place" libraries decoder-cpu/broken.c "#include <$header>\\n" 'decoder-cpu/broken.c:1: '
done
breaks "no other library" libraries infer/broken.c '#include <zlib.h>\n' 'infer/broken.c:1:zlib.h'
breaks "intrinsics only where they are compiled for" isa infer/broken.c 'int x = __m256;\n' 'infer/broken.c:1:.*intrinsics'

# --------------------------------------------------------------------------------------------------------------- objects

make lib CUDA=0 B=build/lint "-j$(nproc)" >build.log 2>&1 || { cat build.log; echo "not ok the copy builds"; failed=$((failed + 1)); }
rm build.log
builds_and_breaks "no printf in the library" silence format/broken.c \
    '#include <stdio.h>\nvoid cllm_broken(int n);\nvoid cllm_broken(int n) { printf("%d", n); }\n' 'broken.o: uses .*printf'
builds_and_breaks "no stderr in the library" silence infer/broken.c \
    '#include <stdio.h>\nvoid cllm_broken(void);\nvoid cllm_broken(void) { fputs("x", stderr); }\n' 'broken.o: uses stderr'
builds_and_breaks "no exit in the library" silence encoder/broken.c \
    '#include <stdlib.h>\nvoid cllm_broken(void);\nvoid cllm_broken(void) { exit(1); }\n' 'broken.o: uses exit'
builds_and_breaks "no abort in the library" silence encoder/broken.c \
    '#include <stdlib.h>\nvoid cllm_broken(void);\nvoid cllm_broken(void) { abort(); }\n' 'broken.o: uses abort'
builds_and_breaks "every symbol is cllm_" symbols format/broken.c \
    'int broken(void);\nint broken(void) { return 1; }\n' 'broken.o:.* broken, not cllm_'
builds_and_breaks "no variable outlives a call" symbols format/broken.c \
    'int cllm_broken(void);\nint cllm_broken(void) { static int calls; return calls++; }\n' 'broken.o.* calls'
builds_and_breaks "no thread-local" symbols format/broken.c \
    'int cllm_broken(void);\nint cllm_broken(void) { static _Thread_local int calls; return calls++; }\n' 'broken.o.* calls'
builds_and_breaks "AVX only in its own files" isa format/broken.c \
    '#pragma GCC target("avx2")\nvoid cllm_broken(double *x);\nvoid cllm_broken(double *x) { for (int i = 0; i < 64; i++) x[i] *= 2; }\n' \
    'format/broken.o: holds AVX'

# ----------------------------------------------------------------------------------------------------------------- texts

breaks "a header compiles alone" headers format/broken.h 'uint32_t cllm_broken(void);\n' 'format/broken.h alone: '
breaks "a header may come twice" headers format/broken.h 'struct cllm_broken { int x; };\n' 'format/broken.h alone: '
breaks "layout of the code" format format/broken.c 'int  cllm_broken ( void ) ;\n' 'format/broken.c: '
# shellcheck disable=SC2016
breaks "scripts" shell tools/broken.sh '#!/bin/sh\ncd $1\n' 'tools/broken.sh:2:'
breaks "manuals" manuals man/broken.1 '.Dd today\n.Xx\n' 'man/broken.1:'
breaks "no blank at the end of a line" lines format/broken.c 'int x; \n' 'format/broken.c:1:.*blank'
breaks "no carriage return" lines format/broken.c 'int x;\r\n' 'format/broken.c:1:.*carriage'
breaks "no tab in C" lines format/broken.c '\tint x;\n' 'format/broken.c:1:.*tab'
breaks "a newline at the end" lines format/broken.c 'int x;' 'format/broken.c: no newline'
breaks "no path of one machine" paths spec/BROKEN.md "see /ho""me/somebody/models\\n" 'spec/BROKEN.md:'

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
