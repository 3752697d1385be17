/* test_cpu.c: what we say about this machine against what the kernel says. */
#include "base/cpu.h"
#include "test.h"

#include <sched.h>
#include <unistd.h>

/* The value of the first line of /proc/cpuinfo that starts with key; the caller frees it. */
static char *cpuinfo(const char *key) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char *line = NULL, *value = NULL;
    size_t cap = 0;
    while (file && !value && getline(&line, &cap, file) > 0) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        colon += 1 + strspn(colon + 1, " ");
        colon[strcspn(colon, "\n")] = 0;
        value = strdup(colon);
    }
    free(line);
    if (file) fclose(file);
    return value;
}

/* Whether each word of a list is a whole word of the flags line. */
static bool has_flags(const char *flags, const char *words) {
    char list[128], *rest = NULL;
    snprintf(list, sizeof list, "%s", words);
    for (char *word = strtok_r(list, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        size_t len = strlen(word);
        const char *at = strstr(flags, word);
        while (at && ((at > flags && at[-1] != ' ') || (at[len] && at[len] != ' ')))
            at = strstr(at + 1, word);
        if (!at) return false;
    }
    return true;
}

static void instruction_sets_equal_the_kernels_list(void **state) {
    (void)state;
    assert_true(lc_cpu_has(LC_ISA_SCALAR));
    assert_false(lc_cpu_has(LC_ISA_COUNT));
#if defined(__x86_64__)
    char *flags = cpuinfo("flags");
    assert_non_null(flags);
    bool avx2 = has_flags(flags, "avx avx2 fma f16c");
    assert_int_equal(lc_cpu_has(LC_ISA_AVX2), avx2);
    assert_int_equal(lc_cpu_has(LC_ISA_AVX512),
                     avx2 && has_flags(flags, "avx512f avx512bw avx512vl avx512dq"));
    assert_false(lc_cpu_has(LC_ISA_NEON));
    free(flags);
#elif defined(__aarch64__)
    assert_true(lc_cpu_has(LC_ISA_NEON));
    assert_false(lc_cpu_has(LC_ISA_AVX2));
    assert_false(lc_cpu_has(LC_ISA_AVX512));
#endif
    for (lc_isa isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++)
        printf("# %s: %s\n", lc_isa_name(isa), lc_cpu_has(isa) ? "yes" : "no");
}

static void names_round_trip(void **state) {
    (void)state;
    for (lc_isa isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
        lc_isa back = LC_ISA_COUNT;
        assert_true(lc_isa_from_name(lc_isa_name(isa), &back));
        assert_int_equal(back, isa);
    }
    lc_isa untouched = LC_ISA_NEON;
    assert_false(lc_isa_from_name("sse", &untouched));
    assert_false(lc_isa_from_name("", &untouched));
    assert_int_equal(untouched, LC_ISA_NEON);
    assert_string_equal(lc_isa_name(LC_ISA_AVX512), "avx512");
    assert_string_equal(lc_isa_name(LC_ISA_COUNT), "unknown");
}

static void model_name_is_the_kernels(void **state) {
    (void)state;
    const char *model = lc_cpu_model();
    assert_true(model[0] != 0);
    assert_ptr_equal(model, lc_cpu_model());
#if defined(__x86_64__)
    char *name = cpuinfo("model name");
    assert_non_null(name);
    /* The kernel keeps the maker's padding, we don't: compare without spaces. */
    const char *a = model, *b = name;
    for (;; a++, b++) {
        while (*a == ' ') a++;
        while (*b == ' ') b++;
        assert_int_equal(*a, *b);
        if (!*a) break;
    }
    free(name);
#endif
    printf("# %s, %d CPUs, %zu MiB\n", model, lc_cpu_count(), lc_cpu_memory() >> 20);
}

static void count_follows_the_affinity_mask(void **state) {
    (void)state;
    cpu_set_t old, one;
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    int count = lc_cpu_count();
    assert_in_range(count, 1, CPU_COUNT(&old));
    size_t first = 0;
    while (!CPU_ISSET(first, &old)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(lc_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof old, &old), 0);
    assert_int_equal(lc_cpu_count(), count);
}

static void memory_is_at_most_the_machines(void **state) {
    (void)state;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    assert_in_range(lc_cpu_memory(), 1 << 20, (size_t)pages * (size_t)page);
}

static void floating_point_mode(void **state) {
    (void)state;
#if defined(__x86_64__) || defined(__aarch64__)
    volatile float tiny = 0x1p-100f, denormal = 0x1p-140f, down = 0x1p-30f, up = 0x1p100f;
    volatile float product, scaled, again; /* else a compiler may multiply after leaving */
    uint64_t before = lc_fp_enter();
    product = tiny * down;
    scaled = denormal * up;
    uint64_t inner = lc_fp_enter(); /* entering twice is fine */
    lc_fp_leave(inner);
    again = tiny * down;
    lc_fp_leave(before);
    assert_true(product == 0.0f && scaled == 0.0f && again == 0.0f);
    assert_true(tiny * down == 0x1p-130f && denormal * up == 0x1p-40f);
#else
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_sets_equal_the_kernels_list),
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(model_name_is_the_kernels),
        cmocka_unit_test(count_follows_the_affinity_mask),
        cmocka_unit_test(memory_is_at_most_the_machines),
        cmocka_unit_test(floating_point_mode),
    };
    return test_main(tests);
}
