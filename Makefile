# The only build file. `make help` lists the targets.
#   B=dir builds elsewhere; CC=clang takes another compiler; SAN=address,undefined adds sanitizers; V=1 shows commands;
#   WERROR= lets warnings pass, for compilers that are newer than this code.
B   ?= build
SAN ?=
V   ?= 0
MAKEFLAGS += --no-print-directory
ifeq ($(origin CC),default)
CC  := gcc
endif

LIBS     := hwloc json-c libpcre2-8 libutf8proc libcurl libxxhash libedit libcrypto libssl libevent libevent_openssl \
            libevent_pthreads sqlite3
# llhttp: a library where the system has one, otherwise the C files that Debian 12 packages.
LLHTTP   := $(shell pkg-config --exists libllhttp && echo libllhttp)
ifeq ($(LLHTTP),)
LLHTTP_SRC := $(addprefix /usr/share/llhttp/,api.c http.c llhttp.c)
LLHTTP_CFLAGS := -isystem /usr/share/include/llhttp
endif
LIBS     += $(LLHTTP)
PKG_CFLAGS := $(shell pkg-config --cflags $(LIBS))
ifneq ($(.SHELLSTATUS),0)
ifneq ($(MAKECMDGOALS:help=clean),clean)
$(error a library is missing; `./quickstart build` installs what longcat needs)
endif
endif
PKG_LIBS := $(shell pkg-config --libs $(LIBS))

CFLAGS   ?= -O2 -g
WERROR   ?= -Werror
WARN     := -Wall -Wextra -Wshadow -Wconversion $(WERROR)
SAN_FLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
LANG_FLAGS := -std=gnu11 -D_GNU_SOURCE -Iinclude -Isrc $(PKG_CFLAGS) $(LLHTTP_CFLAGS)
CODE_FLAGS = $(LANG_FLAGS) $(CFLAGS) -ffp-contract=off -fno-math-errno -fno-trapping-math -pthread $(SAN_FLAGS)
ALL_CFLAGS = $(CODE_FLAGS) $(WARN)
ALL_FLAGS = $(CC) $(CODE_FLAGS) $(KERNEL_FLAGS) $(foreach i,$(ISAS),$(ISA_FLAGS_$i))
ALL_LIBS = $(LDFLAGS) $(PKG_LIBS) -lm -pthread $(SAN_FLAGS)

# Kernel families of this processor, one folder each; only these folders get special flags: -O3, because gcc's -O2
# leaves loops over a register tile as loops and the tile in memory.
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ISAS_x86_64  := scalar avx2 avxvnni avx512 avx512vnni avx512bf16 amx
ISAS_aarch64 := scalar neon neondot neonbf16
ISAS := $(or $(ISAS_$(ARCH)),scalar)
KERNEL_FLAGS := -O3
ISA_FLAGS_avx2   := -mavx2 -mfma -mf16c
ISA_FLAGS_avxvnni := $(ISA_FLAGS_avx2) -mavxvnni
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
ISA_FLAGS_avx512vnni := $(ISA_FLAGS_avx512) -mavx512vnni
ISA_FLAGS_avx512bf16 := $(ISA_FLAGS_avx512) -mavx512bf16
ISA_FLAGS_neondot := -march=armv8.2-a+dotprod
ISA_FLAGS_neonbf16 := -march=armv8.2-a+bf16
ISA_FLAGS_amx    := $(ISA_FLAGS_avx512bf16) -mavx512vnni -mamx-tile -mamx-bf16 -mamx-int8

DIRS  := base kernels $(ISAS:%=kernels/%) format text text/jinja ops model store engine train server
SRC   := $(wildcard $(DIRS:%=src/%/*.c))
CLI   := $(wildcard src/cli/*.c)
TESTS := $(patsubst tests/%.c,$B/tests/%,$(wildcard $(foreach d,unit golden server fault,tests/$d/test_*.c)))
FUZZ  := $(patsubst tests/fuzz/%.c,$B/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
OBJ   := $(SRC:%.c=$B/%.o) $(LLHTTP_SRC:/usr/share/%.c=$B/%.o)
CLI_OBJ := $(CLI:%.c=$B/%.o)

Q   := $(if $(filter 1,$V),,@)
say  = $(if $(filter 1,$V),,@echo "  $1 $(patsubst $B/%,%,$2)")

.PHONY: all tests test test-clients asan tsan fuzz fuzz-programs fuzz-build lint tidy format install clean help force
all: $B/longcat                    ## build the program, build/longcat
$B/longcat: $(CLI_OBJ) $B/liblongcat.a
	$(call say,LD,$@)
	$Q$(CC) $(CFLAGS) -o $@ $^ $(ALL_LIBS)
$B/liblongcat.a: $(OBJ)
	$(call say,AR,$@)
	$Q rm -f $@ && ar rcs $@ $^

# A change of compiler or flags (but for warnings) rebuilds everything.
$B/flags: force
	@mkdir -p $B && echo '$(ALL_FLAGS)' | cmp -s - $@ || echo '$(ALL_FLAGS)' > $@

define isa_rule
$B/src/kernels/$(1)/%.o $B/tidy/src/kernels/$(1)/%.ok: ISA_FLAGS := $(KERNEL_FLAGS) $(ISA_FLAGS_$(1))
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))
$B/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$Q$(CC) $(ALL_CFLAGS) $(ISA_FLAGS) -MMD -MP -c -o $@ $<

$B/llhttp/%.o: /usr/share/llhttp/%.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$Q$(CC) $(CODE_FLAGS) -w -c -o $@ $<

$B/src/server/page.o: $(wildcard web/*)

tests: all $(TESTS)                ## build the program and all test programs
$B/tests/%: tests/%.c $B/liblongcat.a $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$Q$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -MF $@.d -o $@ $< $B/liblongcat.a $(ALL_LIBS) -lcmocka
test: tests                        ## build and run all tests
	@tests/run $B

asan:                              ## run all tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$Q$(MAKE) B=$B/asan SAN=address,undefined CFLAGS="-O1 -g" test
tsan:                              ## run the tests that use threads under ThreadSanitizer
	$Q$(MAKE) B=$B/tsan SAN=thread CFLAGS="-O1 -g" tests
	@tests/run $B/tsan --threads

test-clients: all                  ## real agents and SDKs against the server, all that can be installed
	@tests/clients/run $B all

FUZZ_SECONDS ?= 20
# No parser reaches a vector kernel, and clang takes minutes for one under sanitizers: only the scalar family has them.
FUZZ_SAN := address,undefined
FUZZ_BUILD = $(MAKE) B=$B/fuzz CC=clang WERROR= SAN=$(FUZZ_SAN),fuzzer-no-link CFLAGS="-O1 -g" \
             KERNEL_FLAGS=-fno-sanitize=$(FUZZ_SAN) ISA_FLAGS_scalar=-fsanitize=$(FUZZ_SAN)
fuzz:                              ## run each fuzz target for FUZZ_SECONDS (20) under both sanitizers
	$Q+$(FUZZ_BUILD) fuzz-build
	@tests/run-fuzz $B/fuzz $(FUZZ_SECONDS)
fuzz-programs:                     ## build the fuzz targets only, into build/fuzz/fuzz/
	$Q+$(FUZZ_BUILD) fuzz-build
fuzz-build: $(FUZZ)
$B/fuzz/%: tests/fuzz/%.c $B/liblongcat.a $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$Q$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -MF $@.d -o $@ $< $B/liblongcat.a $(ALL_LIBS) -fsanitize=fuzzer

C_FILES = $(shell git ls-files -co --exclude-standard 'src/*.[ch]' 'src/*.inc' 'include/*.h' 'tests/*.[ch]')
lint: tidy                         ## check with clang-format, clang-tidy and cppcheck
	clang-format --dry-run -Werror $(C_FILES)
	cppcheck --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --suppress=invalidPointerCast --suppress=legacyUninitvar:src/format/mat_rows.c \
	    --suppress=arrayIndexOutOfBounds:src/kernels/neonbf16/neonbf16.c --library=tests/cppcheck.cfg --std=c11 -j2 -D__x86_64__ -Iinclude -Isrc src
tidy: $(SRC:%.c=$B/tidy/%.ok) $(CLI:%.c=$B/tidy/%.ok)
$B/tidy/%.ok: %.c .clang-tidy $(wildcard include/*.h src/*/*.h src/*/*/*.h src/*/*.inc)
	@mkdir -p $(@D)
	$(call say,TIDY,$<)
	$Qclang-tidy --quiet $< -- $(LANG_FLAGS) $(ISA_FLAGS) 2>$@.log || { cat $@.log; false; }
	@touch $@
format:                            ## format all C files
	clang-format -i $(C_FILES)

PREFIX ?= /usr/local
install: all                       ## install the program below PREFIX (/usr/local)
	install -D -m 755 $B/longcat $(DESTDIR)$(PREFIX)/bin/longcat
clean:                             ## remove what was built
	rm -rf $B
help:                              ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1 \2/p' Makefile | while read -r name text; do \
	    printf '  make %-13s  %s\n' "$$name" "$$text"; done

-include $(OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TESTS:=.d) $(FUZZ:=.d)
