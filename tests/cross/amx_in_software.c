/*
 * amx_in_software.c: runs AMX kernels on a processor that has AVX512-BF16 but no tiles. Each tile
 * instruction raises SIGILL there; the handler does what Intel's manual (volume 2, TDPBF16PS and
 * its neighbours; volume 1, chapter on AMX) says and goes on behind it. What a processor would
 * refuse, such as a shape that wasn't configured, ends the process.
 *
 * WRAP below, -Wl,--wrap=lc_cpu_has,--wrap=lc_cpu_can, gives lc_kernels_of(LC_ISA_AMX). All test
 * programs (the slowest, test_nano, takes 12 minutes), O being this file's object, compiled with
 * -D_GNU_SOURCE -mavx512f -Isrc -Iinclude:
 *
 *     make B=build/tiles LDFLAGS="O build/tiles/liblongcat.a WRAP" tests
 */
#include "base/cpu.h"

#include <immintrin.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

bool __real_lc_cpu_has(lc_isa isa);
bool __real_lc_cpu_can(lc_cpu_feature feature);
bool __wrap_lc_cpu_has(lc_isa isa);
bool __wrap_lc_cpu_can(lc_cpu_feature feature);

bool __wrap_lc_cpu_has(lc_isa isa) {
    return __real_lc_cpu_has(isa == LC_ISA_AMX ? LC_ISA_AVX512BF16 : isa);
}

bool __wrap_lc_cpu_can(lc_cpu_feature feature) {
    return __real_lc_cpu_can(feature == LC_CPU_AMX_INT8 ? LC_CPU_AVX512_VNNI : feature);
}

enum { TILES = 8, MAX_ROWS = 16, ROW_BYTES = 64 };

typedef struct tile {
    uint8_t row[MAX_ROWS][ROW_BYTES];
    int rows, bytes; /* a row's; 0 if the tile isn't configured */
} tile;

static _Thread_local tile tiles[TILES];
static _Thread_local bool configured;

static void refuse(const char *why) {
    fprintf(stderr, "tile instruction: %s\n", why);
    abort();
}

static tile *configured_tile(unsigned n) {
    if (!configured || n >= TILES || tiles[n].rows == 0) refuse("tile without configuration");
    return &tiles[n];
}

static void clear(tile *t) { memset(t->row, 0, sizeof t->row); }

static void load_config(const uint8_t *config) {
    configured = config[0] != 0;
    if (config[0] > 1 || config[1] != 0) refuse("palette or start row unknown");
    for (int i = 2; i < 16; i++)
        if (config[i]) refuse("reserved bytes of the configuration are set");
    for (int i = 0; i < TILES; i++) {
        uint16_t bytes;
        memcpy(&bytes, config + 16 + 2 * i, sizeof bytes);
        tiles[i].bytes = configured ? bytes : 0;
        tiles[i].rows = configured ? config[48 + i] : 0;
        if (tiles[i].bytes > ROW_BYTES || tiles[i].rows > MAX_ROWS) refuse("tile too large");
        if (!tiles[i].bytes != !tiles[i].rows) refuse("tile of rows without bytes, or the reverse");
        clear(&tiles[i]);
    }
}

static void load(tile *t, const uint8_t *from, int64_t stride) {
    clear(t);
    for (int i = 0; i < t->rows; i++) memcpy(t->row[i], from + i * stride, (size_t)t->bytes);
}

static void store(const tile *t, uint8_t *to, int64_t stride) {
    for (int i = 0; i < t->rows; i++) memcpy(to + i * stride, t->row[i], (size_t)t->bytes);
}

static float bf16(const uint8_t *at) {
    uint32_t bits = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 24;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Sums of even and of odd k apart, each by FMA; then even + odd; then that to the result. */
static void multiply_bf16(tile *c, const tile *a, const tile *b) {
    __mmask16 lanes = (__mmask16)((1u << c->bytes / 4) - 1);
    for (int m = 0; m < c->rows; m++) {
        __m512 even = _mm512_setzero_ps(), odd = even;
        for (int k = 0; k < a->bytes / 4; k++) {
            __m512i pairs = _mm512_loadu_si512(b->row[k]);
            __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
            __m512 high =
                _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
            even = _mm512_fmadd_ps(_mm512_set1_ps(bf16(a->row[m] + 4 * k)), low, even);
            odd = _mm512_fmadd_ps(_mm512_set1_ps(bf16(a->row[m] + 4 * k + 2)), high, odd);
        }
        __m512 sum = _mm512_add_ps(_mm512_loadu_ps(c->row[m]), _mm512_add_ps(even, odd));
        _mm512_storeu_ps(c->row[m], _mm512_maskz_mov_ps(lanes, sum));
    }
}

static int byte_of(const uint8_t *at, bool is_signed) { return is_signed ? (int8_t)*at : *at; }

static void multiply_bytes(tile *c, const tile *a, const tile *b, bool a_signed, bool b_signed) {
    for (int m = 0; m < c->rows; m++)
        for (int n = 0; n < c->bytes / 4; n++) {
            uint32_t sum;
            memcpy(&sum, c->row[m] + 4 * n, sizeof sum);
            for (int k = 0; k < a->bytes; k++)
                sum += (uint32_t)(byte_of(a->row[m] + k, a_signed) *
                                  byte_of(b->row[k / 4] + 4 * n + k % 4, b_signed));
            memcpy(c->row[m] + 4 * n, &sum, sizeof sum);
        }
}

/* Registers by their number in an instruction. */
static uint64_t register_of(const ucontext_t *u, unsigned n) {
    static const int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                   REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                   REG_R12, REG_R13, REG_R14, REG_R15};
    return (uint64_t)u->uc_mcontext.gregs[places[n]];
}

/* What an instruction with a VEX prefix of three bytes says. */
typedef struct instruction {
    unsigned prefix, opcode, reg, rm, vvvv; /* prefix: 0 none, 1 66, 2 F3, 3 F2 */
    bool has_memory;
    uint64_t address; /* without the index of a tile's load or store, */
    int64_t stride;   /* which is the distance of its rows */
    size_t length;
} instruction;

static instruction decode(const ucontext_t *u, const uint8_t *code) {
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84)) {
        fprintf(stderr, "illegal instruction %02x %02x %02x %02x\n", code[0], code[1], code[2],
                code[3]);
        abort();
    }
    unsigned modrm = code[4], mode = modrm >> 6, index_high = code[1] & 0x40 ? 0 : 8,
             base_high = code[1] & 0x20 ? 0 : 8;
    instruction i = {.prefix = code[2] & 3,
                     .opcode = code[3],
                     .reg = modrm >> 3 & 7,
                     .rm = modrm & 7,
                     .vvvv = ~(code[2] >> 3) & 15,
                     .has_memory = mode != 3,
                     .length = 5};
    if (!i.has_memory) return i;
    bool no_base = false;
    if (i.rm == 4) {
        unsigned sib = code[i.length++], index = (sib >> 3 & 7) + index_high;
        no_base = mode == 0 && (sib & 7) == 5;
        if (!no_base) i.address = register_of(u, (sib & 7) + base_high);
        if (index != 4) i.stride = (int64_t)(register_of(u, index) << (sib >> 6));
    } else if (mode == 0 && i.rm == 5)
        refuse("address relative to the instruction");
    else
        i.address = register_of(u, i.rm + base_high);
    int32_t far = 0;
    if (mode == 1) far = (int8_t)code[i.length++];
    if (mode == 2 || no_base) memcpy(&far, code + i.length, sizeof far), i.length += sizeof far;
    i.address += (uint64_t)(int64_t)far;
    return i;
}

static void multiply(const instruction *i) {
    tile *c = configured_tile(i->reg);
    const tile *a = configured_tile(i->rm), *b = configured_tile(i->vvvv);
    if (c == a || c == b || a == b) refuse("one tile twice");
    if (a->rows != c->rows || b->bytes != c->bytes || b->rows * 4 != a->bytes || a->bytes % 4 ||
        c->bytes % 4)
        refuse("shapes of a product don't fit");
    if (i->opcode == 0x5c && i->prefix == 2)
        multiply_bf16(c, a, b);
    else if (i->opcode == 0x5e)
        multiply_bytes(c, a, b, i->prefix & 2, i->prefix & 1);
    else
        refuse("product unknown");
}

static void run(const instruction *i) {
    if (i->opcode == 0x49 && i->prefix == 0 && i->has_memory)
        load_config((const uint8_t *)(uintptr_t)(i->address + (uint64_t)i->stride));
    else if (i->opcode == 0x49 && i->prefix == 0)
        load_config((const uint8_t[64]){0});
    else if (i->opcode == 0x49 && i->prefix == 3 && !i->has_memory)
        clear(configured_tile(i->reg));
    else if (i->opcode == 0x4b && (i->prefix == 3 || i->prefix == 1) && i->has_memory)
        load(configured_tile(i->reg), (const uint8_t *)(uintptr_t)i->address, i->stride);
    else if (i->opcode == 0x4b && i->prefix == 2 && i->has_memory)
        store(configured_tile(i->reg), (uint8_t *)(uintptr_t)i->address, i->stride);
    else if (!i->has_memory)
        multiply(i);
    else
        refuse("unknown");
}

static void handle(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    ucontext_t *u = context;
    instruction i = decode(u, (const uint8_t *)(uintptr_t)u->uc_mcontext.gregs[REG_RIP]);
    _mm_setcsr(_mm_getcsr() | 0x8040); /* products take and give denormals as zero */
    run(&i);
    u->uc_mcontext.gregs[REG_RIP] += (long long)i.length;
}

/* cmocka takes SIGILL for itself while a test runs; here it stays ours. */
void (*signal(int number, void (*handler)(int)))(int) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    if (number == SIGILL) return SIG_DFL;
    return sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

__attribute__((constructor)) static void install(void) {
    if (__real_lc_cpu_has(LC_ISA_AMX) || !__real_lc_cpu_has(LC_ISA_AVX512BF16)) return;
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGILL, &action, NULL) != 0) abort();
}
