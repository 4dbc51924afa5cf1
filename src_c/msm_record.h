/* The record around a session and the frames of its attributes. All integers are little-endian.
 *
 *    0  4  magic  89 'M' 'S' 'M'      16  8  created_ms  u64         40  4  attribute count  u32
 *    4  1  format version (1)         24  8  accessed_ms u64         44  4  body length      u32
 *    5  1  flags                      32  4  max_inactive_s      u32 (0: never)
 *    6  2  key id u16 (0: no key)     36  4  absolute_lifetime_s u32 (0: none)
 *    8  8  generation u64             48 32  lineage: 8 u32 nonces, newest first, 0 where there is none
 *                                     80  4  home u32: digest of the id of the node that decides between writers
 *                                     84  …  body: frames, as they are or compressed, then the trailer
 *
 *   flags:  bit 0 tombstone | bits 1-2 body: 0 as it is, 1 zlib, 2 zstd | bits 3-4 trailer: 0 XXH3-64 (8 bytes),
 *           1 HMAC-SHA256 (32 bytes), 2 AES-256-GCM (28 bytes)
 *
 *   frame:  u16 name length | u8 serializer tag | u32 value length | name (UTF-8) | value
 */
#ifndef MSM_RECORD_H
#define MSM_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "msm_status.h"

enum {
    MSM_RECORD_HEAD_SIZE = 84,
    MSM_RECORD_LINEAGE = 8, /* nonces: of the write itself and of those it was based on */
    MSM_RECORD_VERSION = 1,
    MSM_RECORD_TOMBSTONE = 1,
    MSM_RECORD_ZLIB = 2,
    MSM_RECORD_ZSTD = 4,
    MSM_RECORD_SIGNED = 8,
    MSM_RECORD_ENCRYPTED = 16,
    MSM_RECORD_DIGEST_SIZE = 8, /* the trailer of a record without a key */
    MSM_FRAME_HEAD_SIZE = 7
};

typedef struct {
    uint64_t generation;
    uint64_t created_ms;
    uint64_t accessed_ms;
    uint32_t max_inactive_s;
    uint32_t absolute_lifetime_s;
    uint32_t n_attributes;
    uint32_t body_size;
    uint32_t lineage[MSM_RECORD_LINEAGE];
    uint32_t home;
    uint16_t key_id;
    uint8_t flags;
} msm_record_head_t;

/* The generation of a session, and every time, is below: one can be added to them, and 64 bits with a sign hold them. */
#define MSM_RECORD_NUMBER_LIMIT (UINT64_C(1) << 62)

/* Read the head and check it against the whole record's length; the trailer and the frames are not looked at.
 *
 * MSM_ERR_SYNTAX: no record; MSM_ERR_VERSION: a version or flags that this version does not know, or a key id without
 * the trailer that needs one, or the reverse;
 * MSM_ERR_BOUNDS: the body length does not fit len;
 * MSM_ERR_LIMIT: a time, or the generation of what is no tombstone, is over MSM_RECORD_NUMBER_LIMIT.
 */
msm_status msm_record_head_read(const uint8_t *buf, size_t len, msm_record_head_t *out);

/* How many bytes the trailer has, by the flags of a head that was read. */
size_t msm_record_trailer_size(uint8_t flags);

/* Write the head into the MSM_RECORD_HEAD_SIZE bytes at out. */
void msm_record_head_write(const msm_record_head_t *head, uint8_t *out);

typedef struct {
    size_t start; /* offset of the frame in the body */
    size_t name;  /* offset of the name */
    size_t value; /* offset of the value */
    size_t end;   /* offset of what follows the frame */
    uint8_t tag;  /* the serializer that wrote the value */
} msm_frame_t;

/* Read the frame at `start` of a body; MSM_END when the body ends there, MSM_ERR_BOUNDS when the frame is cut. */
msm_status msm_frame_read(const uint8_t *buf, size_t len, size_t start, msm_frame_t *out);

/* Write the head of a frame into the MSM_FRAME_HEAD_SIZE bytes at out. */
void msm_frame_head_write(uint16_t name_size, uint8_t tag, uint32_t value_size, uint8_t *out);

/* Check the bounds of every frame and count them. */
msm_status msm_frames_count(const uint8_t *buf, size_t len, uint32_t *out);

/* Find the first frame with this name; MSM_END when there is none. */
msm_status msm_frames_find(const uint8_t *buf, size_t len, const uint8_t *name, size_t name_size,
                           msm_frame_t *out);

/* Check that every name is ASCII and that none stands twice, as far as that can be seen without an object.
 *
 * n_frames: what msm_frames_count said. Only MSM_OK is the last word. Else each name needs a closer look: one is not
 * ASCII (MSM_ERR_SYNTAX), two are alike, or nearly (MSM_ERR_DUPLICATE), or they are many (MSM_ERR_LIMIT).
 */
msm_status msm_names_check(const uint8_t *buf, size_t len, uint32_t n_frames);

uint64_t msm_load_u64(const uint8_t *at);
void msm_store_u64(uint64_t number, uint8_t *at);

#endif
