/*
 * test_cross.c: the kernels of another processor, built with a cross compiler and run under an
 * emulator, give this machine's bits; so do those for AMX where only tiles are missing. Left out,
 * saying so, where compiler or emulator are missing.
 */
#include "test.h"

#include "base/cpu.h"

#include <sys/wait.h>

#define SOURCES                                                                                    \
    "tests/cross/kernel_bits.c src/kernels/kernels.c src/kernels/coded.c "                         \
    "src/kernels/scalar/scalar.c src/kernels/scalar/coded.c src/base/cpu.c src/base/mem.c "        \
    "src/base/pages.c src/base/err.c src/base/log.c src/base/utf8.c src/base/buf.c "
#define FLAGS                                                                                      \
    "-std=gnu11 -O2 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -fno-trapping-math "           \
    "-Iinclude -Isrc -pthread "

/* First line of a command's output; "" if it fails. */
static void output_of(const char *command, char line[128]) {
    line[0] = 0;
    FILE *pipe = popen(command, "r");
    if (!pipe) return;
    if (!fgets(line, 128, pipe)) line[0] = 0;
    if (pclose(pipe) != 0) line[0] = 0;
    line[strcspn(line, "\n")] = 0;
}

static bool have(const char *program) {
    char command[128], line[128];
    snprintf(command, sizeof command, "command -v %s 2>/dev/null", program);
    output_of(command, line);
    return line[0] != 0;
}

static char host[128]; /* hash of this machine's scalar kernels, and of its coded products */
static char host_coded[128];
/* The same, kept from the machines before: each one checks the others. */
static const char kept[] = "7cdcdc41e74d6491", kept_coded[] = "c342fbe913621eb7";

static int build_host(void **unused) {
    (void)unused;
    const char *build = getenv("LONGCAT") ? "$(dirname \"$LONGCAT\")" : "build";
    char command[512];
    snprintf(command, sizeof command,
             "gcc " FLAGS
             "-Itests tests/cross/kernel_bits.c %s/liblongcat.a -lm -o %s/kernel_bits && "
             "%s/kernel_bits scalar",
             build, build, build);
    if (getenv("LONGCAT") && strstr(getenv("LONGCAT"), "san"))
        return 0; /* that build can't be linked plainly */
    output_of(command, host);
    snprintf(command, sizeof command, "%s/kernel_bits scalar coded", build);
    output_of(command, host_coded);
    return 0;
}

static void every_isa_of_this_machine(void **unused) {
    (void)unused;
    const char *build = getenv("LONGCAT") ? "$(dirname \"$LONGCAT\")" : "build";
    if (!host[0]) skip();
    assert_string_equal(host, kept);
    assert_string_equal(host_coded, kept_coded);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        if (!lc_cpu_has((lc_isa)isa)) continue;
        char command[256], line[128];
        snprintf(command, sizeof command, "%s/kernel_bits %s", build, lc_isa_name((lc_isa)isa));
        output_of(command, line);
        print_message("# %-10s %s\n", lc_isa_name((lc_isa)isa), line);
        assert_string_equal(line, host);
        strcat(command, " coded");
        output_of(command, line);
        assert_string_equal(line, host_coded);
    }
}

static void neon_under_an_emulator(void **unused) {
    (void)unused;
    const char *build = getenv("LONGCAT") ? "$(dirname \"$LONGCAT\")" : "build";
    if (!host[0] || !have("aarch64-linux-gnu-gcc") || !have("qemu-aarch64")) {
        print_message("# left out: no cross compiler for aarch64, or no qemu-aarch64\n");
        skip();
    }
    static const struct {
        const char *cpu, *arguments;
    } runs[] = {{"max", "scalar"},       {"max", "neon"},       {"max", "neonbf16"},
                {"max", "scalar coded"}, {"max", "neon coded"}, {"cortex-a53", "neon coded"}};
    char command[1024], line[128];
    snprintf(command, sizeof command,
             "cd %s && for f in neonbf16/neonbf16:bf16 neondot/coded:dotprod; do "
             "aarch64-linux-gnu-gcc -c " FLAGS "-I$OLDPWD/include -I$OLDPWD/src "
             "-march=armv8.2-a+${f#*:} $OLDPWD/src/kernels/${f%%:*}.c -o ${f#*:}.arm.o || exit 1; "
             "done; cd - >/dev/null; aarch64-linux-gnu-gcc -static " FLAGS SOURCES
             "src/kernels/neon/neon.c src/kernels/neon/coded.c %s/bf16.arm.o %s/dotprod.arm.o -lm "
             "-o %s/kernel_bits.arm && echo built",
             build, build, build, build);
    output_of(command, line);
    assert_string_equal(line, "built");
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        snprintf(command, sizeof command, "qemu-aarch64 -cpu %s %s/kernel_bits.arm %s", runs[i].cpu,
                 build, runs[i].arguments);
        output_of(command, line);
        print_message("# aarch64 %-10s %-15s %s\n", runs[i].cpu, runs[i].arguments, line);
        assert_string_equal(line, strchr(runs[i].arguments, ' ') ? host_coded : host);
    }
}

static void amx_with_tiles_in_software(void **unused) {
    (void)unused;
    const char *build = getenv("LONGCAT") ? "$(dirname \"$LONGCAT\")" : "build";
    if (!host[0] || lc_cpu_has(LC_ISA_AMX) || !lc_cpu_has(LC_ISA_AVX512BF16)) {
        print_message("# left out: this processor has tiles, or no AVX512-BF16 either\n");
        skip();
    }
    char command[512], line[128];
    snprintf(command, sizeof command,
             "gcc " FLAGS "-mavx512f -Itests tests/cross/amx_in_software.c "
             "tests/cross/kernel_bits.c %s/liblongcat.a -Wl,--wrap=lc_cpu_has,--wrap=lc_cpu_can "
             "-lm -o %s/kernel_bits.amx && echo built",
             build, build);
    output_of(command, line);
    assert_string_equal(line, "built");
    for (int coded = 0; coded < 2; coded++) {
        snprintf(command, sizeof command, "%s/kernel_bits.amx amx%s", build, coded ? " coded" : "");
        output_of(command, line);
        print_message("# amx in software%-7s %s\n", coded ? " coded" : "", line);
        assert_string_equal(line, coded ? host_coded : host);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_isa_of_this_machine),
        cmocka_unit_test(amx_with_tiles_in_software),
        cmocka_unit_test(neon_under_an_emulator),
    };
    return cmocka_set_message_output(CM_OUTPUT_TAP),
           cmocka_run_group_tests(tests, build_host, NULL);
}
