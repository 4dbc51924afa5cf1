/* A head that is accepted fits the record's length to the byte, and written again it is the same 84 bytes. */
#include "check.h"
#include "msm_record.h"

static void check_known(const msm_record_head_t *head)
{
    const int is_signed = (head->flags & MSM_RECORD_SIGNED) != 0;
    const int is_encrypted = (head->flags & MSM_RECORD_ENCRYPTED) != 0;
    CHECK(head->flags < 32);
    CHECK((head->flags & 6) != 6);
    CHECK(!(is_signed && is_encrypted));
    CHECK((is_signed || is_encrypted) == (head->key_id != 0));
    CHECK(msm_record_trailer_size(head->flags) == (is_signed ? 32u : is_encrypted ? 28u : 8u));
}

static int is_within_limits(const msm_record_head_t *head)
{
    const int is_tombstone = (head->flags & MSM_RECORD_TOMBSTONE) != 0;
    return (is_tombstone || head->generation >> 62 == 0) && head->created_ms >> 62 == 0 && head->accessed_ms >> 62 == 0;
}

static void check_read(const uint8_t *data, size_t size)
{
    msm_record_head_t head;
    mark_untouched(&head, sizeof head);
    const msm_status status = msm_record_head_read(data, size, &head);
    if (status != MSM_OK) {
        check_untouched(&head, sizeof head);
        CHECK(status == MSM_ERR_SYNTAX || status == MSM_ERR_VERSION || status == MSM_ERR_BOUNDS ||
              status == MSM_ERR_LIMIT);
        CHECK((status == MSM_ERR_SYNTAX) == (size < 5 || memcmp(data, "\x89MSM", 4) != 0));
        return;
    }
    check_known(&head);
    CHECK(is_within_limits(&head));
    CHECK(MSM_RECORD_HEAD_SIZE + (size_t)head.body_size + msm_record_trailer_size(head.flags) == size);
    uint8_t *again = malloc(MSM_RECORD_HEAD_SIZE);
    CHECK(again != NULL);
    msm_record_head_write(&head, again);
    CHECK(memcmp(again, data, MSM_RECORD_HEAD_SIZE) == 0);
    free(again);
    mark_untouched(&head, sizeof head);
    uint8_t *cut = exact_copy(data, size - 1);
    CHECK(msm_record_head_read(cut, size - 1, &head) == MSM_ERR_BOUNDS);
    check_untouched(&head, sizeof head);
    free(cut);
}

static msm_record_head_t drawn_head(const uint8_t *data, size_t size)
{
    source from = {data, size};
    msm_record_head_t head = {0};
    const uint8_t trailer = (uint8_t)(draw(&from, 1) % 3);
    head.flags = (uint8_t)(draw(&from, 1) % 2 | draw(&from, 1) % 3 << 1 | (uint64_t)trailer << 3);
    head.key_id = trailer == 0 ? 0 : (uint16_t)(1 + draw(&from, 2) % 0xffff);
    head.body_size = (uint32_t)(draw(&from, 2) % 300);
    head.generation = draw(&from, 8);
    head.created_ms = draw(&from, 8);
    head.accessed_ms = draw(&from, 8);
    head.max_inactive_s = (uint32_t)draw(&from, 4);
    head.absolute_lifetime_s = (uint32_t)draw(&from, 4);
    head.n_attributes = (uint32_t)draw(&from, 4);
    head.home = (uint32_t)draw(&from, 4);
    for (size_t i = 0; i < MSM_RECORD_LINEAGE; i++)
        head.lineage[i] = (uint32_t)draw(&from, 4);
    return head;
}

/* Whatever fields are written come back, from a record of that length and of no other, unless one is over its limit. */
static void check_written(const uint8_t *data, size_t size)
{
    const msm_record_head_t head = drawn_head(data, size);
    const size_t whole = MSM_RECORD_HEAD_SIZE + head.body_size + msm_record_trailer_size(head.flags);
    msm_record_head_t back;
    uint8_t *record = calloc(whole + 1, 1);
    CHECK(record != NULL);
    msm_record_head_write(&head, record);
    CHECK(msm_record_head_read(record, whole + 1, &back) == MSM_ERR_BOUNDS);
    memset(&back, 0, sizeof back);
    const msm_status status = msm_record_head_read(record, whole, &back);
    CHECK(status == (is_within_limits(&head) ? MSM_OK : MSM_ERR_LIMIT));
    if (status != MSM_OK) {
        free(record);
        return;
    }
    CHECK(back.flags == head.flags && back.key_id == head.key_id && back.body_size == head.body_size);
    CHECK(back.generation == head.generation && back.created_ms == head.created_ms);
    CHECK(back.accessed_ms == head.accessed_ms && back.max_inactive_s == head.max_inactive_s);
    CHECK(back.absolute_lifetime_s == head.absolute_lifetime_s && back.n_attributes == head.n_attributes);
    CHECK(back.home == head.home && memcmp(back.lineage, head.lineage, sizeof head.lineage) == 0);
    free(record);
    uint8_t eight[8];
    msm_store_u64(head.generation, eight);
    CHECK(msm_load_u64(eight) == head.generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_read(data, size);
    check_written(data, size);
    return 0;
}
