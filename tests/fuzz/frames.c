/* Frames tile the body: walked, counted, found by name and written again they are the same bytes. */
#include "check.h"
#include "msm_record.h"

enum { FINDS_MAX = 64 }; /* each walks the body: more would only be slow */

static int is_named(const uint8_t *body, const msm_frame_t *frame, const uint8_t *name, size_t name_size)
{
    return frame->value - frame->name == name_size && memcmp(body + frame->name, name, name_size) == 0;
}

static void check_frame(const uint8_t *body, size_t size, size_t at, const msm_frame_t *frame)
{
    uint8_t head[MSM_FRAME_HEAD_SIZE];
    const size_t name_size = frame->value - frame->name;
    const size_t value_size = frame->end - frame->value;
    msm_frame_t cut;
    CHECK(frame->start == at && frame->name == at + MSM_FRAME_HEAD_SIZE);
    CHECK(frame->name <= frame->value && frame->value <= frame->end && frame->end <= size);
    msm_frame_head_write((uint16_t)name_size, frame->tag, (uint32_t)value_size, head);
    CHECK(memcmp(head, body + at, sizeof head) == 0);
    mark_untouched(&cut, sizeof cut);
    CHECK(msm_frame_read(body, frame->end - 1, at, &cut) == MSM_ERR_BOUNDS);
    check_untouched(&cut, sizeof cut);
}

/* The first frame of that name is found, and nothing is missed or made up. */
static void check_find(const uint8_t *body, size_t size, const uint8_t *name, size_t name_size, msm_status at_end)
{
    msm_frame_t found;
    msm_frame_t frame = {0};
    mark_untouched(&found, sizeof found);
    const msm_status status = msm_frames_find(body, size, name, name_size, &found);
    while (msm_frame_read(body, size, frame.end, &frame) == MSM_OK) {
        if (is_named(body, &frame, name, name_size)) {
            CHECK(status == MSM_OK && found.start == frame.start && found.end == frame.end);
            return;
        }
    }
    CHECK(status == at_end);
    check_untouched(&found, sizeof found);
}

static int is_ascii(const uint8_t *name, size_t size)
{
    while (size > 0 && name[size - 1] < 0x80)
        size--;
    return size == 0;
}

/* Names that are passed are ASCII and differ; one that is not ASCII is told only where there is one. */
static void check_names(const uint8_t *body, size_t size, uint32_t n_frames)
{
    msm_frame_t frame = {0};
    msm_frame_t first;
    int are_ascii = 1;
    const msm_status status = msm_names_check(body, size, n_frames);
    for (int i = 0; i < FINDS_MAX && msm_frame_read(body, size, frame.end, &frame) == MSM_OK; i++) {
        const int is_plain = is_ascii(body + frame.name, frame.value - frame.name);
        are_ascii &= is_plain;
        if (status != MSM_OK)
            continue;
        CHECK(is_plain);
        CHECK(msm_frames_find(body, size, body + frame.name, frame.value - frame.name, &first) == MSM_OK);
        CHECK(first.start == frame.start);
    }
    CHECK(status != MSM_ERR_SYNTAX || !are_ascii || n_frames > FINDS_MAX);
    CHECK(status != MSM_ERR_LIMIT || n_frames > FINDS_MAX);
    if (status == MSM_OK && n_frames > 0)
        CHECK(msm_names_check(body, size, n_frames - 1) == MSM_ERR_LIMIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    msm_frame_t frame = {0};
    msm_status status;
    uint32_t n_frames = 0;
    uint32_t count = 0;
    size_t at = 0;
    while ((status = msm_frame_read(data, size, at, &frame)) == MSM_OK) {
        check_frame(data, size, at, &frame);
        at = frame.end;
        n_frames++;
    }
    CHECK(status == (at == size ? MSM_END : MSM_ERR_BOUNDS));

    mark_untouched(&count, sizeof count);
    CHECK(msm_frames_count(data, size, &count) == (at == size ? MSM_OK : MSM_ERR_BOUNDS));
    if (at == size) {
        CHECK(count == n_frames);
        check_names(data, size, n_frames);
    } else {
        check_untouched(&count, sizeof count);
        CHECK(msm_names_check(data, size, n_frames) != MSM_OK);
    }

    mark_untouched(&frame, sizeof frame);
    CHECK(msm_frame_read(data, size, size + 1, &frame) == MSM_ERR_BOUNDS);
    check_untouched(&frame, sizeof frame);

    check_find(data, size, data, 0, status);
    check_find(data, size, data, size < 3 ? size : 3, status);
    frame.end = 0;
    for (int i = 0; i < FINDS_MAX && msm_frame_read(data, size, frame.end, &frame) == MSM_OK; i++)
        check_find(data, size, data + frame.name, frame.value - frame.name, status);
    return 0;
}
