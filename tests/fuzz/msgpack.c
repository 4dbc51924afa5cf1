/* A token that is read stays within what it was given, and written again it is the same in its shortest form. */
#include "check.h"
#include "msm_msgpack.h"

enum { TOKENS_MAX = 32 }; /* more of them would only be slow */

static uint64_t announced_by(const msm_token_t *token)
{
    return token->kind == MSM_TOKEN_MAP ? 2 * (uint64_t)token->length : token->length;
}

static void check_same(const msm_token_t *a, const msm_token_t *b)
{
    CHECK(a->kind == b->kind && a->length == b->length && a->ext_code == b->ext_code);
    CHECK(memcmp(&a->number, &b->number, sizeof a->number) == 0);
}

static uint32_t write_again(const msm_token_t *token, uint8_t *out)
{
    switch (token->kind) {
    case MSM_TOKEN_NIL: out[0] = 0xc0; return 1;
    case MSM_TOKEN_FALSE: out[0] = 0xc2; return 1;
    case MSM_TOKEN_TRUE: out[0] = 0xc3; return 1;
    case MSM_TOKEN_UINT: return msm_uint_write(token->number.u, out);
    case MSM_TOKEN_INT: return msm_int_write(token->number.i, out);
    case MSM_TOKEN_FLOAT: return msm_float_write(token->number.f, out);
    default: return msm_head_write(token->kind, token->length, token->ext_code, out);
    }
}

/* Written again, the token is no longer than it was, unless it was a float 32, and reads the same. */
static void check_written_again(const msm_token_t *token)
{
    const int is_number = token->kind == MSM_TOKEN_FLOAT || token->kind == MSM_TOKEN_INT || token->kind == MSM_TOKEN_UINT;
    const size_t room = is_number ? MSM_NUMBER_SIZE_MAX : MSM_HEAD_SIZE_MAX;
    uint8_t *head = malloc(room);
    CHECK(head != NULL);
    const uint32_t size = write_again(token, head);
    CHECK(size <= room && (size <= token->head || token->kind == MSM_TOKEN_FLOAT));
    if (announced_by(token) <= 1 << 16) {
        msm_token_t back;
        const size_t whole = size + (size_t)announced_by(token);
        uint8_t *text = calloc(whole, 1);
        CHECK(text != NULL);
        memcpy(text, head, size);
        CHECK(msm_token_read(text, whole, &back) == MSM_OK && back.head == size);
        if (token->kind == MSM_TOKEN_INT && token->number.i >= 0) {
            CHECK(back.kind == MSM_TOKEN_UINT && back.number.u == (uint64_t)token->number.i);
        } else {
            check_same(token, &back);
        }
        free(text);
    }
    free(head);
}

/* A token needs all it announces and nothing behind that. */
static void check_bounds(const uint8_t *data, const msm_token_t *token)
{
    const size_t whole = token->head + (size_t)announced_by(token);
    msm_token_t again;
    uint8_t *copy = exact_copy(data, whole);
    CHECK(msm_token_read(copy, whole, &again) == MSM_OK && again.head == token->head);
    check_same(token, &again);
    free(copy);
    copy = exact_copy(data, whole - 1);
    mark_untouched(&again, sizeof again);
    CHECK(msm_token_read(copy, whole - 1, &again) == (whole == 1 ? MSM_END : MSM_ERR_BOUNDS));
    check_untouched(&again, sizeof again);
    free(copy);
}

static void check_numbers(uint64_t bits)
{
    uint8_t buf[MSM_NUMBER_SIZE_MAX];
    msm_token_t token;
    int64_t number;
    memcpy(&number, &bits, sizeof number);
    for (uint32_t width = 1; width <= 8; width++) {
        const uint64_t part = width == 8 ? bits : bits & ((UINT64_C(1) << 8 * width) - 1);
        msm_big_endian_write(bits, width, buf);
        CHECK(msm_big_endian_read(buf, width) == part);
        CHECK(msm_token_read(buf, msm_uint_write(part, buf), &token) == MSM_OK);
        CHECK(token.kind == MSM_TOKEN_UINT && token.number.u == part);
    }
    CHECK(msm_token_read(buf, msm_int_write(number, buf), &token) == MSM_OK);
    CHECK(number < 0 ? token.kind == MSM_TOKEN_INT && token.number.i == number
                     : token.kind == MSM_TOKEN_UINT && token.number.u == bits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    source numbers = {data, size};
    check_numbers(draw(&numbers, 8));
    size_t at = 0;
    for (int i = 0; i < TOKENS_MAX && at <= size; i++) {
        msm_token_t token;
        mark_untouched(&token, sizeof token);
        const msm_status status = msm_token_read(data + at, size - at, &token);
        if (status != MSM_OK) {
            check_untouched(&token, sizeof token);
            CHECK(status == (at == size          ? MSM_END
                             : data[at] == 0xc1 ? MSM_ERR_SYNTAX
                                                : MSM_ERR_BOUNDS));
            break;
        }
        CHECK(token.head >= 1 && token.head <= MSM_NUMBER_SIZE_MAX);
        CHECK(token.head + announced_by(&token) <= size - at);
        check_bounds(data + at, &token);
        check_written_again(&token);
        at += token.head;
        if (token.kind == MSM_TOKEN_STR || token.kind == MSM_TOKEN_BIN)
            at += token.length; /* extensions are walked into: they may hold values */
    }
    return 0;
}
