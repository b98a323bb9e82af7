# cllm - `make help` lists the targets.

config ?= release
PREFIX ?= /usr/local
DESTDIR ?=
PROGRAM_PREFIX ?=
PKGS := libzstd libxxhash libcrypto jansson libpcre2-8 libutf8proc
VERSION := $(shell sed -n 's/^.define CLLM_VERSION "\(.*\)"/\1/p' format/cllm.h)
B := build/$(config)
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' '$1' '$@')

ifeq ($(filter $(config),debug release asan tsan fuzz coverage),)
$(error config=$(config) is not one of debug release asan tsan fuzz coverage)
endif
ifeq ($(config) $(origin CC),fuzz default)
CC := clang
endif

# --------------------------------------------------------------------------------------------------------------- CUDA

# Found by itself; CUDA=0 leaves it out. The sanitizers and the fuzzer look at C only.
NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA ?= $(if $(NVCC),$(if $(filter debug release,$(config)),1,0),0)
CUDA_ARCHS ?= 80 86 89 90 100 120
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(NVCC))
CU_SRC := $(if $(filter 1,$(CUDA)),$(wildcard decoder-gpu/*.cu infer/*.cu))
ifeq ($(filter 1,$(CUDA))$(if $(NVCC),,without),1without)
$(error CUDA=1, but there is no nvcc on the PATH nor in /usr/local/cuda/bin; NVCC= names it)
endif

# Machine code for each architecture, and what the driver compiles for any later one. Some instructions are of one alone.
GENCODE = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) \
          -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
%/infer/tensor_gpu.o: GENCODE = -gencode arch=compute_90a,code=sm_90a
NVCC_FLAGS = -std=c++17 $(if $(filter debug,$(config)),-O1 -g -G,-O3 -lineinfo -DNDEBUG) $(if $(WERROR),-Werror all-warnings) \
             $(GENCODE) -Xcompiler -Wall,-Wextra,-pthread

# ----------------------------------------------------------------------------------------------------- compiler flags

# Not -Wmaybe-uninitialized: the compiler cannot know that a call that failed returned something other than CLLM_OK; the
# sanitizers and valgrind look instead.
WARN := -Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-align \
        -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough $(if $(findstring clang,$(CC)),,-Wno-format-truncation \
        -Wno-maybe-uninitialized) \
        $(if $(WERROR),-Werror)
FOLDERS := format encoder decoder-cpu decoder-gpu infer cli
CPPFLAGS_ALL = -D_GNU_SOURCE $(addprefix -I,$(FOLDERS)) -Itests/support $(if $(CU_SRC),-DCLLM_CUDA -I$(CUDA_HOME)/include) $(CPPFLAGS)
CFLAGS_debug := -O1 -g3 -fno-omit-frame-pointer
CFLAGS_release := -O3 -g -DNDEBUG
CFLAGS_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
CFLAGS_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
CFLAGS_coverage := -O0 -g --coverage
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined
LDFLAGS_coverage := --coverage
CFLAGS_ALL = -std=c11 $(WARN) $(CFLAGS_$(config)) -pthread -ffp-contract=off $(CFLAGS)
LDFLAGS_ALL = $(LDFLAGS_$(config)) -pthread $(LDFLAGS)
# pkg-config is asked when a program is linked, not before: the same make may have installed it a moment ago.
CUDA_LIBS = $(if $(CU_SRC),-L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -ldl -lrt)
LDLIBS_ALL = $$(pkg-config --libs $(PKGS)) -lm $(CUDA_LIBS) $(LDLIBS)

# One instruction set per file: only these objects may hold such instructions.
AVX2 := -mavx2 -mbmi -mbmi2 -mlzcnt -mfma -mf16c
AVX512 := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vbmi2
%_avx2.o: ISA := $(AVX2)
%_avx512.o: ISA := $(AVX512)
%_shani.o %_shani_avx512.o: ISA := -msha -msse4.1

# ------------------------------------------------------------------------------------------------------------ sources

PROGRAMS := cpack cverify crun
# A stub has the functions of the CUDA files and says that they are not built in: either it or they are in the library.
STUB_SRC := $(wildcard decoder-gpu/stub.c infer/*_stub.c)
GPU_SRC := $(if $(CU_SRC),$(CU_SRC) $(filter-out $(STUB_SRC),$(wildcard decoder-gpu/*.c)),$(STUB_SRC))
LIB_SRC := $(filter-out $(STUB_SRC),$(wildcard format/*.c encoder/*.c decoder-cpu/*.c infer/*.c)) $(GPU_SRC)
CLI_SRC := $(filter-out $(PROGRAMS:%=cli/%.c),$(wildcard cli/*.c))
SUPPORT_SRC := $(wildcard tests/support/*.c)
obj = $(addsuffix .o,$(addprefix $(B)/,$(basename $1)))

LIB := $(B)/libcllm.a
CLI := $(B)/cli.a
TOOLS := $(patsubst cli/%.c,$(B)/%,$(wildcard $(PROGRAMS:%=cli/%.c)))
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/*/test_*.c))
PARITY := $(patsubst %.c,$(B)/%,$(wildcard tests/parity/test_*.c))
# Kernels on the CPU, by an emulated device; C++, and with the headers of CUDA.
EMULATED := $(if $(CU_SRC),$(patsubst %.cc,$(B)/%,$(wildcard tests/parity/test_*.cc)))
GPU_SCRIPTS := $(wildcard tests/cli/*_gpu.sh)
GPU_TESTS := $(filter $(B)/tests/decoder-gpu/% %_cuda,$(UNIT)) $(PARITY)
# A program of tests/tools is NAME.c and any NAME_*.c beside it.
parts = $(wildcard $(1:.c=_*.c))
TOOL_SRC := $(filter-out $(foreach f,$(wildcard tests/tools/*.c),$(call parts,$f)),$(wildcard tests/tools/*.c))
TEST_TOOLS := $(patsubst tests/tools/%.c,$(B)/tests/%,$(TOOL_SRC))
BENCH := $(patsubst %.c,$(B)/%,$(wildcard bench/*.c)) $(if $(CU_SRC),$(patsubst %.cu,$(B)/%,$(wildcard bench/*.cu)))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
MAN := $(wildcard man/*.1)
PUBLIC_HEADERS := $(wildcard format/cllm*.h encoder/cllm*.h decoder-cpu/cllm*.h decoder-gpu/cllm*.h infer/cllm*.h)

# -------------------------------------------------------------------------------------------------------------- build

.DELETE_ON_ERROR:
.PHONY: all lib tools unit test-tools bench-programs test-programs FORCE
all: lib tools ## build the library and the programs (default)
lib: $(LIB) ## build libcllm.a
tools: $(TOOLS) ## build cpack, cverify and crun
unit: $(UNIT) $(PARITY) $(EMULATED) ## build the unit test programs
test-tools: $(TEST_TOOLS)
bench-programs: $(BENCH)
test-programs: tools unit test-tools

# Small files that change only when their text does: the members of an archive, so that a deleted source does not live on in
# it, and the command line, so that no object stays that was compiled by another.
$(B)/libcllm.list: TEXT = $(LIB_SRC)
$(B)/cli.list: TEXT = $(CLI_SRC)
$(B)/flags: TEXT = $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(AVX512) $(LDFLAGS_ALL)
$(B)/libcllm.list $(B)/cli.list $(B)/flags: FORCE
	@mkdir -p $(@D); printf '%s\n' '$(TEXT)' | cmp -s - $@ || printf '%s\n' '$(TEXT)' >$@

$(LIB): $(call obj,$(LIB_SRC))
$(CLI): $(call obj,$(CLI_SRC))
$(LIB) $(CLI): %.a: %.list
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

LINK = $(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter $(CLI),$^) $(LIB)
$(TOOLS): $(B)/%: $(B)/cli/%.o $(CLI) $(LIB)
	$(call say,LINK)
	$(LINK) $(LDLIBS_ALL)
$(filter $(B)/tests/cli/%,$(UNIT)): $(CLI)
$(UNIT): $(B)/tests/%: $(B)/tests/unit/%.o
$(PARITY): %: %.o
$(foreach f,$(TOOL_SRC),$(eval $(f:tests/tools/%.c=$(B)/tests/%): $(call obj,$f $(call parts,$f))))
$(UNIT) $(PARITY) $(TEST_TOOLS): $(call obj,$(SUPPORT_SRC)) $(LIB)
	$(call say,LINK)
	$(LINK) $(LDLIBS_ALL) -lcmocka
$(EMULATED): %: %.o
	$(call say,LINK)
	$(Q)$(CXX) $(LDFLAGS_ALL) -o $@ $< -lcmocka
$(BENCH): %: %.o $(LIB)
	$(call say,LINK)
	$(LINK) $(LDLIBS_ALL)

$(B)/%.o: %.c $(B)/flags
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(ISA) -MMD -MP -c -o $@ $<
# Kernels see memory through pointers of many types, their hints are the device compiler's, and a test is of some of them.
$(B)/%.o: %.cc $(B)/flags
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(CXX) -std=c++17 -O2 -g -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function \
	    -Wno-maybe-uninitialized -fno-strict-aliasing \
	    $(if $(WERROR),-Werror) $(addprefix -I,$(FOLDERS)) -isystem $(CUDA_HOME)/include -MMD -MP -c -o $@ $<
$(B)/%.o: %.cu $(B)/flags
	$(call say,NVCC)
	$(Q)mkdir -p $(@D) && $(NVCC) $(CPPFLAGS_ALL) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# -------------------------------------------------------------------------------------------------------------- tests

# Targets that build and then do something build in a second make, on all cores.
JOBS ?= $(shell nproc)
BUILD = +$(Q)$(MAKE) --no-print-directory $(if $(filter --jobserver%,$(MAKEFLAGS)),,-j$(JOBS))
RUN_TESTS = tests/run --build

.PHONY: demo test check check-property check-gpu sanitize-gpu sanitize valgrind bench bench-cpu bench-ratio coverage
demo: ## install what is missing, then pack, verify, restore and run the small model
	$(Q)tools/install-packages build
	$(BUILD) config=release B=build/release tools
	$(Q)BUILD=build/release tools/demo
test: ## install what is missing, build, run every test
	$(Q)tools/install-packages build test
	$(BUILD) check
check: ## the same without installing
	$(BUILD) test-programs
	$(Q)$(RUN_TESTS) $(B) $(UNIT) $(PARITY) $(EMULATED) tests/cli tests/reference
check-property: ## nightly: CASES=100000 random checkpoints from SEED= (default today's date) packed, verified, restored
	$(BUILD) $(B)/tests/encoder/test_property
	$(Q)$(B)/tests/encoder/test_property $(or $(CASES),100000) $(or $(SEED),$$(date +%Y%m%d))
check-gpu: ## only the tests that need a GPU; REQUIRE_GPU=1: a skipped one is a failure
	$(BUILD) tools test-tools $(GPU_TESTS)
	$(Q)$(RUN_TESTS) $(B) $(if $(REQUIRE_GPU),--no-skips) --gpu $(if $(CU_SRC),built,absent) $(GPU_TESTS) $(GPU_SCRIPTS)
sanitize-gpu: ## the parity tests, fewer of them, under each tool of compute-sanitizer
	$(BUILD) $(PARITY)
	$(Q)for tool in memcheck racecheck initcheck; do for test in $(PARITY); do \
	    echo "$$tool $$test"; CLLM_GPU_TEST=small $(CUDA_HOME)/bin/compute-sanitizer --tool $$tool --error-exitcode 1 $$test || exit; \
	    done; done
sanitize: ## unit and command-line tests under AddressSanitizer and UBSan
	$(BUILD) config=asan B=build/asan test-programs
	$(Q)$(RUN_TESTS) build/asan --timeout 1200 $(patsubst $(B)/%,build/asan/%,$(UNIT)) tests/cli
valgrind: ## no leak and no bad access in a pack, verify, restore, run cycle
	$(BUILD) config=debug CUDA=0 B=build/valgrind tools
	$(Q)$(RUN_TESTS) build/valgrind --timeout 1200 tests/valgrind.sh
bench: ## speeds and ratios, a table each
	$(BUILD) tools bench-programs
	$(Q)if [ -x bench/run ]; then BUILD=$(B) bench/run; else for program in $(BENCH); do $$program || exit; done; fi
bench-cpu: ## speeds of each core, of the codec by instruction set, and of other compressors; memory
	$(BUILD) tools bench-programs
	$(Q)$(B)/bench/cpu && $(B)/bench/codec -m 64 && python3 bench/peers.py
bench-ratio: ## sizes of real weights beside the floor and other compressors (Python with numpy)
	$(BUILD) tools
	$(Q)python3 bench/ratio.py --cpack $(B)/cpack
coverage: ## line coverage of the tests
	$(BUILD) config=coverage B=build/coverage check
	$(Q)gcovr --root . --exclude 'tests/.*' --exclude 'bench/.*' --print-summary build/coverage

# fuzz_NAME.c is one target; its corpus is tests/fuzz/corpus/NAME. Sessions look for new inputs; the replay runs the known ones.
FUZZ_SECONDS ?= 60
REPLAY := $(if $(wildcard tests/fuzz/replay.c),$(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/replay_%,$(FUZZ_SRC)))
.PHONY: fuzz fuzz-replay replay-programs
fuzz: $(FUZZ_SRC:tests/fuzz/fuzz_%.c=fuzz-%) ## fuzz every target, one after the other
fuzz-%: FORCE ## fuzz one target for FUZZ_SECONDS=60 (needs clang)
	$(Q)[ -f tests/fuzz/fuzz_$*.c ] || { echo "there is no fuzz target $*: no tests/fuzz/fuzz_$*.c" >&2; exit 1; }
	$(BUILD) config=fuzz B=build/fuzz build/fuzz/fuzz/fuzz_$*
	$(Q)mkdir -p build/fuzz/corpus/$* tests/fuzz/corpus/$*
	$(Q)build/fuzz/fuzz/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ build/fuzz/corpus/$* tests/fuzz/corpus/$*
fuzz-replay: ## run every fuzz target over its stored corpus, under the sanitizers
	$(Q)[ -n '$(REPLAY)' ] || { echo 'there is nothing to replay: no tests/fuzz/fuzz_*.c and replay.c' >&2; exit 1; }
	$(BUILD) config=asan B=build/asan replay-programs
	$(Q)for target in $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%); do \
	    build/asan/fuzz/replay_$$target tests/fuzz/corpus/$$target || exit; done
.PRECIOUS: $(B)/tests/fuzz/%.o
replay-programs: $(REPLAY)
$(B)/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(LIB)
	$(call say,LINK)
	$(LINK) -fsanitize=fuzzer $(LDLIBS_ALL)
$(B)/fuzz/replay_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/replay.o $(LIB)
	$(call say,LINK)
	$(LINK) $(LDLIBS_ALL)

# --------------------------------------------------------------------------------------------------------------- lint

.PHONY: lint check-lint analyze format format-check
SOURCES = $(wildcard $(foreach d,$(FOLDERS) bench tests/unit/* tests/support tests/tools tests/parity tests/fuzz,\
            $d/*.c $d/*.cc $d/*.h $d/*.cu $d/*.cuh))
CLANG_FORMAT ?= clang-format-14
lint: ## the rules of the house, proved by machine
	$(BUILD) CUDA=0 B=build/lint lib
	$(Q)CPPFLAGS='$(CPPFLAGS_ALL)' tools/lint build/lint
check-lint: ## that lint fails where a rule is broken
	$(Q)tests/run --build $(B) --timeout 900 tests/lint.sh
analyze: ## cppcheck and clang-tidy
	$(BUILD) -k CUDA=0 B=build/lint cppcheck tidy
# Not the files of one instruction set: the analyzer does not follow loops that are written to be unrolled.
ANALYZED := $(filter-out %_avx2.c %_avx512.c %_shani.c,$(filter %.c,$(LIB_SRC))) $(CLI_SRC) $(wildcard $(PROGRAMS:%=cli/%.c))
.PHONY: cppcheck tidy
cppcheck:
	$(call say,CHECK)
	$(Q)cppcheck -q --std=c11 --enable=warning,portability,performance --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem $(CPPFLAGS_ALL) $(ANALYZED)
tidy: $(ANALYZED:%.c=$(B)/%.tidy)
$(B)/%.tidy: %.c .clang-tidy $(wildcard $(FOLDERS:%=%/*.h))
	$(call say,TIDY)
	$(Q)mkdir -p $(@D) && clang-tidy --quiet $< -- -std=c11 $(CPPFLAGS_ALL) && touch $@
format: ## clang-format every source
	$(Q)$(CLANG_FORMAT) -i $(SOURCES)
format-check: ## what format would change
	$(Q)$(CLANG_FORMAT) --dry-run -Werror $(SOURCES)

# ------------------------------------------------------------------------------------------------------------- install

bindir := $(DESTDIR)$(PREFIX)/bin
libdir := $(DESTDIR)$(PREFIX)/lib
includedir := $(DESTDIR)$(PREFIX)/include/cllm
mandir := $(DESTDIR)$(PREFIX)/share/man/man1
.PHONY: man install uninstall check-install dist clean help
man: $(MAN:man/%.1=$(B)/man/%.txt) ## the manual pages as text, in build/
$(B)/man/%.txt: man/%.1
	$(Q)mkdir -p $(@D) && mandoc -T utf8 $< | col -b >$@
install: all ## into DESTDIR and PREFIX=/usr/local; PROGRAM_PREFIX= goes before each program's name
	install -d '$(bindir)' '$(libdir)/pkgconfig' '$(includedir)' '$(mandir)'
	for p in $(PROGRAMS); do install -m 755 $(B)/$$p '$(bindir)/$(PROGRAM_PREFIX)'$$p || exit; done
	for p in $(MAN:man/%=%); do install -m 644 man/$$p '$(mandir)/$(PROGRAM_PREFIX)'$$p || exit; done
	install -m 644 $(LIB) '$(libdir)'
	install -m 644 $(PUBLIC_HEADERS) '$(includedir)'
	printf '%s\n' 'prefix=$(PREFIX)' 'Name: cllm' 'Description: lossless containers of model weights' 'Version: $(VERSION)' \
	    'Cflags: -I$${prefix}/include/cllm' 'Libs: -L$${prefix}/lib -lcllm' 'Libs.private: $(strip $(CUDA_LIBS) -lm -pthread)' \
	    'Requires.private: $(PKGS)' >'$(libdir)/pkgconfig/cllm.pc'
uninstall: ## remove what install put there
	rm -f $(PROGRAMS:%='$(bindir)/$(PROGRAM_PREFIX)%') $(MAN:man/%='$(mandir)/$(PROGRAM_PREFIX)%')
	rm -f '$(libdir)/libcllm.a' '$(libdir)/pkgconfig/cllm.pc'
	rm -rf '$(includedir)'
check-install: all ## install into an empty folder, use it, uninstall
	$(Q)tests/run --build $(B) tests/install.sh
dist: ## the committed sources as build/cllm-VERSION.tar.gz
	$(Q)mkdir -p build && git archive --prefix=cllm-$(VERSION)/ HEAD | gzip -9n >build/cllm-$(VERSION).tar.gz
	@echo build/cllm-$(VERSION).tar.gz
clean: ## remove everything that was built
	rm -rf build
help: ## this list
	@echo 'make [config=debug|release|asan|tsan] [CUDA=0|1] [WERROR=1] [V=1] TARGET'
	@sed -n 's/^\([a-z%-]*\):[^#]*## \(.*\)/\1	\2/p' Makefile | while IFS='	' read -r target text; do \
	    printf '  %-15s %s\n' "$$target" "$$text"; done
