/* dtype.h: element types of checkpoints and their conversion to fp32. */
#ifndef LC_FORMAT_DTYPE_H
#define LC_FORMAT_DTYPE_H

#include "longcat.h"

#include <string.h>

typedef enum lc_dtype {
    LC_F32,
    LC_F16,
    LC_BF16,
    LC_F8_E4M3, /* 1-4-3 bits, bias 7; 0x7f and 0xff are NaN, no infinity */
    LC_I8,
    LC_U8,
    LC_I32,
    LC_I64,
    LC_F64,
    LC_BOOL,
    LC_U16,
    LC_U32,
    LC_U64,
    LC_I16,
    LC_DTYPE_COUNT,
} lc_dtype;

size_t lc_dtype_size(lc_dtype type);      /* bytes an element */
const char *lc_dtype_name(lc_dtype type); /* safetensors' spelling: "BF16" */
bool lc_dtype_from_name(const char *name, lc_dtype *out);

static inline float lc_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
/* Round to nearest even; NaN stays NaN. */
static inline uint16_t lc_f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
float lc_f16_to_f32(uint16_t h);
float lc_f8_e4m3_to_f32(uint8_t code);

#endif
