#include "msm_session_id.h"

enum { IN_PLAIN = 1, IN_NODE = 2, IN_ROUTE = 4 };

#define WORD (IN_PLAIN | IN_NODE | IN_ROUTE)
#define WORD2 WORD, WORD
#define WORD10 WORD2, WORD2, WORD2, WORD2, WORD2
#define WORD26 WORD10, WORD10, WORD2, WORD2, WORD2

/* Which parts a byte may stand in. */
static const uint8_t parts_of[256] = {
    /* - . / */ [0x2d] = IN_ROUTE, 0, 0,
    /* 0-9   */ WORD10,
    /* : … @ */ 0, 0, 0, 0, 0, 0, 0,
    /* A-Z   */ WORD26,
    /* [ … ` */ 0, 0, 0, 0, WORD, 0,
    /* a-z   */ WORD26,
    /* { … ~ */ 0, 0, 0, IN_PLAIN,
};

static size_t run_of(const uint8_t *buf, size_t from, size_t len, uint8_t part)
{
    size_t i = from;
    while (i < len && (parts_of[buf[i]] & part) != 0) {
        i++;
    }
    return i - from;
}

msm_status msm_session_id_scan(const uint8_t *buf, size_t len, msm_session_id_t *out)
{
    if (len > MSM_SESSION_ID_MAX_LEN) {
        return MSM_ERR_LIMIT;
    }
    const size_t plain = run_of(buf, 0, len, IN_PLAIN);
    size_t node = 0;
    size_t route = 0;
    size_t i = plain;
    if (i < len && buf[i] == '-') {
        node = run_of(buf, i + 1, len, IN_NODE);
        i += 1 + node;
        if (node == 0) {
            return MSM_ERR_SYNTAX;
        }
    }
    if (i < len && buf[i] == '.') {
        route = run_of(buf, i + 1, len, IN_ROUTE);
        i += 1 + route;
        if (route == 0) {
            return MSM_ERR_SYNTAX;
        }
    }
    if (plain == 0 || i != len) {
        return MSM_ERR_SYNTAX;
    }
    if (plain > MSM_SESSION_ID_MAX_PLAIN || node > MSM_SESSION_ID_MAX_NODE || route > MSM_SESSION_ID_MAX_ROUTE) {
        return MSM_ERR_LIMIT;
    }
    *out = (msm_session_id_t){(uint8_t)plain, (uint8_t)node, (uint8_t)route};
    return MSM_OK;
}
