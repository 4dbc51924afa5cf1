/* The head line of one reply of memcached's meta protocol.
 *
 *   head    = "VA " size flags | code flags | "MN" | "VERSION " text | "SERVER_ERROR" [" " text]
 *           | "CLIENT_ERROR" [" " text] | "ERROR" [" " text],  then CR LF; at most 2048 bytes in all
 *   code    = "HD" | "EN" | "NF" | "NS" | "EX"
 *   flags   = { " " letter token },  each letter once; the token is printable and may be empty
 *
 * Of the flags c (u64), f (u32), t (u32 or -1) and O (u64) are read; numbers are decimal without leading zeros.
 * Other letters are passed over: memcached may volunteer W, X and Z.
 */
#ifndef MSM_WIRE_H
#define MSM_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "msm_status.h"

#define MSM_WIRE_MAX_HEAD_LEN 2048
#define MSM_WIRE_MAX_VALUE_LEN ((size_t)1 << 30)

typedef enum {
    MSM_WIRE_HD,
    MSM_WIRE_VA,
    MSM_WIRE_EN,
    MSM_WIRE_NF,
    MSM_WIRE_NS,
    MSM_WIRE_EX,
    MSM_WIRE_MN,
    MSM_WIRE_VERSION,
    MSM_WIRE_SERVER_ERROR,
    MSM_WIRE_CLIENT_ERROR /* also plain ERROR */
} msm_wire_code;

typedef struct {
    msm_wire_code code;
    size_t head_len;    /* with its CR LF; a value begins here */
    size_t text_offset; /* VERSION and the errors: what stands after the first word */
    size_t text_len;
    size_t value_len; /* VA: without the CR LF that ends the value */
    uint64_t cas;     /* 0: not there */
    uint64_t opaque;
    int64_t ttl_s; /* -1: no expiry, or not there */
    uint32_t client_flags;
    uint32_t has_opaque;
} msm_wire_head_t;

/* MSM_OK, MSM_INCOMPLETE (no line end yet), MSM_ERR_LIMIT (line or value too long), MSM_ERR_DUPLICATE (a flag
 * that stands twice) or MSM_ERR_SYNTAX. Does not look beyond the line, nor beyond 2048 bytes. */
msm_status msm_wire_scan_head(const uint8_t *buf, size_t len, msm_wire_head_t *out);

#endif
