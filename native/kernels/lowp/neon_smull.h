/* The word product of Armv8.0. Two products fit into an int16, since no two numbers of them are both -128: pairs are
 * summed there, and pairs of those in the lane of their column. */
SMS_INLINE vi isa_dot_s8(vi sum, vi b, vi a) {
    const int8x16_t numbers = (int8x16_t)b, others = (int8x16_t)a;
    const int16x8_t low = vmull_s8(vget_low_s8(numbers), vget_low_s8(others));
    const int16x8_t high = vmull_high_s8(numbers, others);
    return (vi)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, high));
}
