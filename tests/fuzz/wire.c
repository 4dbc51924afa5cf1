/* A reply's head line is read alike whatever follows it, never from a part of it, and again from its own fields. */
#include <inttypes.h>

#include "check.h"
#include "msm_wire.h"

enum { LINES_MAX = 8 }; /* more of them would only be slow */

static const char *const CODES[] = {
    [MSM_WIRE_HD] = "HD", [MSM_WIRE_VA] = "VA", [MSM_WIRE_EN] = "EN",
    [MSM_WIRE_NF] = "NF", [MSM_WIRE_NS] = "NS", [MSM_WIRE_EX] = "EX",
};

static void check_same(const msm_wire_head_t *a, const msm_wire_head_t *b)
{
    CHECK(a->code == b->code && a->value_len == b->value_len && a->cas == b->cas && a->opaque == b->opaque);
    CHECK(a->ttl_s == b->ttl_s && a->client_flags == b->client_flags && a->has_opaque == b->has_opaque);
}

/* The line alone, and the line with other bytes behind it. */
static void check_alone(const uint8_t *data, size_t line, msm_status status, const msm_wire_head_t *head)
{
    for (size_t more = 0; more < 3; more++) {
        msm_wire_head_t again;
        uint8_t *copy = malloc(line + more);
        CHECK(copy != NULL);
        memset(copy, '\n', line + more);
        memcpy(copy, data, line);
        mark_untouched(&again, sizeof again);
        CHECK(msm_wire_scan_head(copy, line + more, &again) == status);
        if (status == MSM_OK)
            check_same(&again, head);
        else
            check_untouched(&again, sizeof again);
        free(copy);
    }
}

/* No part of a line is a line. */
static void check_parts(const uint8_t *data, size_t line)
{
    const size_t lengths[] = {0, line / 2, line - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        msm_wire_head_t head;
        uint8_t *copy = exact_copy(data, lengths[i]);
        mark_untouched(&head, sizeof head);
        CHECK(msm_wire_scan_head(copy, lengths[i], &head) == MSM_INCOMPLETE);
        check_untouched(&head, sizeof head);
        free(copy);
    }
}

/* Whether text is a number as memcached writes it, without a sign or leading zeros. */
static int is_number(const uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
    }
    return size == 1 || (size > 1 && text[0] != '0');
}

/* Of a line that was accepted: each flag stands once, and the numbers among them are numbers. */
static void check_flags(const uint8_t *data, size_t line, int has_size)
{
    const uint8_t *end = data + line - 2;
    const uint8_t *at = memchr(data, ' ', (size_t)(end - data));
    uint8_t seen[256] = {0};
    for (size_t i = 0; at != NULL; i++) {
        const uint8_t *token = at + 1;
        at = memchr(token, ' ', (size_t)(end - token));
        const size_t size = (size_t)((at == NULL ? end : at) - token);
        CHECK(size > 0);
        if (has_size && i == 0) {
            CHECK(is_number(token, size));
            continue;
        }
        CHECK(!seen[*token]++);
        if (strchr("cfO", *token) != NULL)
            CHECK(is_number(token + 1, size - 1));
        if (*token == 't')
            CHECK(is_number(token + 1, size - 1) || (size == 3 && memcmp(token, "t-1", 3) == 0));
    }
}

static void check_fields(const uint8_t *data, size_t line, const msm_wire_head_t *head)
{
    char text[200];
    char size[24] = "";
    char opaque[24] = "";
    msm_wire_head_t again;
    CHECK(head->head_len == line && data[line - 2] == '\r');
    CHECK(head->text_offset <= line - 2 && head->text_len == line - 2 - head->text_offset);
    CHECK(head->value_len <= MSM_WIRE_MAX_VALUE_LEN && (head->code == MSM_WIRE_VA || head->value_len == 0));
    CHECK(head->ttl_s >= -1 && head->ttl_s <= UINT32_MAX && head->has_opaque <= 1);
    if (head->code > MSM_WIRE_EX) {
        CHECK(!head->has_opaque && head->cas == 0 && head->ttl_s == -1 && head->client_flags == 0);
        return;
    }
    CHECK(memcmp(data, CODES[head->code], 2) == 0);
    check_flags(data, line, head->code == MSM_WIRE_VA);
    if (head->code == MSM_WIRE_VA)
        snprintf(size, sizeof size, " %zu", head->value_len);
    if (head->has_opaque)
        snprintf(opaque, sizeof opaque, " O%" PRIu64, head->opaque);
    const int n = snprintf(text, sizeof text, "%s%s c%" PRIu64 " f%" PRIu32 " t%" PRId64 "%s\r\n", CODES[head->code],
                           size, head->cas, head->client_flags, head->ttl_s, opaque);
    CHECK(msm_wire_scan_head((const uint8_t *)text, (size_t)n, &again) == MSM_OK);
    check_same(&again, head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* What follows a line is read as the next one, as in a stream. */
    size_t at = 0;
    for (int i = 0; i < LINES_MAX && at <= size; i++) {
        const size_t left = size - at;
        const uint8_t *newline = left == 0 ? NULL : memchr(data + at, '\n', left);
        const size_t line = newline == NULL ? left : (size_t)(newline - data) + 1 - at;
        msm_wire_head_t head;
        mark_untouched(&head, sizeof head);
        const msm_status status = msm_wire_scan_head(data + at, left, &head);
        if (status != MSM_OK)
            check_untouched(&head, sizeof head);
        if (newline == NULL || line > MSM_WIRE_MAX_HEAD_LEN) {
            CHECK(status == (left < MSM_WIRE_MAX_HEAD_LEN ? MSM_INCOMPLETE : MSM_ERR_LIMIT));
            break;
        }
        CHECK(status == MSM_OK || status == MSM_ERR_SYNTAX || status == MSM_ERR_LIMIT || status == MSM_ERR_DUPLICATE);
        check_alone(data + at, line, status, &head);
        check_parts(data + at, line);
        if (status == MSM_OK)
            check_fields(data + at, line, &head);
        at += line;
    }
    return 0;
}
