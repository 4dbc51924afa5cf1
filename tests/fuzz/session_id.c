/* The scan of a session id accepts exactly its grammar, as read here from the separators inwards. */
#include "check.h"
#include "msm_session_id.h"

static int is_made_of(const uint8_t *text, size_t size, const char *others)
{
    for (size_t i = 0; i < size; i++) {
        const uint8_t c = text[i];
        const int is_word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
        if (!is_word && (c == 0 || strchr(others, c) == NULL))
            return 0;
    }
    return size > 0;
}

/* Whether text is an id but for the lengths of its parts, and what these are. */
static int split(const uint8_t *text, size_t size, size_t *plain, size_t *node, size_t *route)
{
    const uint8_t *end = text + size;
    const uint8_t *dot = size == 0 ? NULL : memchr(text, '.', size);
    const uint8_t *before = dot == NULL ? end : dot;
    const uint8_t *dash = before == text ? NULL : memchr(text, '-', (size_t)(before - text));
    *plain = (size_t)((dash == NULL ? before : dash) - text);
    *node = dash == NULL ? 0 : (size_t)(before - dash - 1);
    *route = dot == NULL ? 0 : (size_t)(end - dot - 1);
    return is_made_of(text, *plain, "~") && (dash == NULL || is_made_of(dash + 1, *node, "")) &&
           (dot == NULL || is_made_of(dot + 1, *route, "-"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    msm_session_id_t id;
    size_t plain, node, route;
    mark_untouched(&id, sizeof id);
    const msm_status status = msm_session_id_scan(data, size, &id);
    const int is_split = split(data, size, &plain, &node, &route);
    const int fits = size <= 200 && plain <= 128 && node <= 32 && route <= 64;
    CHECK((status == MSM_OK) == (is_split && fits));
    if (status != MSM_OK) {
        check_untouched(&id, sizeof id);
        CHECK(status == MSM_ERR_SYNTAX || status == MSM_ERR_LIMIT);
        CHECK(status == MSM_ERR_LIMIT || !is_split);
    } else {
        CHECK(id.plain_len == plain && id.node_len == node && id.route_len == route);
    }
    /* A text that is too long is not even looked at. */
    CHECK(msm_session_id_scan(NULL, MSM_SESSION_ID_MAX_LEN + 1 + size, &id) == MSM_ERR_LIMIT);
    return 0;
}
