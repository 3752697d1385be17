# The only build file. `make help` lists the targets. B=dir builds elsewhere; SAN=address,undefined adds sanitizers.
B   ?= build
CC  ?= gcc
SAN ?=

LIBS    := json-c libpcre2-8 libutf8proc libcurl libxxhash libedit libcrypto
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wconversion -Werror
ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) -ffp-contract=off -fno-math-errno -fno-trapping-math -pthread -D_GNU_SOURCE \
             -Iinclude -Isrc $(shell pkg-config --cflags $(LIBS)) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_LIBS = $(shell pkg-config --libs $(LIBS)) -lm -pthread $(if $(SAN),-fsanitize=$(SAN))

ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ifeq ($(ARCH),x86_64)
ISAS := scalar avx2 avx512
endif
ifeq ($(ARCH),aarch64)
ISAS := scalar neon
endif
ISAS ?= scalar
ISA_FLAGS_scalar :=
ISA_FLAGS_avx2   := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
ISA_FLAGS_neon   :=

KERNEL_DIRS := src/kernels $(ISAS:%=src/kernels/%)
SRC := $(wildcard src/base/*.c $(KERNEL_DIRS:%=%/*.c) src/format/*.c src/text/*.c src/ops/*.c src/model/*.c src/store/*.c src/engine/*.c)
CLI := $(wildcard src/cli/*.c)
OBJ := $(SRC:%.c=$B/%.o)
TESTS := $(patsubst tests/%.c,$B/tests/%,$(wildcard tests/unit/test_*.c tests/golden/test_*.c tests/server/test_*.c tests/fault/test_*.c))
FUZZ  := $(patsubst tests/fuzz/%.c,$B/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all tests test asan tsan fuzz lint format install clean help
all: $B/longcat                    ## build the program
$B/longcat: $(CLI:%.c=$B/%.o) $B/liblongcat.a
	$(CC) $(CFLAGS) -o $@ $^ $(ALL_LIBS)
$B/liblongcat.a: $(OBJ)
	@rm -f $@
	ar rcs $@ $^

define isa_rule
$B/src/kernels/$(1)/%.o: ISA_FLAGS := $(ISA_FLAGS_$(1))
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))
$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA_FLAGS) -MMD -MP -c -o $@ $<

tests: all $(TESTS)                ## build the program and all test programs
$B/tests/%: tests/%.c tests/test.h $B/liblongcat.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -MF $@.d -o $@ $< $B/liblongcat.a $(ALL_LIBS) -lcmocka
test: tests                        ## run all tests
	tests/run $B

asan:                              ## run all tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(MAKE) B=$B/asan SAN=address,undefined CFLAGS="-O1 -g" test
tsan:                              ## run the threaded tests under ThreadSanitizer
	$(MAKE) B=$B/tsan SAN=thread CFLAGS="-O1 -g" tests
	tests/run $B/tsan threads

FUZZ_SECONDS ?= 20
fuzz:                              ## run each fuzz target for FUZZ_SECONDS
	$(MAKE) B=$B/fuzz CC=clang SAN=address,undefined,fuzzer-no-link CFLAGS="-O1 -g" fuzz-build
	tests/run-fuzz $B/fuzz $(FUZZ_SECONDS)
.PHONY: fuzz-build
fuzz-build: $(FUZZ)
$B/fuzz/%: tests/fuzz/%.c $B/liblongcat.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -o $@ $< $B/liblongcat.a $(ALL_LIBS) -fsanitize=fuzzer

C_FILES = $(shell git ls-files 'src/*.[ch]' 'src/*.inc' 'include/*.h' 'tests/*.[ch]')
lint:                              ## clang-format, clang-tidy and cppcheck
	clang-format --dry-run -Werror $(C_FILES)
	cppcheck --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --std=c11 -Iinclude -Isrc src
	clang-tidy --quiet $(SRC) $(CLI) -- -std=gnu11 -D_GNU_SOURCE -Iinclude -Isrc $(shell pkg-config --cflags $(LIBS))
format:                            ## format all C files
	clang-format -i $(C_FILES)

PREFIX ?= /usr/local
install: all                       ## install the program under PREFIX
	install -D -m 755 $B/longcat $(DESTDIR)$(PREFIX)/bin/longcat
clean:                             ## remove what was built
	rm -rf $B
help:                              ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
-include $(shell test -d $B && find $B -name '*.d')
