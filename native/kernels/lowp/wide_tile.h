/* What the 16-lane tables have in common. Word products of int8 take one side unsigned. The tile and blocks: 32
 * registers hold 12 x 32 (24 accumulators), a vector of each of two panels, two sums of what the offset of int8 adds,
 * and one broadcast. */
#define SMS_LANES 16
#define SMS_S8_OFFSET 1
#define SMS_BLOCKS 0
#define SMS_MR 12
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define SMS_PANELS 2
#define SMS_GROUP 8
#define SMS_KC_WORDS 192
#define SMS_LHS_BLOCK_BYTES (512 * 1024)
#define SMS_PREFETCH_LOCALITY 2
