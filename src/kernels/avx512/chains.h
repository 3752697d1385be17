/* chains.h: a loop of one instruction on 24 of the 32 registers, each a chain of its own. In
 * assembly, so that no compiler and no optimisation level moves a register. */
#ifndef LC_KERNELS_AVX512_CHAINS_H
#define LC_KERNELS_AVX512_CHAINS_H

enum { LC_CHAINS = 24 };

/* instruction: "vdpbf16ps %1, %2, "; a and b: registers that it reads. rounds >= 1. */
#define LC_RUN_CHAINS(instruction, rounds, a, b)                                                   \
    __asm__ volatile(                                                                              \
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"                   \
        "vpxord %%zmm\\r, %%zmm\\r, %%zmm\\r\n"                                                    \
        ".endr\n"                                                                                  \
        "1:\n"                                                                                     \
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n" instruction       \
        "%%zmm\\r\n"                                                                               \
        ".endr\n"                                                                                  \
        "dec %0\n"                                                                                 \
        "jnz 1b\n"                                                                                 \
        : "+r"(rounds)                                                                             \
        : "v"(a), "v"(b)                                                                           \
        : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",    \
          "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18",         \
          "xmm19", "xmm20", "xmm21", "xmm22", "xmm23")

#endif
