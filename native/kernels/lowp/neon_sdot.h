/* The word product of FEAT_DotProd. */
SMS_INLINE vi isa_dot_s8(vi sum, vi b, vi a) {
    return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)b, (int8x16_t)a);
}
