#include "msm_wire.h"

#include <string.h>

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} span;

static const struct {
    const char *word;
    size_t len;
    msm_wire_code code;
} words[] = {
    {"HD", 2, MSM_WIRE_HD},
    {"VA", 2, MSM_WIRE_VA},
    {"EN", 2, MSM_WIRE_EN},
    {"NF", 2, MSM_WIRE_NF},
    {"NS", 2, MSM_WIRE_NS},
    {"EX", 2, MSM_WIRE_EX},
    {"MN", 2, MSM_WIRE_MN},
    {"VERSION", 7, MSM_WIRE_VERSION},
    {"SERVER_ERROR", 12, MSM_WIRE_SERVER_ERROR},
    {"CLIENT_ERROR", 12, MSM_WIRE_CLIENT_ERROR},
    {"ERROR", 5, MSM_WIRE_CLIENT_ERROR},
};

/* Up to the next blank or the end of the line. */
static span next_token(const uint8_t *at, const uint8_t *end)
{
    span token = {at, at};
    while (token.end < end && *token.end != ' ') {
        token.end++;
    }
    return token;
}

static int is_printable(span text)
{
    for (const uint8_t *p = text.at; p < text.end; p++) {
        if (*p < 0x20 || *p > 0x7e) {
            return 0;
        }
    }
    return 1;
}

/* A canonical decimal number up to max; MSM_ERR_LIMIT if it is greater. */
static msm_status read_number(span digits, uint64_t max, uint64_t *out)
{
    uint64_t number = 0;
    if (digits.at == digits.end || (*digits.at == '0' && digits.end - digits.at > 1)) {
        return MSM_ERR_SYNTAX;
    }
    for (const uint8_t *p = digits.at; p < digits.end; p++) {
        if (*p < '0' || *p > '9') {
            return MSM_ERR_SYNTAX;
        }
    }
    for (const uint8_t *p = digits.at; p < digits.end; p++) {
        const uint64_t digit = (uint64_t)(*p - '0');
        if (number > (max - digit) / 10) {
            return MSM_ERR_LIMIT;
        }
        number = number * 10 + digit;
    }
    *out = number;
    return MSM_OK;
}

/* One return flag. seen has a bit for each letter met so far. */
static msm_status read_flag(span token, uint64_t *seen, msm_wire_head_t *head)
{
    msm_status status = MSM_OK;
    uint64_t number = 0;
    if (token.at == token.end || !is_printable(token)) {
        return MSM_ERR_SYNTAX;
    }
    const uint8_t letter = *token.at;
    if (letter < 'A' || letter > 'z' || (letter > 'Z' && letter < 'a')) {
        return MSM_ERR_SYNTAX;
    }
    const uint64_t bit = UINT64_C(1) << (letter - 'A');
    if ((*seen & bit) != 0) {
        return MSM_ERR_DUPLICATE;
    }
    *seen |= bit;

    const span argument = {token.at + 1, token.end};
    switch (letter) {
    case 'c':
        status = read_number(argument, UINT64_MAX, &head->cas);
        break;
    case 'f':
        status = read_number(argument, UINT32_MAX, &number);
        head->client_flags = (uint32_t)number;
        break;
    case 'O':
        status = read_number(argument, UINT64_MAX, &head->opaque);
        head->has_opaque = 1;
        break;
    case 't':
        if (argument.end - argument.at == 2 && memcmp(argument.at, "-1", 2) == 0) {
            break;
        }
        status = read_number(argument, UINT32_MAX, &number);
        head->ttl_s = (int64_t)number;
        break;
    default:
        break;
    }
    return status == MSM_OK ? MSM_OK : MSM_ERR_SYNTAX;
}

/* { " " flag } from at to the end of the line. */
static msm_status read_flags(const uint8_t *at, const uint8_t *end, msm_wire_head_t *head)
{
    uint64_t seen = 0;
    while (at < end) {
        const span token = next_token(at + 1, end); /* at is a blank: tokens end at one */
        const msm_status status = read_flag(token, &seen, head);
        if (status != MSM_OK) {
            return status;
        }
        at = token.end;
    }
    return MSM_OK;
}

/* The line after its first word. at is a blank or the end. */
static msm_status read_rest(const uint8_t *at, const uint8_t *end, msm_wire_head_t *head)
{
    switch (head->code) {
    case MSM_WIRE_VA: {
        uint64_t value_len = 0;
        if (at == end) {
            return MSM_ERR_SYNTAX;
        }
        const span size = next_token(at + 1, end);
        const msm_status status = read_number(size, MSM_WIRE_MAX_VALUE_LEN, &value_len);
        if (status != MSM_OK) {
            return status;
        }
        head->value_len = (size_t)value_len;
        return read_flags(size.end, end, head);
    }
    case MSM_WIRE_MN:
        return at == end ? MSM_OK : MSM_ERR_SYNTAX;
    case MSM_WIRE_VERSION: {
        const span text = {at, end};
        return end - at > 1 && is_printable(text) ? MSM_OK : MSM_ERR_SYNTAX;
    }
    case MSM_WIRE_SERVER_ERROR:
    case MSM_WIRE_CLIENT_ERROR:
        return MSM_OK;
    default:
        return read_flags(at, end, head);
    }
}

msm_status msm_wire_scan_head(const uint8_t *buf, size_t len, msm_wire_head_t *out)
{
    const size_t limit = len < MSM_WIRE_MAX_HEAD_LEN ? len : MSM_WIRE_MAX_HEAD_LEN;
    const uint8_t *newline = limit == 0 ? NULL : memchr(buf, '\n', limit);
    if (newline == NULL) {
        return limit == MSM_WIRE_MAX_HEAD_LEN ? MSM_ERR_LIMIT : MSM_INCOMPLETE;
    }
    if (newline == buf || newline[-1] != '\r') {
        return MSM_ERR_SYNTAX;
    }
    const uint8_t *end = newline - 1;
    const span word = next_token(buf, end);
    const size_t word_len = (size_t)(word.end - word.at);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (word_len != words[i].len || memcmp(word.at, words[i].word, word_len) != 0) {
            continue;
        }
        const size_t text_offset = word_len + (word.end < end ? 1 : 0);
        msm_wire_head_t head = {
            .code = words[i].code,
            .head_len = (size_t)(newline + 1 - buf),
            .text_offset = text_offset,
            .text_len = (size_t)(end - buf) - text_offset,
            .ttl_s = -1,
        };
        const msm_status status = read_rest(word.end, end, &head);
        if (status == MSM_OK) {
            *out = head;
        }
        return status;
    }
    return MSM_ERR_SYNTAX;
}
