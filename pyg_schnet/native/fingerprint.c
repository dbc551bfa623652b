/* A number that changes with any word of some memory: of weights that are changed behind autograd's back.
 *
 * Sums of products of neighboring words, each with a key of its place added (the family NH of universal hashes):
 * what two different sets of weights have in common by chance is one in 2^32.
 */
#include <stdint.h>
#include <string.h>

static uint32_t key(uint32_t place) {
    place *= 0x9e3779b1u;
    return place ^ place >> 15;
}

uint64_t fingerprint(const char *const *memory, const int64_t *bytes, int64_t count) {
    uint64_t sum = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t pairs = bytes[k] / 8;
        uint64_t part = (uint64_t)bytes[k];
        for (int64_t p = 0; p < pairs; p++) {
            uint32_t word[2];
            memcpy(word, memory[k] + 8 * p, 8);
            part += (uint64_t)(uint32_t)(word[0] + key((uint32_t)(2 * p + 1))) *
                    (uint32_t)(word[1] + key((uint32_t)(2 * p + 2)));
        }
        for (int64_t b = 8 * pairs; b < bytes[k]; b++) part = part * 257 + (unsigned char)memory[k][b] + 1;
        sum = (sum ^ sum >> 29) * 0x9e3779b97f4a7c15ull + part;
    }
    return sum;
}
