from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "msm_wire.h" nogil:
    ctypedef enum msm_status:
        MSM_OK
        MSM_INCOMPLETE
        MSM_ERR_LIMIT
        MSM_ERR_DUPLICATE

    ctypedef enum msm_wire_code:
        MSM_WIRE_HD
        MSM_WIRE_VA
        MSM_WIRE_EN
        MSM_WIRE_NF
        MSM_WIRE_NS
        MSM_WIRE_EX
        MSM_WIRE_MN
        MSM_WIRE_VERSION
        MSM_WIRE_SERVER_ERROR
        MSM_WIRE_CLIENT_ERROR

    enum:
        MSM_WIRE_MAX_HEAD_LEN

    size_t MSM_WIRE_MAX_VALUE_LEN

    ctypedef struct msm_wire_head_t:
        msm_wire_code code
        size_t head_len
        size_t text_offset
        size_t text_len
        size_t value_len
        uint64_t cas
        uint64_t opaque
        int64_t ttl_s
        uint32_t client_flags
        uint32_t has_opaque

    msm_status msm_wire_scan_head(const uint8_t *buf, size_t len, msm_wire_head_t *out) noexcept
