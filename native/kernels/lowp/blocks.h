/* Products of blocks: BFMMLA and SMMLA multiply two rows of the lhs, two words deep, by two columns of the rhs, and
 * add to a square of four sums. Two neighbouring words of each row or column are one half of an operand, so two
 * rows of words interleave to the operands of pairs of rows or columns: the lhs when it is prepared, the rhs on its
 * way through the registers. The panels are those of every other table.
 *
 * An ISA that has such products defines them before this file is included:
 *
 *   vf isa_block_bf16(vf square, vi a, vi b), vi isa_block_s8(vi square, vi a, vi b)
 *   vi isa_zip_low(vi a, vi b), vi isa_zip_high(vi a, vi b)   a0 b0 a1 b1 and a2 b2 a3 b3
 *   vi isa_row(vi left, vi right, int row)                    one row of two squares side by side */
_Static_assert(SMS_LANES == 4 && SMS_PANELS == 1 && SMS_MR % 2 == 0, "what blocks are made for");

enum { SMS_BLOCK_ROWS = SMS_MR / 2, SMS_BLOCK_COLUMNS = 2 * SMS_PANEL_VECTORS };

/* The blocks of all pairs of rows, pair of words after pair of words; filled up with zeros. */
SMS_INLINE void sms_prepare_blocks(const sms_word *a, int64_t stride, int64_t height, int64_t depth,
                                   sms_word *restrict prepared) {
    static const sms_word zeros[SMS_MR] = {0};
    for (int64_t k = 0; k < depth; k += 2) {
        const sms_word *even = a + k * stride, *odd = k + 1 < depth ? even + stride : zeros;
        for (int64_t r = 0; r < height; r++) {
            *prepared++ = even[r];
            *prepared++ = odd[r];
        }
        for (int64_t r = height; r < sms_ceil_div(height, 2) * 2; r++) {
            *prepared++ = 0;
            *prepared++ = 0;
        }
    }
}

SMS_INLINE void sms_sum_blocks(const enum sms_number number, const int height, const struct sms_word_tile *t,
                               struct sms_word_sums *sums) {
    static const sms_word zeros[SMS_NR] = {0};
    const int rows = (height + 1) / 2;
    const int64_t prefetch_step = t->prefetch_step;
    const char *prefetch = t->prefetch;
    const sms_word *a = t->a, *b = t->b;
    vf sum[SMS_BLOCK_ROWS][SMS_BLOCK_COLUMNS];
    vi count[SMS_BLOCK_ROWS][SMS_BLOCK_COLUMNS];

    SMS_UNROLL(16)
    for (int r = 0; r < rows; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < SMS_BLOCK_COLUMNS; j++) {
            sum[r][j] = v_set(0.0f);
            count[r][j] = w_set(0);
        }
    }
    for (int64_t k = t->depth; k > 0; k -= 2) {
        const sms_word *next = k > 1 ? b + SMS_NR : zeros;
        __builtin_prefetch(prefetch, 0, SMS_PREFETCH_LOCALITY);
        __builtin_prefetch(prefetch + prefetch_step, 0, SMS_PREFETCH_LOCALITY);
        SMS_UNROLL(16)
        for (int j = 0; j < SMS_PANEL_VECTORS; j++) {
            const vi even = w_load(b + j * SMS_LANES), odd = w_load(next + j * SMS_LANES);
            const vi columns[2] = {isa_zip_low(even, odd), isa_zip_high(even, odd)};
            SMS_UNROLL(16)
            for (int r = 0; r < rows; r++) {
                const vi block = w_load(a + r * SMS_LANES);
                SMS_UNROLL(2)
                for (int side = 0; side < 2; side++) {
                    if (number == SMS_S8)
                        count[r][2 * j + side] = isa_block_s8(count[r][2 * j + side], block, columns[side]);
                    else
                        sum[r][2 * j + side] = isa_block_bf16(sum[r][2 * j + side], block, columns[side]);
                }
            }
        }
        a += rows * SMS_LANES;
        b += 2 * SMS_NR;
        prefetch += 2 * prefetch_step;
    }
    SMS_UNROLL(16)
    for (int r = 0; r < height; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < SMS_PANEL_VECTORS; j++) {
            const vi left = number == SMS_S8 ? count[r / 2][2 * j] : v_bits(sum[r / 2][2 * j]);
            const vi right = number == SMS_S8 ? count[r / 2][2 * j + 1] : v_bits(sum[r / 2][2 * j + 1]);
            sums->count[r][j] = isa_row(left, right, r % 2);
            sums->sum[r][j] = v_of_bits(sums->count[r][j]);
        }
    }
}
