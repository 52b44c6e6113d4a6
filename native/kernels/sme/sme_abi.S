/* The routines of the platform's SME support that the kernels call, for toolchains that do not bring them. Hidden, so
 * that they serve this library alone, and weak, so that a toolchain's own may stand beside them. Whoever calls them
 * is about to use SME, so that it is there. */
#if defined(__APPLE__)
#define ROUTINE(name)             \
        .globl  _##name           %% \
        .private_extern _##name   %% \
        .weak_definition _##name  %% \
        .p2align 4                %% \
_##name:
#define END(name)
#else
#define ROUTINE(name)             \
        .hidden name              ; \
        .weak   name              ; \
        .type   name, %function   ; \
        .variant_pcs name         ; \
        .p2align 4                ; \
name:
#define END(name) .size name, . - name
#endif

        .text

/* A function that takes ZA over finds in TPIDR2_EL0 whether someone before left state in ZA that is to be saved first
 * (AAPCS64, "The ZA lazy saving scheme"). The block that the register points at says where to and how much: at 0 the
 * address of the buffer, null if there is nothing to save, and at 8 the slices to save, 16 bits. It may change x14 to
 * x18 only. */
ROUTINE(__arm_tpidr2_save)
        mrs     x14, TPIDR2_EL0
        cbz     x14, 2f
        ldrh    w16, [x14, #8]
        ldr     x14, [x14]
        cbz     x14, 2f
        cbz     w16, 2f
        rdsvl   x17, #1
        mov     w15, #0
1:      str     za[w15, #0], [x14]
        add     x14, x14, x17
        add     w15, w15, #1
        cmp     w15, w16
        b.lo    1b
2:      ret
END(__arm_tpidr2_save)

/* The length of vectors in 64-bit granules, which prologues note for unwinding (clang 19 even where nothing unwinds).
 * It is asked before streaming mode begins, and there a kernel holds no vector that an unwinder would look for: 0, as
 * on a CPU without SVE. It may change x0 and x16 to x18 only. */
ROUTINE(__arm_get_current_vg)
        mov     x0, #0
        mrs     x16, SVCR
        tbz     x16, #0, 1f
        cntd    x0
1:      ret
END(__arm_get_current_vg)

#if !defined(__APPLE__)
        .section .note.GNU-stack, "", %progbits
#endif
