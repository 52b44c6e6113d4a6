/* The program as C sees it: the structs behind smesim/plan/program.py, field for field.
 *
 * The Python module explains what tasks, joins, queues, pools and ranges mean. Nothing here is copied or converted:
 * the runtime reads the numpy arrays in place. */
#ifndef SMESIM_PROGRAM_H
#define SMESIM_PROGRAM_H

#include <stdint.h>

enum sms_task_kind {
    SMS_JOIN = 0,
    SMS_EMBED = 1,
    SMS_RMSNORM = 2,
    SMS_PACK_LHS = 3,
    SMS_GEMM = 4,
    SMS_GEMV = 5,
    SMS_ROPE = 6,
    SMS_KV_APPEND = 7,
    SMS_ATTENTION = 8,
    SMS_ADD = 9,
    SMS_SWIGLU = 10,
    SMS_ARGMAX = 11,
    SMS_ROUTER = 12,
    SMS_EXPERT_GEMM = 13,
    SMS_EXPERT_COMBINE = 14,
    SMS_QUANTIZE = 15,
    SMS_ATTENTION_QK = 16,
    SMS_ATTENTION_SOFTMAX = 17,
    SMS_ATTENTION_PV = 18,
    SMS_ATTENTION_PART = 19,
    SMS_ATTENTION_COMBINE = 20,
    SMS_RMSNORM_PACKED = 21,
    SMS_SWIGLU_PACKED = 22,
    SMS_EXPERT_PACK = 23,
    SMS_EXPERT_ROUTE = 24,
    SMS_KV_PACK = 25
};

enum sms_entry_kind { SMS_ENTRY_TASK = 0, SMS_ENTRY_POOL = 1 };

enum sms_layout {
    SMS_ROW_MAJOR = 0,
    SMS_LHS_PACKED = 1,
    SMS_RHS_PACKED = 2,
    SMS_K_PACKED = 3,
    SMS_V_PACKED = 4
};

/* Formats of numbers: of weights, and of what is packed for their products. */
enum sms_number_format {
    SMS_NUMBER_F32 = 0,
    SMS_NUMBER_BF16 = 1,
    SMS_NUMBER_F16 = 2,
    SMS_NUMBER_S8 = 3,
    SMS_NUMBER_Q8_0 = 4,
    SMS_NUMBER_Q4_0 = 5,
    SMS_NUMBER_Q4_1 = 6,
    SMS_NUMBER_Q8 = 7
};

struct sms_op {
    int32_t kind, layer;
    int32_t m, n, k;
    int32_t tokens, past, capacity, batch;
    int32_t heads, kv_heads, head_dim;
    int32_t experts, experts_per_token, gathers, normalised, routed;
    int32_t lhs_mr;
    int32_t rhs_dtype;
    int32_t query_block, key_block;
    float eps;
    int64_t flop, n_bytes;
    int32_t input0, input1, input2, weight, bias, packed, packed_out, output0, output1, handover;
};

struct sms_task {
    int32_t op;
    int16_t kind, worker;
    int32_t begin0, end0, begin1, end1, begin2, end2;
    int32_t slot, state;
    int32_t predecessor_count, successor_begin, successor_end;
};

struct sms_worker {
    int32_t entry_begin, entry_end, core, role, unit;
};

struct sms_entry {
    int32_t kind, index;
};

struct sms_pool {
    int32_t begin, end;
};

struct sms_buffer {
    int64_t n_bytes;
    int32_t role, layout, rows, columns, dtype;
};

#endif
