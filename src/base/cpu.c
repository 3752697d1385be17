/*
 * cpu.c: asks the machine what it is. Instruction sets come from CPUID and XCR0 (a set counts only
 * when the kernel saves its registers too), limits from the affinity mask and from cgroup v2, which
 * is what containers and systemd units set. cgroup v1 is not read: current distributions have left
 * it.
 *
 * What can't change while the process lives (instruction sets, model name) is asked once, since
 * CPUID traps to the hypervisor in a virtual machine. What can change (CPUs, memory) is asked each
 * time. Nothing here allocates, so it works before and under memory pressure.
 */
#include "base/cpu.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* The most that is read of a file in /proc or /sys: cgroup paths are shorter than PATH_MAX. */
enum { LC_SYSFILE_MAX = 4096, LC_CPU_SET_MAX = 1 << 16 };

/* Filled once by ask_machine, constant afterwards. */
static struct {
    pthread_once_t once;
    bool isa[LC_ISA_COUNT], can[LC_CPU_FEATURES];
    char model[64];
} machine = {.once = PTHREAD_ONCE_INIT};

static const char *const isa_names[LC_ISA_COUNT] = {"scalar", "neon",       "neonbf16", "avx2",
                                                    "avx512", "avx512bf16", "amx"};

/* Reads the start of a small file as a string. false when it isn't there or is empty. */
static bool sysfile_read(const char *path, char text[LC_SYSFILE_MAX]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n;
    do n = read(fd, text, LC_SYSFILE_MAX - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    if (n <= 0) return false;
    text[n] = 0;
    return true;
}

/* Copies a name without leading, trailing and double spaces; CPU makers pad theirs. */
static void copy_name(char *out, size_t size, const char *name) {
    size_t used = 0;
    for (; *name && used + 1 < size; name++) {
        if (isspace((unsigned char)*name) && (used == 0 || out[used - 1] == ' ')) continue;
        out[used++] = isspace((unsigned char)*name) ? ' ' : *name;
    }
    while (used > 0 && out[used - 1] == ' ') used--;
    out[used] = 0;
}

/* The value of a "key : value" line of /proc/cpuinfo, into machine.model. */
static bool model_from_cpuinfo(const char *key) {
    char text[LC_SYSFILE_MAX];
    if (!sysfile_read("/proc/cpuinfo", text)) return false;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        copy_name(machine.model, sizeof machine.model, colon + 1);
        return machine.model[0] != 0;
    }
    return false;
}

#if defined(__x86_64__)

static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void ask_isa(void) {
    enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xe6 }; /* xmm, ymm; opmask and both halves of zmm */
    enum { XCR0_TILES = 3 << 17, XFEATURE_TILE_DATA = 18 };
    enum { ARCH_REQ_XCOMP_PERM = 0x1023 };    /* the kernel grants tile registers on request only */
    const unsigned amx = 1u << 22 | 1u << 24; /* amx-bf16, amx-tile */
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    unsigned a, b, c, d, ext_b, ext_c, ext_d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
    if (!__get_cpuid_count(7, 0, &a, &ext_b, &ext_c, &ext_d)) return;
    uint64_t xcr0 = read_xcr0();
    bool avx = (c & bit_AVX) && (c & bit_FMA) && (c & bit_F16C) && (xcr0 & XCR0_AVX) == XCR0_AVX;
    machine.isa[LC_ISA_AVX2] = avx && (ext_b & bit_AVX2);
    machine.isa[LC_ISA_AVX512] =
        avx && (ext_b & avx512) == avx512 && (xcr0 & XCR0_AVX512) == XCR0_AVX512;
    unsigned more = __get_cpuid_count(7, 1, &a, &b, &c, &d) ? a : 0;
    machine.isa[LC_ISA_AVX512BF16] = machine.isa[LC_ISA_AVX512] && (more & bit_AVX512BF16);
    machine.isa[LC_ISA_AMX] = machine.isa[LC_ISA_AVX512BF16] && (ext_d & amx) == amx &&
                              (ext_c & bit_AVX512VNNI) && (xcr0 & XCR0_TILES) == XCR0_TILES &&
                              syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0;
    machine.can[LC_CPU_AVX_VNNI] = machine.isa[LC_ISA_AVX2] && (more >> 4 & 1);
    machine.can[LC_CPU_AVX512_VNNI] = machine.isa[LC_ISA_AVX512] && (ext_c & bit_AVX512VNNI);
    machine.can[LC_CPU_AMX_INT8] =
        machine.isa[LC_ISA_AMX] && machine.can[LC_CPU_AVX512_VNNI] && (ext_d >> 25 & 1);
}

static void ask_model(void) {
    unsigned words[13] = {0}; /* 48 bytes of name and a NUL */
    for (unsigned i = 0; i < 3; i++) {
        unsigned *w = words + 4 * i;
        if (!__get_cpuid(0x80000002u + i, &w[0], &w[1], &w[2], &w[3])) break;
    }
    copy_name(machine.model, sizeof machine.model, (const char *)words);
    if (!machine.model[0]) model_from_cpuinfo("model name");
}

enum { MXCSR_FTZ_DAZ = 0x8040 };

uint64_t lc_fp_enter(void) {
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | MXCSR_FTZ_DAZ);
    return old;
}

void lc_fp_leave(uint64_t state) { _mm_setcsr((unsigned)state); }

#elif defined(__aarch64__)

static void ask_isa(void) {
    machine.isa[LC_ISA_NEON] = true; /* part of the base architecture */
    machine.isa[LC_ISA_NEONBF16] = (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
    machine.can[LC_CPU_DOTPROD] = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}

static void ask_model(void) {
    if (!model_from_cpuinfo("model name")) model_from_cpuinfo("Model");
}

enum { FPCR_FZ = 1 << 24 };

uint64_t lc_fp_enter(void) {
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | FPCR_FZ));
    return old;
}

void lc_fp_leave(uint64_t state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }

#else

static void ask_isa(void) {}
static void ask_model(void) { model_from_cpuinfo("model name"); }
uint64_t lc_fp_enter(void) { return 0; }
void lc_fp_leave(uint64_t state) { (void)state; }

#endif

static void ask_machine(void) {
    machine.isa[LC_ISA_SCALAR] = true;
    ask_isa();
    ask_model();
    if (!machine.model[0]) copy_name(machine.model, sizeof machine.model, "unknown CPU");
}

bool lc_cpu_has(lc_isa isa) {
    pthread_once(&machine.once, ask_machine);
    return (unsigned)isa < LC_ISA_COUNT && machine.isa[isa];
}

bool lc_cpu_can(lc_cpu_feature feature) {
    pthread_once(&machine.once, ask_machine);
    return (unsigned)feature < LC_CPU_FEATURES && machine.can[feature];
}

const char *lc_cpu_model(void) {
    pthread_once(&machine.once, ask_machine);
    return machine.model;
}

const char *lc_isa_name(lc_isa isa) {
    return (unsigned)isa < LC_ISA_COUNT ? isa_names[isa] : "unknown";
}

bool lc_isa_from_name(const char *name, lc_isa *out) {
    for (unsigned i = 0; i < LC_ISA_COUNT; i++)
        if (strcmp(name, isa_names[i]) == 0) {
            *out = (lc_isa)i;
            return true;
        }
    return false;
}

/* Called with the text of a control file of this process's cgroup or of one above it. */
typedef void cgroup_visit(const char *text, uint64_t *limit);

/* A limit may stand at any level of the hierarchy, so all levels up to the root are visited. */
static void cgroup_walk(const char *file, cgroup_visit *visit, uint64_t *limit) {
    static const char root[] = "/sys/fs/cgroup";
    char text[LC_SYSFILE_MAX], group[LC_SYSFILE_MAX], path[2 * LC_SYSFILE_MAX];
    if (!sysfile_read("/proc/self/cgroup", text)) return;
    char *line = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
    if (!line) return; /* no cgroup v2 here */
    line = strchr(line, '/');
    line[strcspn(line, "\n")] = 0;
    snprintf(group, sizeof group, "%s", line);
    for (;;) {
        snprintf(path, sizeof path, "%s%s/%s", root, group, file);
        if (sysfile_read(path, text)) visit(text, limit);
        char *slash = strrchr(group, '/');
        if (!slash) return;
        *slash = 0;
    }
}

/* cpu.max: "max 100000" or "QUOTA PERIOD" in microseconds. */
static void visit_cpu_max(const char *text, uint64_t *limit) {
    unsigned long long quota, period;
    if (sscanf(text, "%llu %llu", &quota, &period) != 2 || period == 0) return;
    uint64_t cpus = quota / period + (quota % period != 0);
    if (cpus < 1) cpus = 1;
    if (cpus < *limit) *limit = cpus;
}

/* memory.max: "max" or bytes. */
static void visit_memory_max(const char *text, uint64_t *limit) {
    unsigned long long bytes;
    if (sscanf(text, "%llu", &bytes) == 1 && bytes > 0 && bytes < *limit) *limit = bytes;
}

static uint64_t affinity_count(void) {
    /* The kernel refuses a mask shorter than its own, so grow until it fits. A static size of 64 Ki
     * CPUs (8 KiB of mask) would do as well but be touched whole on each call. */
    unsigned long mask[LC_CPU_SET_MAX / (8 * sizeof(unsigned long))];
    for (size_t cpus = CPU_SETSIZE; cpus <= LC_CPU_SET_MAX; cpus *= 2) {
        if (sched_getaffinity(0, CPU_ALLOC_SIZE(cpus), (cpu_set_t *)mask) == 0)
            return (uint64_t)CPU_COUNT_S(CPU_ALLOC_SIZE(cpus), (cpu_set_t *)mask);
        if (errno != EINVAL) break;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (uint64_t)online : 1;
}

int lc_cpu_count(void) {
    uint64_t count = affinity_count();
    cgroup_walk("cpu.max", visit_cpu_max, &count);
    return count < 1 ? 1 : (int)count;
}

size_t lc_cpu_memory(void) {
    struct sysinfo info;
    uint64_t bytes = UINT64_MAX;
    if (sysinfo(&info) == 0) bytes = (uint64_t)info.totalram * info.mem_unit;
    cgroup_walk("memory.max", visit_memory_max, &bytes);
    return bytes == UINT64_MAX ? 0 : (size_t)bytes;
}
