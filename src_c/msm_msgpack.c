#include "msm_msgpack.h"

#include <string.h>

uint64_t msm_big_endian_read(const uint8_t *at, uint32_t width)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < width; i++)
        number = number << 8 | at[i];
    return number;
}

void msm_big_endian_write(uint64_t number, uint32_t width, uint8_t *out)
{
    for (uint32_t i = width; i-- > 0; number >>= 8)
        out[i] = (uint8_t)number;
}

static int64_t sign_extend(uint64_t number, uint32_t width)
{
    const uint64_t sign = (uint64_t)1 << (8 * width - 1);
    const uint64_t twos_complement = (number ^ sign) - sign;
    int64_t extended;
    memcpy(&extended, &twos_complement, sizeof extended);
    return extended;
}

static double widen_float32(uint32_t bits)
{
    float narrow;
    memcpy(&narrow, &bits, sizeof narrow);
    return (double)narrow;
}

/* Numbers of 0xca … 0xd3: the head byte, then 1, 2, 4 or 8 bytes. */
static msm_status read_number(const uint8_t *buf, size_t len, msm_token_t *token)
{
    const uint8_t byte = buf[0];
    const uint32_t width = byte <= 0xcb ? (byte == 0xca ? 4U : 8U) : 1U << (byte & 3U);
    if (len < 1U + width)
        return MSM_ERR_BOUNDS;
    const uint64_t bits = msm_big_endian_read(buf + 1, width);
    token->head = 1U + width;
    if (byte == 0xca) {
        token->kind = MSM_TOKEN_FLOAT;
        token->number.f = widen_float32((uint32_t)bits);
    } else if (byte == 0xcb) {
        token->kind = MSM_TOKEN_FLOAT;
        memcpy(&token->number.f, &bits, sizeof bits);
    } else if (byte <= 0xcf) {
        token->kind = MSM_TOKEN_UINT;
        token->number.u = bits;
    } else {
        token->kind = MSM_TOKEN_INT;
        token->number.i = sign_extend(bits, width);
    }
    return MSM_OK;
}

/* Heads that carry a length of `width` bytes after the head byte; an extension has its code after that. */
static msm_status read_length(const uint8_t *buf, size_t len, msm_token_kind kind, uint32_t width,
                              msm_token_t *token)
{
    const uint32_t head = 1U + width + (kind == MSM_TOKEN_EXT ? 1U : 0U);
    if (len < head)
        return MSM_ERR_BOUNDS;
    token->kind = kind;
    token->head = head;
    token->length = (uint32_t)msm_big_endian_read(buf + 1, width);
    if (kind == MSM_TOKEN_EXT)
        token->ext_code = (int8_t)sign_extend(buf[head - 1], 1);
    return MSM_OK;
}

static msm_status read_fixed_extension(const uint8_t *buf, size_t len, msm_token_t *token)
{
    if (len < 2)
        return MSM_ERR_BOUNDS;
    token->kind = MSM_TOKEN_EXT;
    token->head = 2;
    token->length = 1U << (buf[0] - 0xd4U);
    token->ext_code = (int8_t)sign_extend(buf[1], 1);
    return MSM_OK;
}

static msm_status read_head(const uint8_t *buf, size_t len, msm_token_t *token)
{
    const uint8_t byte = buf[0];
    token->head = 1;
    if (byte <= 0x7f) {
        token->kind = MSM_TOKEN_UINT;
        token->number.u = byte;
    } else if (byte <= 0x8f) {
        token->kind = MSM_TOKEN_MAP;
        token->length = byte & 0x0fU;
    } else if (byte <= 0x9f) {
        token->kind = MSM_TOKEN_ARRAY;
        token->length = byte & 0x0fU;
    } else if (byte <= 0xbf) {
        token->kind = MSM_TOKEN_STR;
        token->length = byte & 0x1fU;
    } else if (byte >= 0xe0) {
        token->kind = MSM_TOKEN_INT;
        token->number.i = (int64_t)byte - 0x100;
    } else if (byte == 0xc0) {
        token->kind = MSM_TOKEN_NIL;
    } else if (byte == 0xc1) {
        return MSM_ERR_SYNTAX;
    } else if (byte <= 0xc3) {
        token->kind = byte == 0xc2 ? MSM_TOKEN_FALSE : MSM_TOKEN_TRUE;
    } else if (byte <= 0xc6) {
        return read_length(buf, len, MSM_TOKEN_BIN, 1U << (byte - 0xc4U), token);
    } else if (byte <= 0xc9) {
        return read_length(buf, len, MSM_TOKEN_EXT, 1U << (byte - 0xc7U), token);
    } else if (byte <= 0xd3) {
        return read_number(buf, len, token);
    } else if (byte <= 0xd8) {
        return read_fixed_extension(buf, len, token);
    } else if (byte <= 0xdb) {
        return read_length(buf, len, MSM_TOKEN_STR, 1U << (byte - 0xd9U), token);
    } else if (byte <= 0xdd) {
        return read_length(buf, len, MSM_TOKEN_ARRAY, 2U << (byte - 0xdcU), token);
    } else {
        return read_length(buf, len, MSM_TOKEN_MAP, 2U << (byte - 0xdeU), token);
    }
    return MSM_OK;
}

msm_status msm_token_read(const uint8_t *buf, size_t len, msm_token_t *out)
{
    if (len == 0)
        return MSM_END;
    msm_token_t token = {0};
    const msm_status status = read_head(buf, len, &token);
    if (status != MSM_OK)
        return status;
    /* In 64 bits, so that 2 * length cannot wrap where size_t has 32. */
    const uint64_t announced = token.kind == MSM_TOKEN_MAP ? 2 * (uint64_t)token.length : token.length;
    if (announced > len - token.head)
        return MSM_ERR_BOUNDS;
    *out = token;
    return MSM_OK;
}

static uint32_t write_number(uint8_t byte, uint64_t bits, uint32_t width, uint8_t *out)
{
    out[0] = byte;
    msm_big_endian_write(bits, width, out + 1);
    return 1U + width;
}

uint32_t msm_uint_write(uint64_t number, uint8_t *out)
{
    if (number <= 0x7f) {
        out[0] = (uint8_t)number;
        return 1;
    }
    if (number <= UINT8_MAX)
        return write_number(0xcc, number, 1, out);
    if (number <= UINT16_MAX)
        return write_number(0xcd, number, 2, out);
    if (number <= UINT32_MAX)
        return write_number(0xce, number, 4, out);
    return write_number(0xcf, number, 8, out);
}

uint32_t msm_int_write(int64_t number, uint8_t *out)
{
    const uint64_t bits = (uint64_t)number;
    if (number >= 0)
        return msm_uint_write(bits, out);
    if (number >= -32) {
        out[0] = (uint8_t)bits;
        return 1;
    }
    if (number >= INT8_MIN)
        return write_number(0xd0, bits, 1, out);
    if (number >= INT16_MIN)
        return write_number(0xd1, bits, 2, out);
    if (number >= INT32_MIN)
        return write_number(0xd2, bits, 4, out);
    return write_number(0xd3, bits, 8, out);
}

uint32_t msm_float_write(double number, uint8_t *out)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return write_number(0xcb, bits, 8, out);
}

/* The heads whose length stands in 1, 2 or 4 bytes; none where MessagePack has no such head. */
static const struct {
    uint8_t of_8, of_16, of_32;
    uint8_t fixed;        /* the head byte that holds a small length itself */
    uint8_t fixed_lengths; /* how many lengths it can hold */
} HEADS[] = {
    [MSM_TOKEN_STR] = {0xd9, 0xda, 0xdb, 0xa0, 32},
    [MSM_TOKEN_BIN] = {0xc4, 0xc5, 0xc6, 0, 0},
    [MSM_TOKEN_ARRAY] = {0, 0xdc, 0xdd, 0x90, 16},
    [MSM_TOKEN_MAP] = {0, 0xde, 0xdf, 0x80, 16},
    [MSM_TOKEN_EXT] = {0xc7, 0xc8, 0xc9, 0, 0},
};

static uint8_t fixed_extension(uint32_t length)
{
    switch (length) {
    case 1: return 0xd4;
    case 2: return 0xd5;
    case 4: return 0xd6;
    case 8: return 0xd7;
    case 16: return 0xd8;
    default: return 0;
    }
}

uint32_t msm_head_write(msm_token_kind kind, uint32_t length, int8_t ext_code, uint8_t *out)
{
    uint32_t size = 1;
    if (kind == MSM_TOKEN_EXT && fixed_extension(length) != 0)
        out[0] = fixed_extension(length);
    else if (length < HEADS[kind].fixed_lengths)
        out[0] = (uint8_t)(HEADS[kind].fixed | length);
    else if (length <= UINT8_MAX && HEADS[kind].of_8 != 0)
        size = write_number(HEADS[kind].of_8, length, 1, out);
    else if (length <= UINT16_MAX)
        size = write_number(HEADS[kind].of_16, length, 2, out);
    else
        size = write_number(HEADS[kind].of_32, length, 4, out);
    if (kind == MSM_TOKEN_EXT)
        out[size++] = (uint8_t)ext_code;
    return size;
}
