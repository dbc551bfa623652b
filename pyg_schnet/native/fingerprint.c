/* A number that changes with any word of some memory: of weights that are changed behind autograd's back. */
#include <stdint.h>
#include <string.h>

uint64_t fingerprint(const char *const *memory, const int64_t *bytes, int64_t count) {
    uint64_t sum = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t words = bytes[k] / 4;
        uint64_t part = 0;
        for (int64_t w = 0; w < words; w++) {
            uint32_t word;
            memcpy(&word, memory[k] + 4 * w, 4);
            part += (uint64_t)word * (2 * (uint64_t)w + 1);
        }
        sum = sum * 0x9e3779b97f4a7c15ull + part;
    }
    return sum;
}
