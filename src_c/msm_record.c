#include "msm_record.h"

#include <string.h>

static const uint8_t MAGIC[4] = {0x89, 'M', 'S', 'M'};

static uint16_t load_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint64_t msm_load_u64(const uint8_t *at)
{
    return (uint64_t)load_u32(at) | (uint64_t)load_u32(at + 4) << 32;
}

static void store_u16(uint16_t number, uint8_t *at)
{
    at[0] = (uint8_t)number;
    at[1] = (uint8_t)(number >> 8);
}

static void store_u32(uint32_t number, uint8_t *at)
{
    store_u16((uint16_t)number, at);
    store_u16((uint16_t)(number >> 16), at + 2);
}

void msm_store_u64(uint64_t number, uint8_t *at)
{
    store_u32((uint32_t)number, at);
    store_u32((uint32_t)(number >> 32), at + 4);
}

/* Whether there is at most one kind of compression and one of trailer, and a key for the trailers that have one. */
static int is_known(uint8_t flags, uint16_t key_id)
{
    const uint8_t compression = flags & (MSM_RECORD_ZLIB | MSM_RECORD_ZSTD);
    const uint8_t trailer = flags & (MSM_RECORD_SIGNED | MSM_RECORD_ENCRYPTED);
    return flags < 2 * MSM_RECORD_ENCRYPTED && compression != (MSM_RECORD_ZLIB | MSM_RECORD_ZSTD) &&
           trailer != (MSM_RECORD_SIGNED | MSM_RECORD_ENCRYPTED) && (trailer != 0) == (key_id != 0);
}

size_t msm_record_trailer_size(uint8_t flags)
{
    enum { HMAC_SHA256_SIZE = 32, GCM_TAG_SIZE = 16, GCM_NONCE_SIZE = 12 };
    if ((flags & MSM_RECORD_SIGNED) != 0)
        return HMAC_SHA256_SIZE;
    return (flags & MSM_RECORD_ENCRYPTED) != 0 ? GCM_TAG_SIZE + GCM_NONCE_SIZE : MSM_RECORD_DIGEST_SIZE;
}

msm_status msm_record_head_read(const uint8_t *buf, size_t len, msm_record_head_t *out)
{
    if (len < sizeof MAGIC + 1 || memcmp(buf, MAGIC, sizeof MAGIC) != 0)
        return MSM_ERR_SYNTAX;
    if (buf[4] != MSM_RECORD_VERSION)
        return MSM_ERR_VERSION;
    if (len < MSM_RECORD_HEAD_SIZE + MSM_RECORD_DIGEST_SIZE)
        return MSM_ERR_BOUNDS;
    /* An unknown flag may mean another trailer: what follows may not be readable as one of these. */
    if (!is_known(buf[5], load_u16(buf + 6)))
        return MSM_ERR_VERSION;
    const size_t around = MSM_RECORD_HEAD_SIZE + msm_record_trailer_size(buf[5]);
    const uint32_t body_size = load_u32(buf + 44);
    if (len < around || body_size != len - around)
        return MSM_ERR_BOUNDS;
    const uint64_t generation = msm_load_u64(buf + 8);
    const uint64_t created_ms = msm_load_u64(buf + 16);
    const uint64_t accessed_ms = msm_load_u64(buf + 24);
    const int is_tombstone = (buf[5] & MSM_RECORD_TOMBSTONE) != 0;
    if ((generation >= MSM_RECORD_NUMBER_LIMIT && !is_tombstone) || created_ms >= MSM_RECORD_NUMBER_LIMIT ||
        accessed_ms >= MSM_RECORD_NUMBER_LIMIT)
        return MSM_ERR_LIMIT;
    out->flags = buf[5];
    out->key_id = load_u16(buf + 6);
    out->generation = generation;
    out->created_ms = created_ms;
    out->accessed_ms = accessed_ms;
    out->max_inactive_s = load_u32(buf + 32);
    out->absolute_lifetime_s = load_u32(buf + 36);
    out->n_attributes = load_u32(buf + 40);
    out->body_size = body_size;
    for (size_t i = 0; i < MSM_RECORD_LINEAGE; i++)
        out->lineage[i] = load_u32(buf + 48 + 4 * i);
    out->home = load_u32(buf + 80);
    return MSM_OK;
}

void msm_record_head_write(const msm_record_head_t *head, uint8_t *out)
{
    memcpy(out, MAGIC, sizeof MAGIC);
    out[4] = MSM_RECORD_VERSION;
    out[5] = head->flags;
    store_u16(head->key_id, out + 6);
    msm_store_u64(head->generation, out + 8);
    msm_store_u64(head->created_ms, out + 16);
    msm_store_u64(head->accessed_ms, out + 24);
    store_u32(head->max_inactive_s, out + 32);
    store_u32(head->absolute_lifetime_s, out + 36);
    store_u32(head->n_attributes, out + 40);
    store_u32(head->body_size, out + 44);
    for (size_t i = 0; i < MSM_RECORD_LINEAGE; i++)
        store_u32(head->lineage[i], out + 48 + 4 * i);
    store_u32(head->home, out + 80);
}

msm_status msm_frame_read(const uint8_t *buf, size_t len, size_t start, msm_frame_t *out)
{
    if (start >= len)
        return start == len ? MSM_END : MSM_ERR_BOUNDS;
    const size_t left = len - start;
    if (left < MSM_FRAME_HEAD_SIZE)
        return MSM_ERR_BOUNDS;
    const uint16_t name_size = load_u16(buf + start);
    const uint32_t value_size = load_u32(buf + start + 3);
    /* In 64 bits: the sum must not wrap where size_t has 32. */
    const uint64_t size = (uint64_t)MSM_FRAME_HEAD_SIZE + name_size + value_size;
    if (size > left)
        return MSM_ERR_BOUNDS;
    out->start = start;
    out->name = start + MSM_FRAME_HEAD_SIZE;
    out->value = out->name + name_size;
    out->end = start + (size_t)size;
    out->tag = buf[start + 2];
    return MSM_OK;
}

void msm_frame_head_write(uint16_t name_size, uint8_t tag, uint32_t value_size, uint8_t *out)
{
    store_u16(name_size, out);
    out[2] = tag;
    store_u32(value_size, out + 3);
}

msm_status msm_frames_count(const uint8_t *buf, size_t len, uint32_t *out)
{
    msm_frame_t frame = {0};
    msm_status status;
    uint32_t n_frames = 0;
    while ((status = msm_frame_read(buf, len, frame.end, &frame)) == MSM_OK) {
        if (n_frames == UINT32_MAX)
            return MSM_ERR_LIMIT;
        n_frames++;
    }
    if (status != MSM_END)
        return status;
    *out = n_frames;
    return MSM_OK;
}

msm_status msm_frames_find(const uint8_t *buf, size_t len, const uint8_t *name, size_t name_size,
                           msm_frame_t *out)
{
    msm_frame_t frame = {0};
    msm_status status;
    while ((status = msm_frame_read(buf, len, frame.end, &frame)) == MSM_OK) {
        if (frame.value - frame.name == name_size && memcmp(buf + frame.name, name, name_size) == 0) {
            *out = frame;
            return MSM_OK;
        }
    }
    return status;
}

/* Give a number that two names hardly ever share, and never 0; it need not resist who looks for such names. */
static msm_status name_digest(const uint8_t *name, size_t size, uint32_t *out)
{
    uint64_t digest = size;
    uint8_t all = 0;
    for (size_t i = 0; i < size; i++) {
        all |= name[i];
        digest = (digest ^ name[i]) * 0x9E3779B97F4A7C15u;
    }
    if (all >= 0x80)
        return MSM_ERR_SYNTAX;
    *out = (uint32_t)(digest >> 32) | 1;
    return MSM_OK;
}

msm_status msm_names_check(const uint8_t *buf, size_t len, uint32_t n_frames)
{
    enum { NAMES_MAX = 256 };
    /* A hash table with room for twice as many, of which no more is used than it takes; 0: free. */
    uint32_t seen[2 * NAMES_MAX];
    size_t n_slots = 16;
    msm_frame_t frame = {0};
    msm_status status;
    uint32_t digest = 0;
    if (n_frames > NAMES_MAX)
        return MSM_ERR_LIMIT;
    while (n_slots < 2 * (size_t)n_frames)
        n_slots *= 2;
    memset(seen, 0, n_slots * sizeof seen[0]);
    while ((status = msm_frame_read(buf, len, frame.end, &frame)) == MSM_OK) {
        if (n_frames-- == 0)
            return MSM_ERR_LIMIT;
        if ((status = name_digest(buf + frame.name, frame.value - frame.name, &digest)) != MSM_OK)
            return status;
        size_t slot = (digest >> 1) & (n_slots - 1);
        while (seen[slot] != 0 && seen[slot] != digest)
            slot = (slot + 1) & (n_slots - 1);
        if (seen[slot] == digest)
            return MSM_ERR_DUPLICATE;
        seen[slot] = digest;
    }
    return status == MSM_END ? MSM_OK : status;
}
