# cllm - `make help` lists the targets.

config ?= release
CC ?= cc
PREFIX ?= /usr/local
PROGRAM_PREFIX ?=
PKGS := libzstd libxxhash libcrypto jansson libpcre2-8 libutf8proc
B := build/$(config)
Q := $(if $(V),,@)

# ---------------------------------------------------------------------------------------------------- compiler flags

WARN := -Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-align \
        -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough -Wno-format-truncation
ifdef WERROR
WARN += -Werror
endif
FOLDERS := format encoder decoder-cpu decoder-gpu infer cli
CPPFLAGS += -D_GNU_SOURCE $(addprefix -I,$(FOLDERS)) -Itests/support
CFLAGS_debug := -O1 -g3 -fno-omit-frame-pointer
CFLAGS_release := -O3 -g -DNDEBUG
CFLAGS_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
CFLAGS_ALL = -std=c11 $(WARN) $(CFLAGS_$(config)) -pthread -ffp-contract=off $(CFLAGS)
LDFLAGS_ALL = $(LDFLAGS_$(config)) -pthread $(LDFLAGS)
LDLIBS_ALL = $$(pkg-config --libs $(PKGS)) -lm

# One instruction set per file: only these objects may hold such instructions.
%_avx2.o: ISA := -mavx2 -mbmi -mbmi2 -mlzcnt -mfma -mf16c
%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vbmi2 -mbmi -mbmi2 -mlzcnt -mfma -mf16c

# ----------------------------------------------------------------------------------------------------------- sources

LIB_SRC := $(wildcard format/*.c encoder/*.c decoder-cpu/*.c infer/*.c) decoder-gpu/stub.c
LIB_SRC := $(wildcard $(LIB_SRC))
PROGRAMS := cpack cverify crun
CLI_SRC := $(filter-out $(PROGRAMS:%=cli/%.c),$(wildcard cli/*.c))
SUPPORT_SRC := $(wildcard tests/support/*.c)
UNIT_SRC := $(wildcard tests/unit/*/test_*.c)
BENCH_SRC := $(wildcard bench/*.c)
obj = $(patsubst %.c,$(B)/%.o,$1)

LIB := $(B)/libcllm.a
TOOLS := $(PROGRAMS:%=$(B)/%)
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRC))
BENCH := $(patsubst bench/%.c,$(B)/bench/%,$(BENCH_SRC))

.PHONY: all lib tools unit bench-programs clean FORCE
all: lib tools
lib: $(LIB)
tools: $(TOOLS)
unit: $(UNIT)
bench-programs: $(BENCH)

# Rebuilt when the list of members changes, so that a deleted source does not live on in the archive.
$(B)/libcllm.list: FORCE
	@mkdir -p $(@D); echo '$(LIB_SRC)' | cmp -s - $@ || echo '$(LIB_SRC)' >$@
$(LIB): $(call obj,$(LIB_SRC)) $(B)/libcllm.list
	@rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

$(TOOLS): $(B)/%: $(B)/cli/%.o $(call obj,$(CLI_SRC)) $(LIB)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL)
$(UNIT): $(B)/tests/%: $(B)/tests/unit/%.o $(call obj,$(SUPPORT_SRC)) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL) -lcmocka
$(BENCH): $(B)/bench/%: $(B)/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL)

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS_ALL) $(ISA) -MMD -MP -c -o $@ $<

-include $(shell find $(B) -name '*.d' 2>/dev/null)

clean:
	rm -rf build
