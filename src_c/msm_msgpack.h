/* Reads and writes one MessagePack token: a whole scalar, or the head of a string, a binary, an array, a map or
 * an extension.
 *
 * Source: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
#ifndef MSM_MSGPACK_H
#define MSM_MSGPACK_H

#include <stddef.h>
#include <stdint.h>

#include "msm_status.h"

typedef enum {
    MSM_TOKEN_NIL,
    MSM_TOKEN_FALSE,
    MSM_TOKEN_TRUE,
    MSM_TOKEN_UINT,  /* number.u */
    MSM_TOKEN_INT,   /* number.i */
    MSM_TOKEN_FLOAT, /* number.f; float 32 is widened */
    MSM_TOKEN_STR,   /* length: bytes that follow the head */
    MSM_TOKEN_BIN,   /* length: bytes that follow the head */
    MSM_TOKEN_ARRAY, /* length: values that follow the head */
    MSM_TOKEN_MAP,   /* length: pairs of values that follow the head */
    MSM_TOKEN_EXT    /* length: bytes that follow the head; ext_code: what they are */
} msm_token_kind;

typedef struct {
    msm_token_kind kind;
    uint32_t length;
    uint32_t head; /* bytes of the head, or of the whole scalar */
    int8_t ext_code;
    union {
        uint64_t u;
        int64_t i;
        double f;
    } number;
} msm_token_t;

/* len: what the token and everything it announces may take. A string, a binary or an extension must fit in it
 * whole; an array or a map must leave one byte at least for each value it announces, so a caller may allocate
 * `length` places without fear.
 *
 * MSM_OK; MSM_END when len is 0; MSM_ERR_BOUNDS when the token points past len; MSM_ERR_SYNTAX for the byte
 * 0xc1, which MessagePack never uses.
 */
msm_status msm_token_read(const uint8_t *buf, size_t len, msm_token_t *out);

enum {
    MSM_NUMBER_SIZE_MAX = 9,
    MSM_HEAD_SIZE_MAX = 6
};

/* Each writes the shortest form at out, where there is room for MSM_NUMBER_SIZE_MAX or MSM_HEAD_SIZE_MAX bytes,
 * and returns its size. */
uint32_t msm_uint_write(uint64_t number, uint8_t *out);
uint32_t msm_int_write(int64_t number, uint8_t *out);
uint32_t msm_float_write(double number, uint8_t *out);
/* kind: STR, BIN, ARRAY, MAP or EXT; ext_code: 0 but for EXT. */
uint32_t msm_head_write(msm_token_kind kind, uint32_t length, int8_t ext_code, uint8_t *out);

/* MessagePack is big-endian whatever the machine is. width: 1 to 8 bytes. */
uint64_t msm_big_endian_read(const uint8_t *at, uint32_t width);
void msm_big_endian_write(uint64_t number, uint32_t width, uint8_t *out);

#endif
