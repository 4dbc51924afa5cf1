/* The scan of a session id.
 *
 *   id    = plain [ "-" node ] [ "." route ]      at most 200 bytes
 *   plain = 1..128 of A-Z a-z 0-9 _ ~
 *   node  = 1..32  of A-Z a-z 0-9 _
 *   route = 1..64  of A-Z a-z 0-9 _ -
 *
 * The parts stand in this order in the text, so their lengths say where each begins.
 */
#ifndef MSM_SESSION_ID_H
#define MSM_SESSION_ID_H

#include <stddef.h>
#include <stdint.h>

#include "msm_status.h"

#define MSM_SESSION_ID_MAX_LEN 200
#define MSM_SESSION_ID_MAX_PLAIN 128
#define MSM_SESSION_ID_MAX_NODE 32
#define MSM_SESSION_ID_MAX_ROUTE 64

typedef struct {
    uint8_t plain_len;
    uint8_t node_len;  /* 0: no node */
    uint8_t route_len; /* 0: no route */
} msm_session_id_t;

/* MSM_OK, MSM_ERR_LIMIT (a part or the whole too long) or MSM_ERR_SYNTAX. Reads at most 200 bytes. */
msm_status msm_session_id_scan(const uint8_t *buf, size_t len, msm_session_id_t *out);

#endif
