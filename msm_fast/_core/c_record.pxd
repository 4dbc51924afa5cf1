from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "msm_record.h":
    ctypedef enum msm_status:
        MSM_OK
        MSM_END
        MSM_ERR_SYNTAX
        MSM_ERR_LIMIT
        MSM_ERR_BOUNDS
        MSM_ERR_VERSION

    enum:
        MSM_RECORD_HEAD_SIZE
        MSM_RECORD_LINEAGE
        MSM_RECORD_TOMBSTONE
        MSM_RECORD_ZLIB
        MSM_RECORD_ZSTD
        MSM_RECORD_SIGNED
        MSM_RECORD_ENCRYPTED
        MSM_RECORD_DIGEST_SIZE
        MSM_FRAME_HEAD_SIZE

    const uint64_t MSM_RECORD_NUMBER_LIMIT

    ctypedef struct msm_record_head_t:
        uint64_t generation
        uint64_t created_ms
        uint64_t accessed_ms
        uint32_t max_inactive_s
        uint32_t absolute_lifetime_s
        uint32_t n_attributes
        uint32_t body_size
        uint32_t lineage[8]  # MSM_RECORD_LINEAGE
        uint32_t home
        uint16_t key_id
        uint8_t flags

    ctypedef struct msm_frame_t:
        size_t start
        size_t name
        size_t value
        size_t end
        uint8_t tag

    msm_status msm_record_head_read(const uint8_t *buf, size_t len, msm_record_head_t *out) nogil
    size_t msm_record_trailer_size(uint8_t flags) nogil
    void msm_record_head_write(const msm_record_head_t *head, uint8_t *out) nogil
    msm_status msm_frame_read(const uint8_t *buf, size_t len, size_t start, msm_frame_t *out) nogil
    void msm_frame_head_write(uint16_t name_size, uint8_t tag, uint32_t value_size, uint8_t *out) nogil
    msm_status msm_frames_count(const uint8_t *buf, size_t len, uint32_t *out) nogil
    msm_status msm_names_check(const uint8_t *buf, size_t len, uint32_t n_frames) nogil
    msm_status msm_frames_find(
        const uint8_t *buf, size_t len, const uint8_t *name, size_t name_size, msm_frame_t *out
    ) nogil
    uint64_t msm_load_u64(const uint8_t *at) nogil
    void msm_store_u64(uint64_t number, uint8_t *at) nogil
