/* dtype.c: element types by name and size, and the conversions that are more than a shift. */
#include "format/dtype.h"

static const struct {
    const char *name; /* safetensors' spelling */
    size_t size;
} types[LC_DTYPE_COUNT] = {
    [LC_F32] = {"F32", 4},         [LC_F16] = {"F16", 2}, [LC_BF16] = {"BF16", 2},
    [LC_F8_E4M3] = {"F8_E4M3", 1}, [LC_I8] = {"I8", 1},   [LC_U8] = {"U8", 1},
    [LC_I32] = {"I32", 4},         [LC_I64] = {"I64", 8}, [LC_F64] = {"F64", 8},
    [LC_BOOL] = {"BOOL", 1},       [LC_U16] = {"U16", 2}, [LC_U32] = {"U32", 4},
    [LC_U64] = {"U64", 8},         [LC_I16] = {"I16", 2},
};

size_t lc_dtype_size(lc_dtype type) { return type < LC_DTYPE_COUNT ? types[type].size : 0; }

const char *lc_dtype_name(lc_dtype type) {
    return type < LC_DTYPE_COUNT ? types[type].name : "unknown";
}

bool lc_dtype_from_name(const char *name, lc_dtype *out) {
    for (lc_dtype i = 0; i < LC_DTYPE_COUNT; i++) {
        if (!strcmp(name, types[i].name)) {
            *out = i;
            return true;
        }
    }
    return false;
}

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float lc_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 112u) << 23 | fraction << 13);
    float tiny = (float)fraction * 0x1p-24f; /* subnormal or zero, exact in fp32 */
    return sign ? -tiny : tiny;
}

float lc_f8_e4m3_to_f32(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80u) << 24, exponent = code >> 3 & 15u,
             fraction = code & 7u;
    if (exponent == 15 && fraction == 7) return from_bits(sign | 0x7fc00000u);
    if (exponent) return from_bits(sign | (exponent + 120u) << 23 | fraction << 20);
    float tiny = (float)fraction * 0x1p-9f;
    return sign ? -tiny : tiny;
}
