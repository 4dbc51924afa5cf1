from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "msm_msgpack.h":
    ctypedef enum msm_status:
        MSM_OK
        MSM_END
        MSM_ERR_SYNTAX

    ctypedef enum msm_token_kind:
        MSM_TOKEN_NIL
        MSM_TOKEN_FALSE
        MSM_TOKEN_TRUE
        MSM_TOKEN_UINT
        MSM_TOKEN_INT
        MSM_TOKEN_FLOAT
        MSM_TOKEN_STR
        MSM_TOKEN_BIN
        MSM_TOKEN_ARRAY
        MSM_TOKEN_MAP
        MSM_TOKEN_EXT

    ctypedef union msm_number:
        uint64_t u
        int64_t i
        double f

    ctypedef struct msm_token_t:
        msm_token_kind kind
        uint32_t length
        uint32_t head
        int8_t ext_code
        msm_number number

    enum:
        MSM_NUMBER_SIZE_MAX
        MSM_HEAD_SIZE_MAX

    msm_status msm_token_read(const uint8_t *buf, size_t len, msm_token_t *out) nogil
    uint32_t msm_uint_write(uint64_t number, uint8_t *out) nogil
    uint32_t msm_int_write(int64_t number, uint8_t *out) nogil
    uint32_t msm_float_write(double number, uint8_t *out) nogil
    uint32_t msm_head_write(msm_token_kind kind, uint32_t length, int8_t ext_code, uint8_t *out) nogil
    uint64_t msm_big_endian_read(const uint8_t *at, uint32_t width) nogil
    void msm_big_endian_write(uint64_t number, uint32_t width, uint8_t *out) nogil
