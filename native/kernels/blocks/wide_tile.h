/* The tile of the 16-lane tables: 32 registers hold 12 x 32 (24 sums), a vector of weights of each of two panels, and
 * one broadcast. */
#define SMS_LANES 16
#define SMS_S8_DOT 1
#define SMS_S8_OFFSET 1
#define SMS_MR 12
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define SMS_PANELS 2
