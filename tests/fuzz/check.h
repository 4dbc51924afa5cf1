/* What every fuzz target needs: a check that ends the run, exact copies, and bytes to draw numbers from. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

/* What a kernel must not touch is filled with this first. */
enum { UNTOUCHED = 0xa5 };

static inline void mark_untouched(void *out, size_t size)
{
    memset(out, UNTOUCHED, size);
}

static inline void check_untouched(const void *out, size_t size)
{
    const uint8_t *byte = out;
    for (size_t i = 0; i < size; i++)
        CHECK(byte[i] == UNTOUCHED);
}

/* A copy on the heap with nothing around it: AddressSanitizer sees any read beyond it. */
static inline uint8_t *exact_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    CHECK(copy != NULL);
    if (size == 0) {
        free(copy);
        return NULL;
    }
    memcpy(copy, data, size);
    return copy;
}

/* The next number out of the input; zeros follow its end. */
typedef struct {
    const uint8_t *at;
    size_t left;
} source;

static inline uint64_t draw(source *from, size_t width)
{
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++) {
        number = number << 8;
        if (from->left > 0) {
            number |= *from->at++;
            from->left--;
        }
    }
    return number;
}

#endif
