/* What every kernel returns.
 *
 * A kernel takes (const uint8_t *buf, size_t len, out), writes only *out, allocates nothing, keeps no state,
 * and leaves *out untouched unless it returns MSM_OK.
 */
#ifndef MSM_STATUS_H
#define MSM_STATUS_H

typedef enum {
    MSM_OK = 0,
    MSM_INCOMPLETE = 1,     /* well-formed so far: more bytes are needed */
    MSM_END = 2,            /* nothing left to read */
    MSM_ERR_SYNTAX = -1,    /* not this grammar */
    MSM_ERR_LIMIT = -2,     /* a length or number over its limit */
    MSM_ERR_BOUNDS = -3,    /* a length that points past the end */
    MSM_ERR_DUPLICATE = -4, /* a field or name that stands twice */
    MSM_ERR_VERSION = -5    /* a format of another version: leave it alone */
} msm_status;

#endif
